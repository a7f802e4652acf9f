"""The columns that a run expects + corrections by hand -> the columns that it fits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from stemdisp._provenance import sha256_of
from stemdisp._sites import expected_sites
from stemdisp.corrections import Correction, Corrections
from stemdisp.crystal import Projection
from stemdisp.errors import DataError
from stemdisp.interface import Interface
from stemdisp.lattice import Lattice
from stemdisp.tables import Quality

# Of the distance between neighbouring columns: how near a position must be to mean a column, and
# how near two fits may start. Displaced columns keep within the first.
WITHIN, APART = 0.5, 0.25
MEASURED = (
    *("x_px", "y_px", "x_A", "y_A", "x_err_A", "y_err_A", "intensity", "intensity_err"),
    *("sigma_A", "significance", "chi2"),
)


@dataclass(frozen=True, eq=False)
class Expected:
    """Columns after corrections.

    Attributes
    ----------
    columns : DataFrame
        As of `find_columns`, where each fit starts: first those that were there, then those that
        were added, then those that were removed.
    home_px : ndarray, shape (n, 2)
        Where a later correction finds each of them: its site, or where it was added.
    """

    columns: pd.DataFrame
    home_px: np.ndarray

    def has(self, bit: Quality) -> np.ndarray:
        """Tell which columns carry a bit."""
        return self.columns["quality"].to_numpy(dtype=np.int64) & int(bit) > 0

    @property
    def removed(self) -> np.ndarray:
        """Which columns were removed."""
        return self.has(Quality.REMOVED)


def correct_columns(
    columns: pd.DataFrame,
    corrections: Corrections,
    *,
    lattice: Lattice,
    projection: Projection,
    interface: Interface | None,
    shape: tuple[int, int],
) -> Expected:
    """Apply corrections, one after the other, to the columns that are expected.

    A position means the nearest column, if its site is nearer than half the distance between
    neighbouring columns. Sites are those of the lattice as first found, so what is meant does not
    depend on any fit.

    Parameters
    ----------
    columns : DataFrame
        From `find_columns`.
    corrections : Corrections
        What to do.
    lattice, projection, interface
        The crystal that `columns` was made from.
    shape : (int, int)
        Rows and columns of the image.

    Returns
    -------
    Expected

    Raises
    ------
    DataError
        A correction means no column, or one that is there already, lies outside the image, or
        names a species that the crystal does not have. It is named.
    """
    book = _Book.begin(columns, lattice, projection, interface, shape)
    for number, step in enumerate(corrections.steps, start=1):
        if step.action == "interface":
            continue
        try:
            book.apply(step)
        except DataError as err:
            raise DataError(f"correction {number}, {step}: {err}") from err
    return book.close()


def check_data(corrections: Corrections, paths: Iterable[str]) -> None:
    """Raise a DataError if corrections were made on other data than these files."""
    image, names = corrections.image, list(paths)
    if image is None or not image.sha256 or not names or sha256_of(names) == image.sha256:
        return
    what = f" ({image.input})" if image.input else ""
    raise DataError(
        f"the corrections were made on other data{what} than {names[0]}; make new ones with "
        "stemdisp.edit, or take sha256 out of their [image] to use them all the same"
    )


def image_notes(corrections: Corrections, shape: tuple[int, int]) -> list[dict[str, str]]:
    """Warn if corrections were made on an aligned image of another size."""
    made = corrections.image.size_px if corrections.image is not None else None
    height, width = shape
    if made is None or made == (width, height):
        return []
    return [
        {
            "code": "corrections-other-image",
            "message": f"the corrections were made on an aligned image of {made[0]} x {made[1]} "
            f"px, this one has {width} x {height} px: look whether they still mean the columns "
            "that they were made for",
        }
    ]


def spacing_px(lattice: Lattice, projection: Projection) -> float:
    """Distance of neighbouring columns of the ideal crystal, in px."""
    cell = [(m, n) for m in (-1, 0, 1) for n in (-1, 0, 1)]
    sites = np.array([(s.u, s.v) for s in projection.sites])
    steps = (sites[:, None, None] - sites[None, :, None] + np.array(cell)).reshape(-1, 2)
    length = np.hypot(*(steps @ lattice.cell_px).T)
    return float(length[length > 1e-6 * length.max()].min())


def blanked(columns: pd.DataFrame) -> pd.DataFrame:
    """Empty the values of columns that were removed."""
    gone = columns["quality"].to_numpy(dtype=np.int64) & int(Quality.REMOVED) > 0
    if not gone.any():
        return columns
    return columns.assign(**{name: columns[name].where(~gone) for name in MEASURED})


@dataclass
class _Book:
    """The table on which corrections are made; `home` is where each column is looked for."""

    table: pd.DataFrame
    home: np.ndarray
    crystal: tuple[Lattice, Projection, Interface | None]
    shape: tuple[int, int]
    spacing: float

    @classmethod
    def begin(
        cls,
        columns: pd.DataFrame,
        lattice: Lattice,
        projection: Projection,
        interface: Interface | None,
        shape: tuple[int, int],
    ) -> _Book:
        home = columns[["x_px", "y_px"]].to_numpy(dtype=float)
        crystal = lattice, projection, interface
        table = columns.reset_index(drop=True).copy()
        return cls(table, home, crystal, shape, spacing_px(lattice, projection))

    def apply(self, step: Correction) -> None:
        """Make one correction."""
        at = np.array(step.at_px)
        self._inside(at)
        if step.species and step.species not in self.crystal[1].species:
            raise DataError(
                f"the crystal has no column called {step.species}; "
                f"it has {', '.join(self.crystal[1].species)}"
            )
        if step.action == "add":
            self._add(at, step.species)
            return
        row = self._find(at)
        if step.action == "remove":
            self._mark(row, Quality.REMOVED)
        elif step.action == "relabel":
            self.table.loc[row, "species"] = step.species
            self._mark(row, Quality.CORRECTED)
        else:
            to = np.array(step.to_px)
            self._inside(to)
            self._start(row, to)

    def close(self) -> Expected:
        """Put what was removed last, so that it stands next to what is fitted but not measured."""
        last = self._gone()
        order = np.concatenate([np.flatnonzero(~last), np.flatnonzero(last)])
        return Expected(self.table.iloc[order].reset_index(drop=True), self.home[order])

    def _gone(self) -> np.ndarray:
        return self.table["quality"].to_numpy(dtype=np.int64) & int(Quality.REMOVED) > 0

    def _mark(self, row: int, bit: Quality) -> None:
        self.table.loc[row, "quality"] = self._bits(row) | int(bit)

    def _bits(self, row: int) -> int:
        return int(self.table["quality"].to_numpy(dtype=np.int64)[row])

    def _inside(self, at: np.ndarray) -> None:
        height, width = self.shape
        if not (np.all(at >= -0.5) and at[0] <= width - 0.5 and at[1] <= height - 0.5):
            raise DataError(
                f"({at[0]:g}, {at[1]:g}) lies outside the image of {width} x {height} px; give "
                "pixels, x to the right and y down"
            )

    def _near(self, at: np.ndarray, rows: np.ndarray) -> tuple[int, float]:
        """Give the row among `rows` whose home is nearest, and its distance."""
        if len(rows) == 0:
            return -1, np.inf
        distance = np.hypot(*(self.home[rows] - at).T)
        best = int(np.argmin(distance))
        return int(rows[best]), float(distance[best])

    def _find(self, at: np.ndarray) -> int:
        """Give the row of the column that a position means."""
        row, distance = self._near(at, np.flatnonzero(~self._gone()))
        if distance <= WITHIN * self.spacing:
            return row
        raise DataError(
            f"no column is expected there; the nearest, {self._name(row)}, is {distance:.1f} px "
            f"away, and no more than {WITHIN * self.spacing:.1f} px are taken for it"
        )

    def _name(self, row: int) -> str:
        if row < 0:
            return "of none at all"
        x, y = self.home[row]
        return f"{self.table['species'].iloc[row]!s} at ({x:.1f}, {y:.1f})"

    def _start(self, row: int, to: np.ndarray) -> None:
        """Let a fit start elsewhere, but not on top of another one."""
        starts = self.table[["x_px", "y_px"]].to_numpy(dtype=float)
        others = np.flatnonzero(~self._gone())
        others = others[others != row]
        distance = np.hypot(*(starts[others] - to).T)
        if len(others) and distance.min() < APART * self.spacing:
            raise DataError(
                f"the fit of {self._name(int(others[np.argmin(distance)]))} starts there; two "
                "columns cannot share a peak"
            )
        self.table.loc[row, ["x_px", "y_px"]] = to
        self._mark(row, Quality.CORRECTED)

    def _add(self, at: np.ndarray, species: str) -> None:
        """Append a column, or bring back one that was removed."""
        row, distance = self._near(at, np.arange(len(self.home)))
        if distance > WITHIN * self.spacing:
            self._append(at, species)
            return
        if not self._gone()[row]:
            raise DataError(
                f"{self._name(row)} is expected there already; move it to let its fit start "
                "elsewhere, or relabel it"
            )
        self.table.loc[row, "quality"] = self._bits(row) & ~int(Quality.REMOVED)
        self.table.loc[row, "species"] = species
        self._start(row, at)

    def _append(self, at: np.ndarray, species: str) -> None:
        lattice, projection, interface = self.crystal
        ij, quality = lattice.index(at[None]), int(Quality.ADDED)
        sites = expected_sites(lattice, projection, self.shape, margin_px=self.spacing)
        if len(sites):
            away = np.hypot(*(sites[["x_px", "y_px"]].to_numpy() - at).T)
            if away.min() <= WITHIN * self.spacing:
                ij = sites[["i", "j"]].to_numpy(dtype=float)[[np.argmin(away)]]
        layer, plane = np.nan, 0
        if interface is not None:
            layer, plane = float(interface.layer(ij)[0]), int(interface.plane(ij)[0])
            faces = [interface] + ([] if interface.far is None else [interface.far])
            if any(face.plane(ij)[0] < 1 for face in faces):
                quality |= int(Quality.FILM)
        new = pd.DataFrame(
            {
                "species": [species],
                "i": ij[:, 0],
                "j": ij[:, 1],
                "x_px": at[0],
                "y_px": at[1],
                "layer": layer,
                "N": pd.array([plane if plane >= 1 else pd.NA], dtype="Int64"),
                "quality": np.array([quality], dtype=np.int64),
            }
        )
        columns = list(self.table.columns)
        self.table = pd.concat([self.table, new], ignore_index=True)[columns]
        self.home = np.vstack([self.home, at])
