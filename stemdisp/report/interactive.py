"""Views of a run that can be zoomed and asked, for the page: data, scripts, and a policy.

Everything is inlined; the page asks nobody. The scripts are BokehJS and ``viewer.js``; the policy
of the page names their checksums, so that a browser runs nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stemdisp import _plot_style as st
from stemdisp import tables
from stemdisp.report import _profiles, _sources, _viewer

_SCRIPT = Path(__file__).parent / "viewer.js"


@dataclass(frozen=True)
class View:
    """What the page needs to show interactive views.

    Attributes
    ----------
    scripts : tuple of str
        JavaScript, in the order in which it runs.
    data : str
        JSON that can stand in a script element of type ``application/json``.
    layers : list of Layer
        Check boxes of the image.
    caption : str
        What the image is a copy of.
    bar : dict or None
        Colours and ends of the colour bar.
    profiles : list of (str, str)
        Names and titles of the depth profiles.
    """

    scripts: tuple[str, ...]
    data: str
    layers: list[_viewer.Layer]
    caption: str
    bar: dict[str, Any] | None
    profiles: list[tuple[str, str]]

    @property
    def policy(self) -> str:
        """The source list for ``script-src``: checksums of the scripts."""
        sums = (hashlib.sha256(text.encode("utf-8")).digest() for text in self.scripts)
        return " ".join(f"'sha256-{base64.b64encode(s).decode('ascii')}'" for s in sums)


def build(result: Any) -> View:
    """Build the interactive views of a run.

    Parameters
    ----------
    result : Result
        A finished run.

    Returns
    -------
    View
        The same for the same run.
    """
    from bokeh.document import Document
    from bokeh.models import ColumnDataSource

    colors = st.species_colors(result)
    sources = {
        species: ColumnDataSource(_sources.column_data(result, species), name=f"columns-{k}")
        for k, species in enumerate(colors)
    }
    figure, layers, facts = _viewer.build(result, sources)
    profiles = _profiles.build(result, sources)
    document = Document()
    for root in (figure, *(chart for chart, _ in profiles)):
        document.add_root(root)
    content, numbers = _renumbered(document.to_json(deferred=False))
    names = {root.name: numbers[root.id] for root in document.roots}
    displaced = st.displaced_species(result)
    given = {
        "document": content,
        "roots": {number: f"view-{name}" for name, number in names.items()},
        "species": list(colors),
        "displaced": list(colors).index(displaced) if displaced in colors else -1,
        "anion": _anion(result, list(colors)),
        "noPlane": _sources.NO_PLANE,
        "unusable": int(tables.UNUSABLE),
        "quality": [[int(spec.bit), spec.short] for spec in tables.QUALITY_BITS],
        "pixel": [float(size) for size in st.nm_per_px(result)],
        "normal": None if result.interface is None else list(map(float, result.interface.normal)),
        "reach": facts["reach"],
        "arrows": facts.get("arrows"),
    }
    return View(
        scripts=(_library(), _SCRIPT.read_text(encoding="utf-8")),
        data=_in_script(given),
        layers=layers,
        caption=facts["caption"],
        bar=facts.get("bar"),
        profiles=[(chart.name, title) for chart, title in profiles],
    )


def _anion(result: Any, names: list[str]) -> int:
    anion = st.anion_species(result)
    return names.index(anion) if anion in names else -1


def _library() -> str:
    """Return BokehJS without the parts that these views do not use."""
    from bokeh.resources import Resources

    return str(Resources(mode="inline", minified=True, components=["bokeh"]).js_raw[0])


def _in_script(value: Any) -> str:
    """Write JSON in which no text can end the script element that holds it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _renumbered(value: Any) -> tuple[Any, dict[str, str]]:
    """Count the models of a document from 1; their own numbers go on through a process."""
    numbers: dict[str, str] = {}

    def walk(entry: Any) -> Any:
        if isinstance(entry, dict):
            out = {key: walk(part) for key, part in entry.items()}
            given = entry.get("id")
            if isinstance(given, str) and re.fullmatch(r"p\d+", given):
                out["id"] = numbers.setdefault(given, f"m{len(numbers) + 1}")
            return out
        return [walk(part) for part in entry] if isinstance(entry, list | tuple) else entry

    return walk(value), numbers
