"""The figures of the report: which are drawn for a run, their captions, their files."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stemdisp import _plot_style as st
from stemdisp import plot
from stemdisp.report import _svg

# Of a drawing; in print, where it is smaller, at least 300.
DPI = 245
# A noisy image does not compress without loss; the page then carries a WebP copy.
_MAX_PNG_BYTES = 180_000


@dataclass(frozen=True)
class Figure:
    """One drawn figure: file name, section of the page, words, and its encoded picture."""

    name: str
    section: str
    title: str
    caption: str
    wide: bool
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class _Plan:
    name: str
    section: str
    title: str
    caption: str
    draw: Callable[[Any], Any]
    wide: bool = False


def draw_figures(result: Any, directory: Path, *, progress: bool = False) -> list[Figure]:
    """Draw every figure that the run supports; write PNG and SVG files.

    Parameters
    ----------
    result : Result
        A finished run.
    directory : Path
        Directory of the report; the files go to its ``figures/``.
    progress : bool
        Show a progress bar (on a terminal only).

    Returns
    -------
    list of Figure
        In the order of the page, with pictures as data URIs.
    """
    import matplotlib as mpl
    from tqdm import tqdm

    folder = directory / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    out = []
    with mpl.rc_context(st.rc_params()):
        shown = {"desc": "report", "leave": False, "disable": None if progress else True}
        for plan in tqdm(_plans(result), **shown):
            figure = plan.draw(result)
            box = _settled(figure)
            png = _render(figure, "png", box)
            (folder / f"{plan.name}.png").write_bytes(png)
            (folder / f"{plan.name}.svg").write_bytes(_render(figure, "svg", box))
            uri = data_uri(png)
            out.append(
                Figure(
                    plan.name,
                    plan.section,
                    plan.title,
                    plan.caption,
                    plan.wide,
                    uri,
                    *_png_size(png),
                )
            )
    return out


def _settled(figure: Any) -> Any:
    """Lay the figure out once and return the box around everything drawn, in inches."""
    figure.draw_without_rendering()
    # None, unlike "none", spares each savefig one more silent drawing.
    figure.set_layout_engine(None)
    return figure.get_tightbbox().padded(0.05)


def _render(figure: Any, kind: str, box: Any) -> bytes:
    """Write a figure as wide as a column of a journal, or two."""
    width_cm = _svg.printed_cm(box.width)
    scale = box.width * _svg.CM_PER_IN / width_cm
    printed = {"dpi": (DPI * scale, DPI * scale), "compress_level": 4}
    # No date in the file: the same run gives the same bytes.
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    buffer = io.BytesIO()
    figure.savefig(
        buffer,
        format=kind,
        dpi=DPI,
        bbox_inches=box,
        facecolor="white",
        metadata=metadata,
        **({"pil_kwargs": printed} if kind == "png" else {}),
    )
    drawn = buffer.getvalue()
    return _svg.finished(drawn, width_cm=width_cm) if kind == "svg" else drawn


def data_uri(png: bytes) -> str:
    """Return a picture as a data URI, as WebP where the PNG would be large."""
    kind = "png"
    if len(png) > _MAX_PNG_BYTES:
        from PIL import Image

        buffer = io.BytesIO()
        with Image.open(io.BytesIO(png)) as picture:
            picture.convert("RGB").save(buffer, "WEBP", quality=88, method=4)
        if buffer.tell() < len(png):
            png, kind = buffer.getvalue(), "webp"
    return f"data:image/{kind};base64,{base64.b64encode(png).decode('ascii')}"


def _png_size(png: bytes) -> tuple[int, int]:
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def notebook_figures(result: Any) -> list[tuple[str, str]]:
    """Draw the few figures of a notebook: what they show, and the picture as a data URI."""
    import matplotlib as mpl

    charts = [("displacement map", plot.plot_displacement_map)]
    if result.interface is None:
        charts.append(("distribution of displacements", plot.plot_displacement_distribution))
    else:
        charts.append(("displacement against depth", plot.plot_decay))
        if _has(result.planes, "occupancy"):
            charts.append(("occupancy against depth", plot.plot_occupancy))
    out = []
    with mpl.rc_context(st.rc_params()):
        for name, chart in charts:
            figure = chart(result).figure
            out.append((name, data_uri(_render(figure, "png", _settled(figure)))))
    return out


def _single(function: Callable[..., Any], **keywords: Any) -> Callable[[Any], Any]:
    return lambda result: function(result, **keywords).figure


def _correlation(result: Any) -> Any:
    axes = st.new_axes(8.6, 3.5)
    figure = axes.figure
    axes.remove()
    left, right = figure.subplots(1, 2)
    plot.plot_correlation(result, which="between", ax=left)
    plot.plot_correlation(result, which="within", ax=right)
    return figure


def _dose(result: Any) -> Any:
    if not _has(result.dose_series, "occupancy1"):
        return plot.plot_dose(result).figure
    axes = st.new_axes(8.6, 3.2)
    figure = axes.figure
    axes.remove()
    for which, panel in zip(("displacement", "occupancy"), figure.subplots(1, 2), strict=True):
        plot.plot_dose(result, which=which, ax=panel)
    return figure


def _plans(result: Any) -> list[_Plan]:
    if result.interface is None:
        return _plans_without_interface(result) + _checks(result)
    main = _image_plans(result) + _depth_plans(result) + _meaning_plans(result)
    return main + _checks(result)


def _image_plans(result: Any) -> list[_Plan]:
    k, o = st.displaced_species(result), st.anion_species(result) or "anion"
    along = st.direction_name(result.projection.u_uvw)
    return [
        _Plan(
            "image",
            "answer",
            "The image and its columns",
            "Aligned mean image with usable fitted columns, one colour per species; in a large "
            "field they are drawn in the boxes only. Dashed: interface. Right edge: plane number "
            "N. Yellow boxes 1 and 2 are enlarged next.",
            _single(plot.plot_image),
        ),
        _Plan(
            "displacement_map",
            "answer",
            f"Displacement of every {k} column",
            f"Colour: δ along {along}, centred on zero, bulk offset subtracted. Arrows: δ and δ⊥ "
            "together, magnified as the key says; in a large field, means over small blocks.",
            _single(plot.plot_displacement_map),
        ),
        _Plan(
            "zoom_near",
            "answer",
            "Box 1: next to the interface",
            f"Rings: fitted columns. Dashed circles: {o} sites with an occupancy below 0.5. "
            f"Arrows: displacement of {k} columns, magnified as the key says.",
            _single(plot.plot_zoom, where="near"),
        ),
        _Plan(
            "zoom_far",
            "answer",
            "Box 2: far from the interface",
            "The same as box 1, at the same magnification, where the crystal is taken as bulk.",
            _single(plot.plot_zoom, where="far"),
        ),
    ]


def _angle_plan(species: str) -> _Plan:
    return _Plan(
        "displacement_angle",
        "answer",
        f"Direction of every {species} displacement",
        "Hue: direction in the image, read from the wheel. Saturation: length, full from the "
        "length at the rim of the wheel on. Grey: no displacement.",
        _single(plot.plot_displacement_angle),
    )


def _depth_plans(result: Any) -> list[_Plan]:
    o = st.anion_species(result) or "anion"
    curve = st.section(result, "occupancy_calibration")
    made = f", calibrated ({curve})" if curve else ""
    plans = [
        _Plan(
            "decay",
            "answer",
            "Displacement against depth, δ(N)",
            "Faint: single columns. Circles: plane means with the error from noise alone (thick) "
            "and the total error (thin, scatter between columns included). Line and band: fitted "
            "exponential. Blue band: zero from the bulk. "
            "N = 1 lies beside the film, which can bias it by 1 to 6 pm. "
            "Triangle: displacement depth, bar: its interval. Dotted: departures inside "
            "are not told from bulk. "
            "Deeper planes are in the table.",
            _single(plot.plot_decay),
        ),
        _Plan(
            "occupancy",
            "answer",
            f"{o} occupancy against depth",
            f"Fitted intensity of pure {o} columns over that in the bulk{made}. "
            "Faint: single columns. "
            "Circles: plane means with total error. Triangle: vacancy depth, bar: its interval. "
            "Dotted: a smaller loss is not told from bulk.",
            _single(plot.plot_occupancy),
        ),
    ]
    plans.append(_angle_plan(st.displaced_species(result)))
    if result.line_profile is not None and len(result.line_profile):
        plans.append(
            _Plan(
                "line_profile",
                "answer",
                f"Line profile through {o} columns",
                "Image intensity averaged over a band along the purple dashed line of box 1. "
                f"Numbers: N at the {o} sites. Open circles: planes whose mean occupancy is "
                "below 0.5.",
                _single(plot.plot_line_profile),
                wide=True,
            )
        )
    return plans


def _meaning_plans(result: Any) -> list[_Plan]:
    k, o = st.displaced_species(result), st.anion_species(result) or "anion"
    return [
        _Plan(
            "correlation",
            "correlation",
            "Missing anions and displacement",
            "Left: plane means; two profiles that both decay always correlate, so this does not "
            "show 'same place'. Right: each column against its own cage with the plane means "
            "taken away; only this can show 'same place'.",
            _correlation,
            wide=True,
        ),
        _Plan(
            "counting",
            "counting",
            "How planes are counted",
            "Ideal columns next to the interface, in the orientation of the image. A column in "
            f"layer l belongs to plane N = 1 \N{MINUS SIGN} floor(l), so a cage plane and the "
            f"{k} and {o} columns just below it share N.",
            _single(plot.plot_counting),
        ),
    ]


def _plans_without_interface(result: Any) -> list[_Plan]:
    k = st.displaced_species(result)
    along = st.direction_name(result.projection.u_uvw)
    return [
        _Plan(
            "image",
            "answer",
            "The image and its columns",
            "Mean image with usable fitted columns, one colour per species; in a large field they "
            "are drawn in the box only. The yellow box is enlarged next.",
            _single(plot.plot_image),
        ),
        _Plan(
            "displacement_map",
            "answer",
            f"Displacement of every {k} column",
            f"Colour: δ along {along}, centred on zero. Arrows: δ and δ⊥ together, magnified as "
            "the key says; in a large field, means over small blocks of columns.",
            _single(plot.plot_displacement_map),
        ),
        _angle_plan(k),
        _Plan(
            "zoom_far",
            "answer",
            "Enlarged box",
            f"Rings: fitted columns. Arrows: displacement of {k} columns, magnified as the key "
            "says.",
            _single(plot.plot_zoom, where="far"),
        ),
        _Plan(
            "distribution",
            "answer",
            "Distribution of displacements",
            f"All usable {k} columns, along both lattice vectors. A mean that is not zero can "
            "come from specimen tilt.",
            _single(plot.plot_displacement_distribution),
        ),
    ]


def _dose_plans(result: Any) -> list[_Plan]:
    series = result.dose_series
    if series is not None and result.interface is not None and _has(series, "delta1_A"):
        return [
            _Plan(
                "dose",
                "dose",
                "Plane 1 against the dose",
                "δ of plane 1 and, where there are anions, the mean occupancy of planes 1 to "
                "3. Circles: frames (or groups of frames) measured by themselves, with standard "
                "errors. Diamonds: mean of all frames up to there, drawn at its mean dose; they "
                "share frames and take no part in the fit. Line and band: straight line through "
                "the circles with its standard error. Square: its value at zero dose.",
                _dose,
                wide=_has(series, "occupancy1"),
            )
        ]
    return []


def _checks(result: Any) -> list[_Plan]:
    plans = _dose_plans(result)
    frames = result.frames
    if frames is not None and len(frames) > 1:
        plans.append(
            _Plan(
                "registration",
                "checks",
                "Registration of the frames",
                "How far each frame's content lies from that of frame 0. Open: not used.",
                _single(plot.plot_registration),
            )
        )
    plans.append(
        _Plan(
            "residual",
            "checks",
            "What the model leaves over",
            "Image minus model over its standard deviation. The film is not modelled. Structure "
            "that repeats with the columns means that the model does not fit.",
            _single(plot.plot_residual),
        )
    )
    return plans


def _has(frame: Any, name: str) -> bool:
    return name in frame.columns and bool(frame[name].notna().any())
