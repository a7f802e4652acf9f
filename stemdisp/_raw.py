"""One signal as a file holds it: values, axes and metadata, nothing that can act."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stemdisp._units import axis_scale_A, is_nonsense, is_reciprocal

MIN_SIZE_PX = 16


@dataclass(frozen=True, eq=False)
class RawSignal:
    """One signal as it stands in a file.

    Attributes
    ----------
    title : str
    data : array-like
        Has shape, dtype and items; its last two axes are y and x.
    axes : tuple of dict
        One for each axis of the data: name, size, scale, offset, units, navigate, as stated.
    metadata : dict
        Plain text, numbers, lists and dictionaries.
    """

    title: str
    data: Any
    axes: tuple[dict[str, Any], ...]
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def n_navigation(self) -> int:
        """How many axes the file itself marks as navigation axes."""
        return sum(bool(axis.get("navigate")) for axis in self.axes)

    @property
    def role(self) -> str:
        """Tell an "image" (or series) from the "segments" of a detector and a DPC "vector"."""
        if self.axis_named("segment") is not None:
            return "segments"
        if self.data.dtype.kind == "c":
            return "vector" if self.title.casefold() == "dpc" else "image"
        k = self.axis_named("component")
        return "vector" if k is not None and self.data.shape[k] == 2 else "image"

    def axis_named(self, name: str) -> int | None:
        """Return which of the axes before y and x has this name, or None."""
        for k, axis in enumerate(self.axes[:-2]):
            if str(axis.get("name") or "").casefold().removesuffix("s") == name:
                return k
        return None

    @property
    def problem(self) -> str | None:
        """Say why a signal is neither an image nor a series nor a set of segments, or None."""
        return self._wrong_values() or self._wrong_shape()

    def _wrong_values(self) -> str | None:
        """Refuse what is no real number (of a DPC vector: two of them)."""
        dtype = self.data.dtype
        if dtype.kind in "biuf" or (dtype.kind == "c" and self.role == "vector"):
            return None
        what = "colour" if dtype.names else {"c": "complex"}.get(dtype.kind, "non-numeric")
        return f"holds {what} values ({dtype}); export real numbers in one channel"

    def _wrong_shape(self) -> str | None:
        """Refuse what has no images, or images of nothing."""
        data = self.data
        marked = self.role != "image" and data.dtype.kind != "c"
        most = 4 if marked else 3
        if data.ndim not in range(3 if marked else 2, most + 1) or self.n_navigation > most - 2:
            return (
                f"has shape {tuple(data.shape)} with {self.n_navigation} navigation axes; "
                "give one image, or one series of images (detector segments as separate images, "
                "or along an axis named 'segment')"
            )
        if 0 in data.shape[:-2]:
            return "holds no frame; give a series of at least one"
        if min(data.shape[-2:]) < MIN_SIZE_PX:
            return (
                f"is {data.shape[-1]} x {data.shape[-2]} pixels; "
                f"at least {MIN_SIZE_PX} x {MIN_SIZE_PX} are needed"
            )
        if any(is_reciprocal(axis.get("units")) for axis in self.axes[-2:]):
            return "has axes in reciprocal units (a diffraction pattern); give an image"
        return None

    @property
    def pixel_size_A(self) -> tuple[float, float] | None:
        """Return the pixel size (x, y) that a file states, in angstrom."""
        y, x = self.axes[-2:]
        sx, sy = (axis_scale_A(axis.get("scale"), axis.get("units")) for axis in (x, y))
        return None if sx is None or sy is None else (sx, sy)

    @property
    def odd_pixel_size(self) -> str:
        """Quote what a file states of the pixel size where that makes no sense; else nothing."""
        stated = [
            f"{axis.get('scale')} {axis.get('units') or 'without a unit'}"
            for axis in self.axes[:-3:-1]
            if is_nonsense(axis.get("scale"), axis.get("units"))
        ]
        return " x ".join(stated)
