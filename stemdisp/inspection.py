"""A description of a data file for people."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from stemdisp._choose import Choice, choose, groups
from stemdisp._formats import FORMATS, LARGE_BYTES
from stemdisp._gate import read_file
from stemdisp._printable import one_line
from stemdisp._raw import RawSignal
from stemdisp.errors import DataError


def inspect(path: str | os.PathLike[str]) -> str:
    """Describe a file for a person: its signals, what a run takes, and what it must be told.

    Parameters
    ----------
    path : path
        The file. Of more than 200 MB of values only the first frames are read.

    Returns
    -------
    str
        Several lines of text.

    Raises
    ------
    DataError
        If the file cannot be read.
    """
    name = os.fspath(path)
    content = read_file(name, lazy=None)
    found = content.signals
    noun = "signal" if len(found) == 1 else "signals"
    lines = [f"{name}: {FORMATS[content.format]}, {len(found)} {noun}"]
    if content.pieces_missing:
        lines.append(
            f"  incomplete: {content.pieces_missing} of the {content.pieces} pieces of its images "
            "were never written; they read as zeros"
        )
    for raw in found:
        lines += _describe(raw)
    several = [group for group in groups(found) if len(group.signals) > 1]
    if several:
        lines.append("Together:")
        lines += [f"  {_titles(group.signals)}: {_what(group)}" for group in several]
    choice, problem = _choice(found)
    lines.append('A run with kind = "auto" would take:')
    if choice is None:
        lines.append(f"  nothing by itself: {problem}")
    else:
        lines.append(f"  {_titles(choice.signals)}: {_what(choice)}")
    lines.append("A run would need to be told:")
    lines += [f"  {need}" for need in _needs(name, found, choice)]
    return "\n".join(lines)


def _choice(found: Sequence[RawSignal]) -> tuple[Choice | None, str]:
    """Return what a run takes by itself, or why it takes nothing."""
    try:
        return choose(found), ""
    except DataError as err:
        return None, str(err)


def _describe(raw: RawSignal) -> list[str]:
    """Describe one signal of a file."""
    shape = " x ".join(str(n) for n in reversed(raw.data.shape))
    lines = [
        f"- {raw.title or 'untitled'}: {shape} (x first), {raw.data.dtype}, "
        f"{_size(raw.data.nbytes)}{_value_range(raw.data)}"
    ]
    problem = raw.problem
    if problem is not None:
        return [*lines, f"  axes: {_axes(raw)}", f"  not usable: it {problem}"]
    lines.append(f"  is: {_what(Choice(raw.role, (raw,)))}")
    scales = raw.pixel_size_A
    if scales is None:
        lines.append(f"  pixel size: not in the file (axes: {_axes(raw)})")
    else:
        height, width = raw.data.shape[-2:]
        lines.append(
            f"  pixel size: {scales[0]:.5g} x {scales[1]:.5g} angstrom, field of view: "
            f"{width * scales[0] / 10:.4g} x {height * scales[1] / 10:.4g} nm (axes: {_axes(raw)})"
        )
    dose = raw.metadata.get("stemdisp", {}).get("dose_e_per_A2")
    if dose is not None:
        lines.append(f"  dose: {_dose(dose)} electrons per square angstrom")
    return lines


def _what(choice: Choice) -> str:
    """Say what signals are: an image, a series, segments, a DPC vector."""
    first = choice.signals[0]
    if choice.role == "image":
        shape = first.data.shape
        n = len(choice.signals) * (shape[0] if len(shape) == 3 else 1)
        text = "one image" if n == 1 else f"series of {n} frames"
        return f"iDPC, {text}" if first.title.casefold() == "idpc" else text
    axis = {"segments": "segment", "vector": "component"}[choice.role]
    marked = first.axis_named(axis)
    leading = [n for k, n in enumerate(first.data.shape[:-2]) if k != marked]
    frames = f", series of {leading[0]} frames" if leading and leading[0] > 1 else ""
    if choice.role == "vector":
        return f"DPC vector{frames}"
    n = first.data.shape[marked] if marked is not None else len(choice.signals)
    return f"the {n} segments of a detector{frames}"


def _value_range(data: Any) -> str:
    """Give the least and greatest value; of large data, of the first frame only."""
    if data.dtype.kind not in "biuf" or not data.size:
        return ""
    note = ""
    if data.nbytes > LARGE_BYTES:
        first = data[(0,) * (data.ndim - 2)]
        if first.nbytes > LARGE_BYTES:
            return ", values not looked at"
        data, note = first, " (first frame only)"
    values = np.asarray(data)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return f", no finite values{note}"
    text = f", values {finite.min():.6g} to {finite.max():.6g}{note}"
    missing = values.size - finite.size
    return text + (f", {missing} values are not finite numbers" if missing else "")


def _axes(raw: RawSignal) -> str:
    """Give scale and unit of every axis as the file states them, x first."""
    labels = ["x", "y"]
    labels += [str(axis.get("name") or "frame").lower() for axis in reversed(raw.axes[:-2])]
    texts = []
    for label, axis in zip(labels, reversed(raw.axes), strict=False):
        scale, unit = axis.get("scale"), axis.get("units")
        number = f" {scale:.6g}" if isinstance(scale, float | int) else ""
        texts.append(f"{label}{number} {unit if isinstance(unit, str) and unit else 'no unit'}")
    return ", ".join(texts)


def _size(n_bytes: float) -> str:
    """Write a size in memory."""
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} GB"


def _dose(dose: Any) -> str:
    """Write one dose, or the range of many; what is no number as it stands."""
    values = dose if isinstance(dose, list) else [dose]
    if not values or not all(isinstance(value, int | float) for value in values):
        return one_line(f"{dose}")
    least, most = min(values), max(values)
    text = f"{least:g}" if least == most else f"{least:g} to {most:g}"
    return f"{text} in each of {len(values)} frames" if len(values) > 1 else text


def _titles(signals: Sequence[RawSignal]) -> str:
    return ", ".join(raw.title or "untitled" for raw in signals)


def _needs(name: str, found: Sequence[RawSignal], choice: Choice | None) -> list[str]:
    """List what the configuration must say about a file."""
    usable = [raw for raw in found if raw.problem is None]
    if not usable:
        return ["another file: this one holds no usable image"]
    needs = []
    taken = choice.signals if choice else usable
    if choice is None:
        titles = ", ".join(repr(raw.title) for raw in usable)
        needs.append(f'[input] path: which signal, as "{name}::NAME", NAME one of {titles}')
    elif choice.role == "image" and any(g.signals[0] is not taken[0] for g in groups(found)):
        needs.append('[input] kind: "dpc-segments" to take the segments or the DPC vector instead')
    elif choice.role == "image" and any(raw.data.ndim == 3 for raw in taken):
        needs.append('[input] kind: "dpc-segments" if the images are those of detector segments')
    if any(raw.pixel_size_A is None for raw in taken):
        needs.append(
            "[input] pixel_size: a number in angstrom, or leave it to the crystal's lattice"
        )
    needs.append("[crystal] structure, zone_axis, displaced and cage: what the crystal is")
    needs.append("[interface] plane, or present = false: where the crystal ends")
    return needs
