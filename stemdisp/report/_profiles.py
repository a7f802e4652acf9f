"""Displacement and occupancy against plane number, with every column as a point."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemdisp import _plot_style as st
from stemdisp._plot_numbers import seen_above

_HEIGHT_PX = 320


def build(result: Any, sources: dict[str, Any]) -> list[tuple[Any, str]]:
    """Build the depth profiles that the run supports; they share their axis of plane numbers.

    Parameters
    ----------
    result : Result
        A finished run.
    sources : dict of str to ColumnDataSource
        The columns of each species, shared with the image.

    Returns
    -------
    list of (figure, str)
        Bokeh figures with their titles; none without an interface.
    """
    from bokeh.models import Range1d

    planes = st.drawn_planes(result)
    if result.interface is None or not len(planes):
        return []
    shared = Range1d(0.3, float(planes["N"].max()) + 0.7)
    displaced, anion = st.displaced_species(result), st.anion_species(result) or "O"
    colors, found = st.species_colors(result), []
    if _has(sources, displaced, "delta") and planes["delta_A"].notna().any():
        color = colors.get(displaced, st.INK)
        along = st.direction_name(result.projection.u_uvw)
        figure = _chart("delta", shared, f"δ along {along} (Å)")
        _reference(figure, result, (-1, 1), seen_above(result, "displacement"), 0.0)
        _zero_band(figure, result)
        _cloud(figure, sources[displaced], "delta", color)
        _fit(figure, result, planes)
        _means(figure, planes, ("delta_A", "delta_err_A", "delta_noise_A"), color)
        found.append((figure, f"Displacement of {displaced} columns, δ(N)"))
    if _has(sources, anion, "occ") and planes["occupancy"].notna().any():
        color = colors.get(anion, st.INK)
        figure = _chart("occ", shared, f"{anion} occupancy (1 = bulk)")
        _reference(figure, result, (-1,), seen_above(result, "vacancy"), 1.0)
        _cloud(figure, sources[anion], "occ", color)
        _means(figure, planes, ("occupancy", "occupancy_err", None), color)
        found.append((figure, f"{anion} occupancy"))
    return found


def _has(sources: dict[str, Any], species: str, name: str) -> bool:
    return species in sources and {name, "spread"} <= set(sources[species].data)


def _chart(name: str, shared: Any, label: str) -> Any:
    from bokeh import models
    from bokeh.plotting import figure

    tools = [models.PanTool(), models.BoxSelectTool(), models.WheelZoomTool(), models.BoxZoomTool()]
    out = figure(
        name=name,
        x_range=shared,
        tools=[*tools, models.ResetTool(), models.SaveTool(filename=f"stemdisp-{name}")],
        toolbar_location="above",
        output_backend="canvas",
        height=_HEIGHT_PX,
        sizing_mode="stretch_width",
        min_width=120,
    )
    # Plain text: names of species may hold what would be taken for mathematics.
    out.xaxis.axis_label = models.PlainText(text="plane number N")
    out.yaxis.axis_label = models.PlainText(text=label)
    for axis in out.axis:
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "13px"
        axis.axis_label_text_color = axis.major_label_text_color = st.INK
    out.xaxis.ticker = models.AdaptiveTicker(mantissas=[1, 2, 5], min_interval=1)
    out.toolbar.logo = None
    return out


def _reference(
    figure: Any, result: Any, signs: tuple[int, ...], limit: float, level: float
) -> None:
    """Draw the bulk level, where bulk begins, and what the noise hides."""
    from bokeh.models import BoxAnnotation, Span

    start = float(result.config.analysis.bulk_from) - 0.5
    figure.add_layout(
        BoxAnnotation(
            left=start, fill_color=st.PALE, fill_alpha=0.5, line_color=None, level="image"
        )
    )
    figure.add_layout(Span(location=level, dimension="width", line_color=st.FAINT))
    for sign in signs if np.isfinite(limit) else ():
        figure.add_layout(Span(location=level + sign * limit, line_color=st.INK, line_dash=[1, 3]))


def _zero_band(figure: Any, result: Any) -> None:
    from bokeh.models import BoxAnnotation

    error = st.number(st.section(result, "bulk_offset_A", "delta_err"))
    if np.isfinite(error):
        figure.add_layout(
            BoxAnnotation(
                bottom=-error, top=error, fill_color=st.SKY, fill_alpha=0.45, line_color=None
            )
        )


def _cloud(figure: Any, source: Any, name: str, color: str) -> None:
    from bokeh.models import BoxSelectTool

    points = figure.scatter(
        "spread",
        name,
        source=source,
        size=5,
        color=color,
        alpha=0.3,
        selection_alpha=1.0,
        selection_line_color=st.INK,
        nonselection_alpha=0.1,
        name="cloud",
    )
    # Plane means are no columns: they neither are chosen nor fade.
    figure.select_one({"type": BoxSelectTool}).renderers = [points]


def _fit(figure: Any, result: Any, planes: Any) -> None:
    if result.decay is None:
        return
    number = np.linspace(1.0, max(float(planes["N"].max()), 2.0), 200)
    curve, error = (np.asarray(part, dtype=np.float32) for part in result.decay.predict(number))
    if not np.isfinite(curve).any():
        return
    number = number.astype(np.float32)
    figure.varea(number, curve - error, curve + error, color=st.BLUE, alpha=0.2)
    figure.line(number, curve, color=st.BLUE, line_width=2)


def _means(figure: Any, planes: Any, names: tuple[str, str, str | None], color: str) -> None:
    """Draw plane means: thin bars are total errors, thick bars those of noise alone."""
    from bokeh.models import ColumnDataSource

    value, total, noise = names
    planes = planes[planes[value].notna()]
    count = planes["n_columns" if value == "delta_A" else "n_anions"]
    data = {
        "N": planes["N"].to_numpy(dtype=np.int16),
        "value": planes[value].to_numpy(dtype=np.float32),
        "total": planes[total].to_numpy(dtype=np.float32),
        "count": count.fillna(0).to_numpy(dtype=np.int32),
    }
    data |= {"low": data["value"] - data["total"], "high": data["value"] + data["total"]}
    if noise is not None:
        data["noise"] = planes[noise].to_numpy(dtype=np.float32)
        data |= {"near": data["value"] - data["noise"], "far": data["value"] + data["noise"]}
    source = ColumnDataSource(data, name=f"means-{figure.name}")
    figure.segment("N", "low", "N", "high", source=source, color=st.INK, line_width=1.3)
    if noise is not None:
        figure.segment("N", "near", "N", "far", source=source, color=st.INK, line_width=4)
    figure.scatter("N", "value", source=source, size=8, fill_color=color, line_color=st.INK)
