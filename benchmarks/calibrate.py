"""Are the errors and intervals of the answers right? Counted on synthetic stacks with known truth.

``python -m benchmarks.calibrate --write`` runs many stacks through the whole analysis and writes
docs/calibration.md. With ``--multislice FOLDER`` it computes multislice images instead (kept in the
folder; hours on two cores) and writes docs/systematics.md: what f, the intensity of oxygen and the
bulk reference do in a real specimen.
"""

from __future__ import annotations

import datetime
import sys
from pathlib import Path

import click
import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.coverage import PLANES, Case, answers
from benchmarks.report import machine, table

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "calibration.md"
DOSES = (200.0, 500.0, 2000.0)
Z95 = 1.959964
SPECIES = ("K", "Ta", "O")
SAMPLE_DOSE = 500.0


def cases(stacks: int, doses: tuple[float, ...], first: int = 0) -> list[Case]:
    """Stacks to run: half with a decay, half with ends, at each dose; as many without anything."""
    half = max(1, stacks // 2)
    out = [
        Case(first + k, kind, dose)
        for dose in doses
        for kind in ("decay", "ends")
        for k in range(half)
    ]
    out += [Case(first + 10_000 + k, "nothing", doses[k % len(doses)]) for k in range(stacks)]
    middle = SAMPLE_DOSE if SAMPLE_DOSE in doses else doses[len(doses) // 2]
    return out + [Case(first + 20_000 + k, "faint", middle) for k in range(max(1, stacks // 4))]


def coverage(found: pd.DataFrame) -> list[tuple[str, ...]]:
    """Rows of the table: quantity, then per dose the share of intervals that hold the truth."""
    real = found[found["kind"].isin(("decay", "ends")) & found["refused"].isna()]
    doses = doses_of(found)
    rows: list[tuple[str, ...]] = []
    for label, name in (
        ("δ(N), N = 1 to 9", "delta"),
        ("δ perpendicular, N = 1 to 9", "perp"),
        ("occupancy(N), N = 1 to 9", "occ"),
    ):
        rows.append((label, *(_share(_plane_hits(real[real["dose"] == d], name)) for d in doses)))
    for label, name, kind in (
        ("ξ", "xi", "decay"),
        ("δ0", "delta0", "decay"),
        ("N_disp", "N_disp", "ends"),
        ("N_vac", "N_vac", ""),
        ("N_vac - N_disp", "diff", "ends"),
    ):
        part = real[real["kind"] == kind] if kind else real
        rows.append((label, *(_share(_hits(part[part["dose"] == d], name)) for d in doses)))
    return rows


def _plane_hits(part: pd.DataFrame, name: str) -> np.ndarray:
    pulls = [
        (part[f"{name}{k}"] - part[f"{name}{k}_true"]) / part[f"{name}{k}_err"]
        for k in range(1, PLANES + 1)
    ]
    pulls = pd.concat(pulls).to_numpy(dtype=float)
    return np.abs(pulls[np.isfinite(pulls)]) <= Z95


def _hits(part: pd.DataFrame, name: str) -> np.ndarray:
    true = part["true_N_vac"] - part["true_N_disp"] if name == "diff" else part[f"true_{name}"]
    low, high = part[f"{name}_low"], part[f"{name}_high"]
    known = low.notna() & high.notna()
    return ((low <= true) & (true <= high))[known].to_numpy(dtype=bool)


def _share(hits: np.ndarray) -> str:
    """Share in per cent with its standard error and the number of cases."""
    if hits.size == 0:
        return "-"
    share = hits.mean()
    error = np.sqrt(max(share * (1 - share), 0.25 / hits.size) / hits.size)
    return f"{100 * share:.1f} ± {100 * error:.1f} % ({hits.size})"


def pulls(found: pd.DataFrame) -> list[tuple[str, ...]]:
    """Standard deviation of (measured - true) / error of single columns, by species and dose."""
    done = found[found["refused"].isna()]
    rows = []
    for species in SPECIES:
        for axis, label in (("x", "x"), ("y", "y"), ("V", "intensity")):
            name = f"pull_{species}_{axis}"
            values = [
                done.loc[done["dose"] == d, name].dropna().to_numpy() for d in doses_of(found)
            ]
            rows.append((f"{species}, {label}", *(_rms(v) for v in values)))
    return rows


def doses_of(found: pd.DataFrame) -> list[float]:
    """Doses that occur."""
    return sorted(found["dose"].unique())


def _rms(values: np.ndarray) -> str:
    return f"{np.sqrt(np.mean(values**2)):.3f}" if values.size else "-"


def findings(found: pd.DataFrame) -> list[tuple[str, str]]:
    """What is found where there is nothing, and where there is little."""
    done = found[found["refused"].isna()]
    null, faint = (done[done["kind"] == kind] for kind in ("nothing", "faint"))
    decay = null["model"] != "none"
    disp, vac = null["N_disp"] > 0, null["N_vac"] > 0
    unknown = (null["model"] == "unknown") & null["N_disp"].isna()
    decay &= ~unknown
    within = done.loc[done["kind"].isin(("decay", "ends", "nothing")), "within_p"].dropna()
    ks = stats.kstest(within, "uniform").pvalue if len(within) else np.nan
    rows = [
        ("nothing there: a decay is found", _share(decay.to_numpy())),
        ("nothing there: a depth of displacement", _share(disp.to_numpy())),
        ("nothing there: a depth of vacancies", _share(vac.to_numpy())),
        ("nothing there: any of these", _share((decay | disp | vac).to_numpy())),
        (
            "nothing there: the bulk fails its own test",
            _share(~null["passed"].astype(bool).to_numpy()),
        ),
        (
            "same depth, not same place: p within planes below 0.05",
            _share((within < 0.05).to_numpy()),
        ),
        ("the same: p of a uniform distribution (Kolmogorov-Smirnov)", f"{ks:.2f}"),
    ]
    if len(faint):
        seen = (faint["model"] != "none") | (faint["N_disp"] > 0)
        rows.append(
            (
                f"δ(1) = 5 pm at {faint['dose'].iloc[0]:g} e/Å² a frame: found",
                _share(seen.to_numpy()),
            )
        )
    return rows


def limits(found: pd.DataFrame) -> list[tuple[str, ...]]:
    """What can be seen at each dose, and what the errors are."""
    done = found[found["refused"].isna() & found["kind"].isin(("decay", "ends"))]
    rows = []
    for dose in doses_of(done):
        part = done[done["dose"] == dose]
        rows.append(
            (
                f"{dose:g}",
                *(f"{100 * part[f'err_{s}_x'].median():.2f}" for s in SPECIES),
                f"{100 * part['delta3_err'].median():.2f}",
                f"{part['occ3_err'].median():.3f}",
                f"{100 * part['seen_delta'].median():.1f}",
                f"{100 * part['seen_occupancy'].median():.1f}",
            )
        )
    return rows


def page(found: pd.DataFrame, command: str) -> str:
    """Give the text of docs/calibration.md."""
    doses = tuple(f"{d:g} e/Å² a frame" for d in doses_of(found))
    refused = found["refused"].notna()
    warned = found["warned"].fillna(value=False).astype(bool)
    lost = ", ".join(
        f"{int((refused | warned)[found['dose'] == d].sum())} of {int((found['dose'] == d).sum())}"
        for d in doses_of(found)
    )
    found = found[~warned]
    return _PAGE.format(
        command=command,
        date=datetime.date.today().isoformat(),
        machine=machine(),
        stacks=len(warned),
        refused=int(refused.sum()),
        warned=int(warned.sum()),
        lost=lost,
        coverage=table(("95 % interval of", *doses), coverage(found)),
        pulls=table(("column, quantity", *doses), pulls(found)),
        findings=table(("question", "share (stacks)"), findings(found)),
        limits=table(
            (
                "e/Å² a frame",
                *(f"error of {s}, pm" for s in SPECIES),
                "error of δ(3), pm",
                "error of occupancy(3)",
                "smallest δ, pm",
                "smallest vacancy fraction, %",
            ),
            limits(found),
        ),
    )


@click.command()
@click.option("--stacks", default=200, show_default=True, type=click.IntRange(min=2))
@click.option("--first", default=0, show_default=True, help="Seed of the first stack.")
@click.option("--workers", default=2, show_default=True)
@click.option("--keep", type=click.Path(dir_okay=False), help="Write all answers to this CSV file.")
@click.option("--multislice", type=click.Path(file_okay=False), help="Compute these instead.")
@click.option("--write", is_flag=True, help="Write the page of the documentation as well.")
def main(
    stacks: int, first: int, workers: int, keep: str | None, multislice: str | None, write: bool
) -> None:
    """Run stacks, compare answers with truths, print the tables."""
    if multislice:
        from benchmarks import systematics

        target, text = systematics.PAGE, systematics.page(Path(multislice))
    else:
        found = answers(cases(stacks, DOSES, first), workers)
        if keep:
            found.to_csv(keep, index=False)
        options = f"--stacks {stacks}" + (f" --first {first}" if first else "")
        target, text = PAGE, page(found, f"python -m benchmarks.calibrate {options} --write")
    click.echo(text)
    if write:
        target.write_text(text, encoding="utf-8")


_PAGE = """\
# Calibration

Written by `{command}` on {date}. {machine}.

{stacks} synthetic stacks (8 frames of 512 x 512 px, 0.15 Å a pixel) went through the whole run,
from frames to depths; {refused} were refused, and in {warned} a warning says that frames may be a
lattice vector off; these do not count (at the three doses: {lost}). Each has iDPC noise with its
$1/k^2$ spectrum, drift between and within frames, lines displaced by 5 and 2 pm (x and y, rms), a
slow background, an amorphous film, 1.5 pm of static disorder, and its own tilt offset, rotation,
film thickness, δ0 (0.3 to 0.6 Å) and ξ (1.5 to 3 planes). In one half of the stacks with an effect
δ decays without end and oxygen is missing in six planes; in the other half both end at planes from
3 to 7, drawn independently.

## Intervals

Share of the 95 % intervals that hold the truth, with its standard error and the number of
intervals. The truth of δ(N) is what the bulk reference leaves of it. A depth is one whole number:
where it is found without doubt its interval holds nothing else and is always right, so shares near
100 % are no excess of caution.

{coverage}
## Single columns

Standard deviation of (measured - true) / claimed error. Columns within 12 Å of the border and in
plane N = 1 are left out; drift (shift, shear) is taken out. Line jitter is in the errors because
the halves of the stack show it.

{pulls}
## Findings

{findings}
## What can be seen

Medians. The smallest δ and the smallest vacancy fraction are those of one plane that the depth
test finds in 95 of 100 images ([](methods.md)).

{limits}"""

if __name__ == "__main__":
    main(prog_name="python -m benchmarks.calibrate")
    sys.exit(0)
