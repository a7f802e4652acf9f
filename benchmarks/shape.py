"""What other column shapes buy: multislice images fitted with Gaussians and with more.

``python -m benchmarks.shape FOLDER`` reads quadrant images of KTaO3 below a film and what is true
of them. Columns are fitted as Gaussians. Then the mean shape of each species beyond its Gaussian
is measured on the residual of the image itself, taken off the image, and all is fitted again.
Beside it stand Gaussians of which each has its own width, and ellipses, one for each species.
The shape is a sum of Laguerre functions of orders 2 to 4, which are orthogonal to a Gaussian of
the right intensity (order 0) and width (order 1), times the Gaussian: the fit has those two.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pandas as pd
from numpy.polynomial.laguerre import lagval

from benchmarks.report import table
from stemdisp.dpc import integrate_dpc
from stemdisp.refine import refine_columns

CONDITIONS = ("10nm", "10nm_KO", "15nm")
METRICS = {"idpc": "least squares on the gradient", "white": "least squares on the image"}
ORDERS = (2, 3, 4)
REACH = 6.0  # half window of a shape in widths
BEYOND_A = 1.0  # columns outside the image that still reach into it
ABOVE_A = 1.6  # from the uppermost column to the film, which is masked
ASIDE_A = 6.0  # from the borders to the columns and the residual that count
PLANES = range(1, 9)
BULK = (8, 10)  # planes whose oxygen is complete


@dataclass(frozen=True, eq=False)
class Condition:
    """One multislice image: rows above `first_row` hold the film.

    ``columns`` are the ideal sites, ``truth`` has by N the reference and true displacement along
    e1 in angstrom and the oxygen that is there.
    """

    name: str
    image: np.ndarray
    first_row: int
    pixel_A: float
    columns: pd.DataFrame
    truth: pd.DataFrame
    along: np.ndarray
    whole_moves: bool

    @property
    def mask(self) -> np.ndarray:
        """Pixels to use."""
        return np.broadcast_to(
            np.arange(len(self.image))[:, None] >= self.first_row, self.image.shape
        )


@dataclass(frozen=True)
class Outcome:
    """What a fit says of the crystal, by N, and how well it describes the image."""

    delta_A: pd.Series
    occupancy: pd.Series
    misfit: float
    residual: float  # its rms over that of the image, away from borders


def load_condition(folder: Path, name: str, *, periods: int = 8) -> Condition:
    """Read one condition and put `periods` lateral periods side by side."""
    found = json.loads((folder / f"kto111_{name}.json").read_text(encoding="utf-8"))
    pixel, period = found["pixel_A"], found["lateral_period_A"]
    with np.load(folder / f"kto111_{name}.npz") as file:
        quadrants = np.tile(file["quadrants"], (1, 1, periods))
    image = integrate_dpc(quadrants, pixel_size_A=pixel)
    sites = pd.DataFrame(found["columns"])
    # a period to the right is one cell on along e1 and one back along e2
    each = [
        sites.assign(x_A=sites["x_A"] + k * period, i=sites["i"] + k, j=sites["j"] - k)
        for k in range(-1, periods + 1)
    ]
    columns = pd.concat(each, ignore_index=True)
    columns = columns[columns["x_A"].between(-BEYOND_A, image.shape[1] * pixel + BEYOND_A)]
    oxygen, cages = (sites[sites["species"] == s].groupby("N") for s in ("O", "KO"))
    return Condition(
        name=name,
        image=image,
        first_row=max(0, int((sites["y_A"].min() - ABOVE_A) / pixel)),
        pixel_A=pixel,
        columns=columns[["species", "i", "j", "N"]]
        .assign(x_px=columns["x_A"] / pixel, y_px=columns["y_A"] / pixel)
        .reset_index(drop=True),
        truth=pd.DataFrame(
            {
                "reference_A": cages["delta_fit_A"].mean(),
                "delta_A": cages["delta_A"].mean(),
                "occupancy": oxygen["occupancy_realised"].mean(),
            }
        ),
        along=np.array(found["e1_image"]),
        whole_moves=name.endswith("KO"),
    )


def fit(
    condition: Condition,
    noise: str,
    beyond: np.ndarray | float = 0.0,
    *,
    widths: str = "species",
) -> pd.DataFrame:
    """Fit Gaussians to the image without what the columns are `beyond` Gaussians."""
    return refine_columns(
        condition.image - beyond,
        condition.columns,
        pixel_size=condition.pixel_A,
        noise=noise,
        mask=condition.mask,
        widths=widths,
    )


def fit_with_shape(
    condition: Condition, noise: str, gaussian: pd.DataFrame, passes: int
) -> pd.DataFrame:
    """Fit with the mean shape of each species, measured anew `passes` times."""
    fitted, beyond = gaussian, 0.0
    for _ in range(passes):
        residual = fitted.attrs["fit"].residual + beyond
        beyond = shape_beyond(fitted, residual, noise, condition.first_row, condition.pixel_A)
        fitted = fit(condition, noise, beyond)
    return fitted


def shape_beyond(
    fitted: pd.DataFrame, residual: np.ndarray, noise: str, first_row: int, pixel_A: float
) -> np.ndarray:
    """Give the part of the residual that the columns of a species have in common; (ny, nx).

    Least squares over the terms of all species, in the metric of the noise.
    """
    terms = np.concatenate(
        [
            shape_terms(columns, residual.shape, pixel_A)
            for _, columns in fitted.groupby("species", sort=False)
        ]
    )
    seen = np.stack([_in_metric(term[first_row:], noise) for term in terms], axis=1)
    share, *_ = np.linalg.lstsq(seen, _in_metric(residual[first_row:], noise), rcond=None)
    return np.tensordot(share, terms, axes=1)


def shape_terms(columns: pd.DataFrame, shape: tuple[int, int], pixel_A: float) -> np.ndarray:
    """Draw all columns of a species as Laguerre functions of each order; (n_orders, ny, nx).

    With t = r^2 / (2 sigma^2), order m is the Gaussian of the column times L_m(t).
    """
    columns = columns[np.isfinite(columns["x_px"]) & np.isfinite(columns["y_px"])]
    if columns.empty:
        return np.zeros((len(ORDERS), *shape))
    width = float(columns["sigma_A"].median()) / pixel_A
    reach = int(np.ceil(REACH * width))
    x, y = columns["x_px"].to_numpy(), columns["y_px"].to_numpy()
    offset = np.arange(-reach, reach + 1)
    # (column, row or pixel of its window)
    col = np.rint(x).astype(int)[:, None] + offset
    row = np.rint(y).astype(int)[:, None] + offset
    square = (row - y[:, None])[:, :, None] ** 2 + (col - x[:, None])[:, None, :] ** 2
    t = square / (2 * width**2)
    height = columns["intensity"].to_numpy() / pixel_A**2 / (2 * np.pi * width**2)
    gaussian = height[:, None, None] * np.exp(-t)
    inside = ((row >= 0) & (row < shape[0]))[:, :, None]
    inside = inside & ((col >= 0) & (col < shape[1]))[:, None, :]
    at = (row[:, :, None] * shape[1] + col[:, None, :])[inside]
    terms = [
        np.bincount(at, (gaussian * lagval(t, np.eye(m + 1)[m]))[inside], shape[0] * shape[1])
        for m in ORDERS
    ]
    return np.reshape(terms, (len(ORDERS), *shape))


def _in_metric(image: np.ndarray, noise: str) -> np.ndarray:
    """Give numbers whose squares the fit sums; the mean is the background's."""
    if noise == "idpc":
        return np.concatenate([np.diff(image, axis=k).ravel() for k in (0, 1)])
    return (image - image.mean()).ravel()


def outcome(condition: Condition, fitted: pd.DataFrame) -> Outcome:
    """Read displacements and occupancies off a fit, by N.

    The displacement is that of KO from the middle of its two Ta neighbours, along e1.
    """
    side = ASIDE_A / condition.pixel_A
    counts = fitted["x_px"].between(side, condition.image.shape[1] - 1 - side)
    cages = fitted[(fitted["species"] == "KO") & counts]
    at = fitted.set_index(["i", "j"])[["x_A", "y_A"]].astype(float)
    pair = [
        at.reindex(pd.MultiIndex.from_arrays([cages["i"], cages["j"] + half])).to_numpy()
        for half in (-0.5, 0.5)
    ]
    delta = (cages[["x_A", "y_A"]].to_numpy() - np.mean(pair, axis=0)) @ condition.along
    oxygen = fitted[(fitted["species"] == "O") & counts]
    intensity = oxygen.groupby("N")["intensity"].mean()
    found, margin = fitted.attrs["fit"], int(side)
    inner = (slice(condition.first_row + margin, -margin), slice(margin, -margin))
    return Outcome(
        delta_A=pd.Series(delta).groupby(cages["N"].to_numpy()).mean(),
        occupancy=intensity / intensity.loc[slice(*BULK)].mean(),
        misfit=found.misfit,
        residual=float(np.std(found.residual[inner]) / np.std(condition.image[inner])),
    )


def compare(condition: Condition, outcomes: dict[str, Outcome]) -> str:
    """Lay out what the fits say; the first of them is what the others are compared with."""
    planes, truth = list(PLANES), condition.truth
    first, *others = outcomes.values()
    change = [(o.delta_A - first.delta_A).loc[planes].abs().max() for o in others]
    rows = [("largest change of δ(N), pm", "-", *(f"{100 * c:.2f}" for c in change))]
    known = [("reference", "reference_A")]
    if condition.whole_moves:  # else δ is that of the column, of which only K moves
        known.append(("truth", "delta_A"))
    for name, key in known:
        off = [(o.delta_A - truth[key]).loc[planes] for o in outcomes.values()]
        rows.append(
            (f"rms of δ(N) − {name}, pm", *(f"{100 * np.sqrt(np.mean(d**2)):.2f}" for d in off))
        )
    off = [(o.occupancy - truth["occupancy"]).loc[planes].abs().max() for o in outcomes.values()]
    rows += [
        ("largest error of occupancy", *(f"{d:.3f}" for d in off)),
        ("misfit", *(f"{o.misfit:.1f}" for o in outcomes.values())),
        ("rms of the residual / of the image", *(f"{o.residual:.4f}" for o in outcomes.values())),
    ]
    return table(("what", *outcomes), rows)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--condition", "names", multiple=True, default=CONDITIONS, show_default=True, help="Which."
)
@click.option("--passes", default=5, show_default=True, help="Times that the shape is measured.")
@click.option(
    "--periods",
    default=8,
    show_default=True,
    type=click.IntRange(min=4),
    help="Lateral periods side by side.",
)
def main(folder: Path, names: tuple[str, ...], passes: int, periods: int) -> None:
    """Fit the multislice images in FOLDER with Gaussians and with other shapes."""
    click.echo(f"δ(N) for N = {PLANES[0]} to {PLANES[-1]}; the shape is measured {passes} times.\n")
    for name in names:
        condition = load_condition(folder, name, periods=periods)
        for noise, metric in METRICS.items():
            gaussian = fit(condition, noise)
            fitted = {
                "Gaussian": gaussian,
                "measured shape": fit_with_shape(condition, noise, gaussian, passes),
                "own widths": fit(condition, noise, widths="column"),
                "ellipses": fit(condition, noise, widths="ellipse"),
            }
            click.echo(f"## {name}, {noise}: {metric}\n")
            click.echo(compare(condition, {k: outcome(condition, f) for k, f in fitted.items()}))


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.shape")
