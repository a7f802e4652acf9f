"""Which signals of a file a run takes: an image, the segments of a detector, or a DPC vector."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stemdisp._raw import RawSignal
from stemdisp.errors import DataError

MIN_SEGMENTS = 3  # fewer have no direction
MIN_SET = 4  # of names with letters: two or three images A, B, C may be anything

_LETTERS = "ABCDEFGHIJKLMNOP"
_LETTER = re.compile(r"(?P<stem>.*?)(?P<letter>[A-Pa-p])")
_COMPONENT = re.compile(r"dpc[ _-]?(?P<component>[xy])", re.IGNORECASE)
_HOLDER = '"FILE::NAME"'


@dataclass(frozen=True, eq=False)
class Choice:
    """The signals of one file that belong together, and what they are.

    Attributes
    ----------
    role : {"image", "segments", "vector"}
        One image or series (several signals: one after the other); the segments of a detector,
        one signal each, or one signal with an axis for them; a DPC vector, one complex signal, or
        one with an axis for x and y, or two signals, x first.
    signals : tuple of RawSignal
        In that order.
    """

    role: str
    signals: tuple[RawSignal, ...]


def choose(found: Sequence[RawSignal], *, wanted: str = "", kind: str = "auto") -> Choice:
    """Choose the signals that a run takes.

    Parameters
    ----------
    found : sequence of RawSignal
        All signals of one file.
    wanted : str
        Their title, or how it starts; empty for any.
    kind : {"auto", "image", "stack", "dpc-segments"}
        What the user says they are.

    Returns
    -------
    Choice

    Raises
    ------
    DataError
        If nothing fits, or more than one choice does; the text does not name the file.
    """
    named = _named(found, wanted)
    if kind == "dpc-segments":
        chosen = _segments(named) or _vector(named)
        if chosen is None:
            chosen = _unnamed_segments(found, named, wanted)
    elif kind == "auto":
        chosen = only_idpc(named) or _segments(named) or _vector(named)
        if chosen is None:
            chosen = _images(found, named, wanted)
    else:
        chosen = only_idpc(named) or _images(found, _no_segments(named, wanted, kind), wanted)
    if len({raw.data.shape for raw in chosen.signals}) > 1:
        raise DataError(
            f"{_titles(chosen.signals)} have different sizes or numbers of frames; name one exactly"
        )
    return chosen


def only_idpc(found: Sequence[RawSignal]) -> Choice | None:
    """Return the one iDPC image among several detectors' images."""
    idpc = [raw for raw in _usable(found) if raw.title.casefold() == "idpc"]
    return Choice("image", (idpc[0],)) if len(idpc) == 1 else None


def groups(found: Sequence[RawSignal]) -> Iterator[Choice]:
    """Yield every set of segments and every DPC vector of a file."""
    yield from _segment_sets(found)
    yield from _vectors(found)


def _usable(found: Sequence[RawSignal]) -> list[RawSignal]:
    """Return the images and series."""
    return [raw for raw in found if raw.problem is None and raw.role == "image"]


def _named(found: Sequence[RawSignal], wanted: str) -> list[RawSignal]:
    """Return the signals that a name picks: that of this title, or else all that start with it."""
    exact = [raw for raw in found if wanted and raw.title == wanted]
    return exact or [raw for raw in found if raw.title.startswith(wanted)]


def lettered(titles: Sequence[str]) -> bool:
    """Tell whether titles are a full set: the same words, and then A, B, C, D ..."""
    matches = [_LETTER.fullmatch(title) for title in titles]
    letters = sorted(match["letter"].upper() for match in matches if match)
    return (
        len(letters) == len(titles) >= MIN_SET
        and len({match["stem"] for match in matches if match}) == 1
        and _LETTERS.startswith("".join(letters))
    )


def _by_stem(found: Sequence[RawSignal]) -> dict[str, dict[str, list[RawSignal]]]:
    """Sort images whose titles end in a letter by the rest of the title, then by the letter."""
    stems: dict[str, dict[str, list[RawSignal]]] = {}
    for raw in _usable(found):
        match = _LETTER.fullmatch(raw.title)
        if match:
            letters = stems.setdefault(match["stem"], {})
            letters.setdefault(match["letter"].upper(), []).append(raw)
    return stems


def _segment_sets(found: Sequence[RawSignal]) -> list[Choice]:
    """Return every full set: titles that end in A, B, C, D ... after the same words."""
    sets = [
        Choice("segments", (raw,))
        for raw in found
        if raw.role == "segments" and raw.problem is None
    ]
    for letters in _by_stem(found).values():
        ordered = [raw for letter in sorted(letters) for raw in letters[letter]]
        if lettered([raw.title for raw in ordered]):
            sets.append(Choice("segments", tuple(ordered)))
    return sets


def _vectors(found: Sequence[RawSignal]) -> list[Choice]:
    """Return every DPC vector: complex, with an axis for x and y, or as two images."""
    vectors = [
        Choice("vector", (raw,)) for raw in found if raw.role == "vector" and raw.problem is None
    ]
    pair: dict[str, list[RawSignal]] = {"x": [], "y": []}
    for raw in _usable(found):
        match = _COMPONENT.fullmatch(raw.title)
        if match:
            pair[match["component"].lower()].append(raw)
    if len(pair["x"]) == len(pair["y"]) == 1:
        vectors.append(Choice("vector", (pair["x"][0], pair["y"][0])))
    return vectors


def _segments(named: Sequence[RawSignal]) -> Choice | None:
    """Return the one set of segments."""
    return _single(_segment_sets(named), "sets of detector segments")


def _vector(named: Sequence[RawSignal]) -> Choice | None:
    """Return the one DPC vector."""
    return _single(_vectors(named), "DPC vectors")


def _single(choices: list[Choice], what: str) -> Choice | None:
    """Return the only choice, or None; refuse to guess among several."""
    if len(choices) > 1:
        starts = ", ".join(repr(choice.signals[0].title) for choice in choices)
        raise DataError(
            f"holds {len(choices)} {what}, which start with {starts}; "
            f"name one by the words they share, as {_HOLDER}"
        )
    return choices[0] if choices else None


def _images(found: Sequence[RawSignal], named: Sequence[RawSignal], wanted: str) -> Choice:
    """Return the image, the series, or all images that a name picks."""
    suited = _usable(named)
    if len(suited) > 1 and not wanted:
        raise DataError(f"holds {_titles(suited)}; name one as {_HOLDER}")
    if not suited:
        raise DataError(_why_none(found, wanted))
    return Choice("image", tuple(suited))


def _no_segments(named: Sequence[RawSignal], wanted: str, kind: str) -> list[RawSignal]:
    """Leave out what belongs to a set of segments or to a vector, unless the user named it."""
    for raw in named:
        if len(named) == 1 and raw.problem is None and raw.role != "image":
            what = "detector segments" if raw.role == "segments" else "a DPC vector"
            raise DataError(
                f"holds {what}, no image; set kind to 'auto' or 'dpc-segments', not {kind!r}"
            )
    if wanted:
        return list(named)
    members = [raw for group in groups(named) for raw in group.signals]
    rest = [raw for raw in named if not any(raw is member for member in members)]
    return rest if _usable(rest) else list(named)


def _unnamed_segments(
    found: Sequence[RawSignal], named: Sequence[RawSignal], wanted: str
) -> Choice:
    """Return images that the user alone says are segments: those of a series, or those named."""
    suited = _usable(named)
    if len(suited) == 1:
        return Choice("image", (suited[0],))
    if wanted and len(suited) >= MIN_SEGMENTS:
        single = [raw for raw in suited if raw.data.ndim == 2]
        if len(single) == len(suited):
            return Choice("segments", tuple(suited))
    if not suited:
        raise DataError(_why_none(found, wanted))
    raise DataError(f"holds no set of detector segments and no DPC vector: {_what_misses(suited)}")


def _what_misses(suited: list[RawSignal]) -> str:
    """Say which title is missing from a set, or how titles have to be."""
    for stem, letters in _by_stem(suited).items():
        expected = _LETTERS[: max(MIN_SET, len(letters))]
        absent = [letter for letter in expected if letter not in letters]
        if len(letters) >= MIN_SEGMENTS and absent:
            return f"there is no {stem + absent[0]!r} among {_titles(suited)}; export it too"
        twice = [letter for letter, same in letters.items() if len(same) > 1]
        if len(letters) >= MIN_SEGMENTS and twice:
            return f"there is more than one {stem + twice[0]!r}; export one scan to a file"
    return (
        f"no titles that end in A, B, C, D among {_titles(suited)}; "
        f"name the signal of each segment as {_HOLDER}"
    )


def _why_none(found: Sequence[RawSignal], wanted: str) -> str:
    """Explain why a file gave no image."""
    titles = _titles(found)
    if wanted:
        return f"holds no usable image {wanted!r}; it has {titles}"
    if len(found) == 1:
        return f"{found[0].problem}"
    return f"holds no usable image among {titles}" if found else "holds no signal; check the file"


def _titles(signals: Sequence[RawSignal]) -> str:
    """Return the titles as a list in words."""
    return ", ".join(repr(raw.title) for raw in signals)
