"""Are claimed errors true ones? A reduced form of ``make calibrate``, and a control that fails."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.calibrate import cases, coverage, findings, page, pulls
from benchmarks.coverage import PLANES, Case, answer

STACKS = 5


@pytest.fixture(scope="module")
def found():
    stacks = [Case(500 + k, kind, 2000.0, size=384) for k in range(STACKS) for kind in ("decay",)]
    stacks += [Case(600 + k, "nothing", 500.0, size=384) for k in range(2)]
    return pd.DataFrame([answer(case) for case in stacks])


def pulls_of(found, name):
    part = found[found["kind"] == "decay"]
    return np.concatenate(
        [
            (part[f"{name}{k}"] - part[f"{name}{k}_true"]) / part[f"{name}{k}_err"]
            for k in range(1, PLANES + 1)
        ]
    )


@pytest.mark.parametrize("name", ["delta", "perp", "occ"])
def test_plane_means_scatter_as_their_errors_say(found, name):
    pull = pulls_of(found, name)
    # 45 values, of which neighbours share the bulk reference: a spread of 1 is known to 0.2
    assert 0.6 < np.std(pull) < 1.4
    assert np.mean(np.abs(pull) < 1.96) > 0.8


def test_errors_of_single_columns_hold_the_line_jitter(found):
    part = found[found["kind"] == "decay"]
    for species in ("K", "Ta", "O"):
        for axis in "xyV":
            rms = np.sqrt(np.mean(part[f"pull_{species}_{axis}"] ** 2))
            assert 0.85 < rms < 1.15, (species, axis)


def test_without_the_halves_the_errors_are_too_small(found, monkeypatch):
    monkeypatch.setattr("stemdisp._scene._halves", lambda *_: [])
    blind = answer(Case(500, "decay", 2000.0, size=384))
    seen = found.iloc[0]
    assert blind["pull_Ta_x"] > 1.3 > 1.15 > seen["pull_Ta_x"]


def test_nothing_is_found_where_nothing_is(found):
    nothing = found[found["kind"] == "nothing"]
    assert (nothing["model"] == "none").all()
    assert (nothing["N_disp"] == 0).all() and (nothing["N_vac"] == 0).all()


def test_the_page_counts_right(found):
    table = found.assign(delta1=found["delta1_true"] + 3 * found["delta1_err"])
    rows = dict((row[0], row[1:]) for row in coverage(table))
    # doses 500 (nothing there) and 2000
    assert coverage(found)[0][1] == "-"
    assert coverage(found)[0][2].split("(")[1] == f"{STACKS * PLANES})"
    share = float(rows["δ(N), N = 1 to 9"][1].split(" ")[0])
    # every first plane is now three errors off
    assert share <= 100 * (PLANES - 1) / PLANES + 0.1
    text = page(found.assign(refused=None), "some command")
    assert "some command" in text and "| K, x" in text
    assert any("nothing there" in row[0] for row in findings(found))
    assert len(pulls(found)) == 9


def test_cases_cover_all_kinds_and_doses():
    drawn = cases(8, (100.0, 500.0))
    counts = pd.DataFrame([vars(c) for c in drawn]).groupby(["kind", "dose"]).size()
    assert counts["decay", 100.0] == counts["ends", 500.0] == 4
    assert counts["nothing"].sum() == 8 and counts["faint"].sum() == 2
    assert len({(c.seed, c.kind, c.dose) for c in drawn}) == len(drawn)
