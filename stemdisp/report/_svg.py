"""SVG files that journals can use as they are: column width, and fonts that travel along."""

from __future__ import annotations

import base64
import html
import io
import re
from functools import lru_cache
from typing import Any

# Widths of one and of two columns of a journal; wider drawings than the limit take two.
COLUMN_CM, PAGE_CM, LIMIT_CM = 8.6, 17.8, 16.0
CM_PER_IN = 2.54
_FAMILY = "DejaVu Sans"
# Tables that only text in motion or the system's own rendering needs.
_DROPPED = ("FFTM", "GSUB", "GPOS", "GDEF", "MATH", "kern")


def printed_cm(drawn_in: float) -> float:
    """Return the width in print, in cm, of a figure drawn `drawn_in` inches wide."""
    return COLUMN_CM if drawn_in * CM_PER_IN < LIMIT_CM else PAGE_CM


def finished(svg: bytes, *, width_cm: float) -> bytes:
    """Give an SVG its width in print, and the letters that it uses.

    Text stays text, which can be searched and edited; a program that reads embedded fonts shows
    it the same where DejaVu Sans is not installed.

    Parameters
    ----------
    svg : bytes
        As matplotlib writes it with ``svg.fonttype`` "none".
    width_cm : float
        Wanted width; the height follows.

    Returns
    -------
    bytes
        The same drawing.
    """
    text = svg.decode("utf-8")
    size = re.search(r'<svg [^>]*?width="([\d.]+)pt" height="([\d.]+)pt"', text)
    if size is None:
        raise ValueError("svg has no size in points; pass the SVG that matplotlib writes")
    width, height = float(size[1]), float(size[2])
    new = f'width="{width_cm:g}cm" height="{width_cm * height / width:.4f}cm"'
    text = text.replace(f'width="{size[1]}pt" height="{size[2]}pt"', new, 1)
    return text.replace("</style>", f"{_faces(text)}</style>", 1).encode("utf-8")


def letters(svg: str) -> str:
    """Return every character that the text of an SVG uses, in order, each once."""
    found = "".join(re.findall(r">([^<]+)</(?:text|tspan)>", svg))
    return "".join(sorted(set(html.unescape(found)) | {" "}))


def _faces(svg: str) -> str:
    """Return the font faces that the text of an SVG needs."""
    used = letters(svg)
    faces = [_face("normal", "normal", used)]
    if re.search(r"font-style: (italic|oblique)", svg):
        faces.append(_face("oblique", "normal", used))
    if re.search(r"font-weight: (700|bold)", svg):
        faces.append(_face("normal", "bold", used))
    return "".join(faces)


@lru_cache(maxsize=64)
def _face(style: Any, weight: str, used: str) -> str:
    from fontTools import subset
    from fontTools.ttLib import TTFont
    from matplotlib.font_manager import FontProperties, findfont

    options = subset.Options(
        hinting=False, layout_features=[], notdef_outline=True, drop_tables=list(_DROPPED)
    )
    path = findfont(FontProperties(family=_FAMILY, style=style, weight=weight))
    # No date in the file: the same run gives the same bytes.
    with TTFont(path, lazy=True, recalcTimestamp=False) as font:
        subsetter = subset.Subsetter(options)
        subsetter.populate(text=used)
        subsetter.subset(font)
        font.flavor = "woff"
        buffer = io.BytesIO()
        font.save(buffer)
    code = base64.b64encode(buffer.getvalue()).decode("ascii")
    styles = "italic" if style == "oblique" else style
    return (
        f"@font-face{{font-family:'{_FAMILY}';font-style:{styles};font-weight:{weight};"
        f"src:url(data:font/woff;base64,{code}) format('woff')}}"
    )
