"""A description of a data file for people."""

from __future__ import annotations

import os

import numpy as np

from stemdisp._read import FORMATS, RawSignal, only_idpc, read_file


def inspect(path: str | os.PathLike[str]) -> str:
    """Describe a file for a person: its signals, their axes, and what a run must be told.

    Parameters
    ----------
    path : path
        The file.

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
    format_name, found = read_file(name)
    noun = "signal" if len(found) == 1 else "signals"
    lines = [f"{name}: {FORMATS[format_name]}, {len(found)} {noun}"]
    for raw in found:
        lines += _describe(raw)
    suited = [raw for raw in found if raw.problem is None]
    lines.append("A run would need to be told:")
    lines += [f"  {need}" for need in _needs(name, suited)]
    return "\n".join(lines)


def _describe(raw: RawSignal) -> list[str]:
    """Describe one signal of a file."""
    shape = " x ".join(str(n) for n in reversed(raw.data.shape))
    lines = [f"- {raw.title or 'untitled'}: {shape} (x first), {raw.data.dtype}"]
    if raw.data.dtype.kind in "biuf" and raw.data.size:
        finite = raw.data[np.isfinite(raw.data)]
        if finite.size:
            lines[0] += f", values {finite.min():.6g} to {finite.max():.6g}"
        if finite.size < raw.data.size:
            lines.append(f"  {raw.data.size - finite.size} values are not finite numbers")
    labels = ("x", "y", "frame", "outer")
    for label, axis in zip(labels, reversed(raw.axes), strict=False):
        scale, unit = axis.get("scale"), axis.get("units")
        lines.append(
            f"  axis {label}: {axis['size']} px"
            + (f", scale {scale:.6g}" if isinstance(scale, float | int) else "")
            + (f" {unit}" if isinstance(unit, str) and unit else ", no unit")
        )
    problem = raw.problem
    if problem is not None:
        return [*lines, f"  not usable: it {problem}"]
    scales = raw.pixel_size_A
    if scales is None:
        lines.append("  pixel size: not in the file")
    else:
        lines.append(f"  pixel size: {scales[0]:.5g} x {scales[1]:.5g} angstrom")
    dose = raw.metadata.get("stemdisp", {}).get("dose_e_per_A2")
    if dose is not None:
        lines.append(f"  dose: {dose} electrons per square angstrom")
    return lines


def _needs(name: str, suited: list[RawSignal]) -> list[str]:
    """List what the configuration must say about a file."""
    needs = []
    if not suited:
        return ["another file: this one holds no usable image"]
    if len(suited) > 1 and only_idpc(suited) is None:
        titles = ", ".join(repr(raw.title) for raw in suited)
        needs.append(f'[input] path: which signal, as "{name}::NAME", NAME one of {titles}')
    if any(raw.pixel_size_A is None for raw in suited):
        needs.append(
            "[input] pixel_size: a number in angstrom, or leave it to the crystal's lattice"
        )
    if any(raw.data.ndim == 3 for raw in suited):
        needs.append('[input] kind: "dpc-segments" if the images are those of detector segments')
    needs.append("[crystal] structure, zone_axis, displaced and cage: what the crystal is")
    needs.append("[interface] plane, or present = false: where the crystal ends")
    return needs
