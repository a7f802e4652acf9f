"""The image that can be zoomed: layers of columns, arrows, displacement, residual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stemdisp import _plot_colors, tables
from stemdisp import _plot_style as st
from stemdisp._plot_maps import MAX_ARROWS, block_means
from stemdisp._plot_numbers import number
from stemdisp.report import _sources

# Above so many columns their rings would hide the image; they are off until asked for.
MAX_RINGS = 3000
# Residuals beyond so many standard deviations are black or white.
_RESIDUAL_SD = 5.0
_STEPS = 255
# Cosine of the angle of u and v up to which lattice cells are drawn as rectangles.
_SQUARE = 0.05


@dataclass(frozen=True)
class Layer:
    """A layer of the image that a check box turns on and off.

    Attributes
    ----------
    name : str
        Of its renderers and its check box; no text of the user.
    label : str
        For people.
    color : str
        Of its sample in the list, ``""`` for none.
    on : bool
        Whether it is shown at first.
    """

    name: str
    label: str
    color: str = ""
    on: bool = True


def build(result: Any, sources: dict[str, Any]) -> tuple[Any, list[Layer], dict[str, Any]]:
    """Build the figure.

    Parameters
    ----------
    result : Result
        A finished run.
    sources : dict of str to ColumnDataSource
        The columns of each species; other views share them.

    Returns
    -------
    (figure, list of Layer, dict)
        The Bokeh figure, what can be turned on and off, and what the script and the page need
        to know: captions, colour bar, magnifications.
    """
    figure = _canvas(result)
    facts: dict[str, Any] = {}
    facts["caption"] = _image(figure, result)
    layers = [_residual(figure, result), *_map(figure, result, sources, facts)]
    layers += _rings(figure, result, sources)
    layers += _left_out(figure, result)
    if result.interface is not None:
        layers.append(_interface(figure, result))
    layers += _arrows(figure, result, facts)
    _mark(figure, result, facts)
    _scale_bar(figure)
    return figure, layers, facts


def _canvas(result: Any) -> Any:
    from bokeh import models
    from bokeh.plotting import figure

    left, right, bottom, top = (float(edge) for edge in st.extent_nm(result))
    wheel = models.WheelZoomTool()
    tools = [models.PanTool(), wheel, models.BoxZoomTool(match_aspect=True), models.ResetTool()]
    out = figure(
        name="viewer",
        x_range=models.Range1d(left, right),
        y_range=models.Range1d(bottom, top),
        tools=[*tools, models.SaveTool(filename="stemdisp-image")],
        active_scroll=wheel,
        toolbar_location="above",
        output_backend="canvas",
        frame_width=600,
        frame_height=max(int(600 * (bottom - top) / (right - left)), 100),
        min_border=0,
        outline_line_color=None,
        background_fill_color="#808080",
    )
    out.axis.visible = False
    out.grid.visible = False
    out.toolbar.logo = None
    return out


def _picture(figure: Any, result: Any, uri: str, by: int, **style: Any) -> None:
    """Lay a picture over the field: pixel centres at integer multiples of the pixel size."""
    from bokeh.models import ColumnDataSource

    sx, sy = (float(size) for size in st.nm_per_px(result))
    rows, columns = (-(-n // by) * by for n in result.image.shape)
    where = {"x": [-0.5 * sx], "y": [-0.5 * sy], "w": [columns * sx], "h": [rows * sy]}
    source = ColumnDataSource({"url": [uri], **where})
    figure.image_url("url", "x", "y", "w", "h", anchor="top_left", source=source, **style)


def _image(figure: Any, result: Any) -> str:
    image = np.asarray(result.image)
    limits = _sources.grey_limits(image)
    uri, by, how = _sources.display_copy(image, limits=limits)
    _picture(figure, result, uri, by, name="image")
    return (
        f"Display copy of the mean image: {how}; black {number(limits[0], 4)}, "
        f"white {number(limits[1], 4)} signal units (percentiles 0.1 and 99.9)."
    )


def _residual(figure: Any, result: Any) -> Layer:
    data = np.asarray(result.residual, dtype=float)
    finite = data[np.isfinite(data) & (data != 0.0)]
    middle = float(np.median(finite)) if finite.size else 0.0
    sd = 1.4826 * float(np.median(np.abs(finite - middle))) if finite.size else 1.0
    reach = _RESIDUAL_SD * (sd or 1.0)
    limits = (middle - reach, middle + reach)
    side_px = _sources.MAX_SIDE_PX // 2
    uri, by, _ = _sources.display_copy(data, limits=limits, max_side_px=side_px, share=0.2)
    _picture(figure, result, uri, by, name="residual", visible=False)
    label = f"image minus model (black and white: ∓{_RESIDUAL_SD:g} s.d.)"
    return Layer("residual", label, on=False)


def _map(figure: Any, result: Any, sources: dict[str, Any], facts: dict[str, Any]) -> list[Layer]:
    from bokeh.models import LinearColorMapper

    species = st.displaced_species(result)
    source = sources.get(species)
    if source is None or "delta" not in source.data:
        return []
    used = st.used(result, species)["delta_A"].dropna().abs()
    limit = max(float(np.percentile(used, 99)), 0.01) if len(used) else 0.01
    palette = _plot_colors.hex_colors(_plot_colors.diverging(np.linspace(-1, 1, _STEPS)))
    mapper = LinearColorMapper(palette=palette, low=-limit, high=limit, nan_color="#00000000")
    style = {
        "source": source,
        "fill_color": {"field": "delta", "transform": mapper},
        "fill_alpha": 0.85,
        "line_color": None,
        "name": "map",
        "visible": False,
    }
    u, v = st.lattice_nm(result)
    size = np.linalg.norm(u), np.linalg.norm(v)
    if abs(u @ v) < _SQUARE * size[0] * size[1]:
        # Turned on the screen, where y is up.
        angle = float(np.arctan2(-u[1], u[0]))
        figure.rect("x", "y", width=float(size[0]), height=float(size[1]), angle=angle, **style)
    else:
        figure.circle("x", "y", radius=float(0.46 * min(size)), **style)
    name = st.direction_name(result.projection.u_uvw)
    factor, unit = st.displacement_unit(result)
    text = f"{limit * factor:.2g} {unit}"
    facts["bar"] = {
        "colors": palette[:: _STEPS // 10],
        "low": f"\N{MINUS SIGN}{text}",
        "high": f"+{text}",
        "title": f"δ along {name}",
    }
    return [Layer("map", f"{species}: δ as colour", on=False)]


def _rings(figure: Any, result: Any, sources: dict[str, Any]) -> list[Layer]:
    colors, radius = st.species_colors(result), _sources.radius_nm(result)
    shown = sum(len(source.data["x"]) for source in sources.values()) <= MAX_RINGS
    layers = []
    for k, (species, source) in enumerate(sources.items()):
        figure.circle(
            "x",
            "y",
            radius=radius,
            source=source,
            fill_color=colors[species],
            fill_alpha=0.12,
            line_color=colors[species],
            line_width=1.4,
            selection_fill_alpha=0.6,
            selection_line_color="#ffff00",
            selection_line_width=2.5,
            nonselection_fill_alpha=0.05,
            nonselection_line_alpha=0.4,
            name=f"rings-{k}",
            visible=shown,
        )
        label = f"{species} columns ({len(source.data['x'])})"
        layers.append(Layer(f"rings-{k}", label, colors[species], shown))
    return layers


def _left_out(figure: Any, result: Any) -> list[Layer]:
    """Cross out the columns that no average uses."""
    frame = st.table(result, "columns")
    frame = frame[~tables.usable(frame) & frame["x_px"].notna()]
    if not len(frame):
        return []
    x, y = (part.astype(np.float32) for part in st.columns_nm(result, frame).T)
    figure.scatter(
        x, y, marker="x", size=7, color="#ffff00", line_width=1.3, name="left-out", visible=False
    )
    return [Layer("left-out", f"columns left out of averages ({len(frame)})", "#ffff00", on=False)]


def _interface(figure: Any, result: Any) -> Layer:
    from bokeh.models import ColumnDataSource

    line = result.interface.outline(result.lattice, result.image.shape) * st.nm_per_px(result)
    x, y = line.astype(np.float32).T
    figure.line(x, y, color="#000000", line_alpha=0.5, line_width=4, name="interface")
    figure.line(x, y, color="#ffffff", line_width=2, line_dash=[8, 5], name="interface")
    # The script fills these in, for the part of the image that is seen.
    figure.text(
        "x",
        "y",
        "text",
        source=ColumnDataSource({"x": [], "y": [], "text": []}, name="number-places"),
        text_align="right",
        text_baseline="middle",
        text_font_size="12px",
        text_color="#ffffff",
        background_fill_color="#000000",
        background_fill_alpha=0.6,
        padding=2,
        name="interface",
    )
    return Layer("interface", "interface and plane numbers N", "#ffffff")


def _arrows(figure: Any, result: Any, facts: dict[str, Any]) -> list[Layer]:
    from bokeh.models import ColumnDataSource

    species = st.displaced_species(result)
    frame = st.used(result, species)
    frame = frame[frame["delta_A"].notna()]
    if not len(frame):
        return []
    units = np.stack([w / np.linalg.norm(w) for w in st.lattice_nm(result)])
    facts["arrows"] = {
        # From (delta, delta_perp) in angstrom to nm in image directions, row vector from the left.
        "matrix": (np.linalg.inv(units).T / 10.0).tolist(),
        "magnification": st.arrow_scale(result, frame, 1.1)[1],
        "most": MAX_ARROWS,
    }
    blocks, side = block_means(frame)
    if side > 1 and len(blocks):
        data = _sources.block_data(result, blocks)
        # A source that no glyph draws stays out of the document; this one draws nothing.
        holder = ColumnDataSource(data, name="block-means")
        figure.scatter("x", "y", source=holder, size=0, alpha=0.0, name="blocks")
        scale = st.arrow_scale(result, blocks, 1.1 * side)[1]
        facts["arrows"]["blocks"] = {"side": side, "magnification": scale}
    empty: dict[str, list[float]] = {"x0": [], "y0": [], "x1": [], "y1": []}
    source = ColumnDataSource(empty, name="arrow-strokes")
    for color, width in (("#000000", 3.8), ("#ffffff", 1.7)):
        figure.segment(
            "x0", "y0", "x1", "y1", source=source, color=color, line_width=width, name="arrows"
        )
    return [Layer("arrows", f"displacement of {species}", "#ffffff")]


def _mark(figure: Any, result: Any, facts: dict[str, Any]) -> None:
    """Add the ring around the column under the pointer, which the script moves."""
    from bokeh.models import ColumnDataSource

    radius = _sources.radius_nm(result)
    facts["reach"] = 2.2 * radius
    source = ColumnDataSource({"x": [], "y": []}, name="marked")
    for color, width in (("#000000", 5.0), ("#ffff00", 2.5)):
        figure.circle(
            "x",
            "y",
            radius=1.25 * radius,
            source=source,
            fill_color=None,
            line_color=color,
            line_width=width,
            name="mark",
        )


def _scale_bar(figure: Any) -> None:
    from bokeh.models import ScaleBar

    bar = ScaleBar(
        range=figure.x_range,
        unit="nm",
        orientation="horizontal",
        location="bottom_left",
        length_sizing="adaptive",
        bar_length=0.2,
        bar_line_color="#ffffff",
        bar_line_width=4,
        label_text_color="#ffffff",
        label_location="above",
        background_fill_color="#000000",
        background_fill_alpha=0.6,
        border_line_color=None,
    )
    figure.add_layout(bar)
