"""`make bench-check` fails where something has become worse, and only there."""

import time

import pytest
from click.testing import CliRunner

from benchmarks import accuracy, check, counted, measures

KNOWN = {"time": 2.0, "memory": 10.0, "instructions": 80.0}


def groups(**values):
    """Fake measurements: each group gives one number, the next of a list at each call."""
    left = {name: list(v) if isinstance(v, list) else [v] * 9 for name, v in values.items()}
    return {name: (lambda name=name: {name: left[name].pop(0)}) for name in values}


def verdict(known=KNOWN, **values):
    said = []
    return check.judge(groups(**values), known, said.append), said


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.19])
def test_what_has_not_changed_passes(factor):
    found, said = verdict(**{name: factor * value for name, value in KNOWN.items()})
    assert not check.failed(found) and not found.worse() and said == list(KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_a_single_regression_fails_after_three_attempts(name):
    found, said = verdict(**(KNOWN | {name: 1.21 * KNOWN[name]}))
    assert check.failed(found) and found.worse() == [name]
    assert said.count(f"{name}, once more") == 2
    assert any(line.startswith("  WORSE") and name in line for line in check.lines(found))


def test_one_bad_moment_does_not_fail():
    found, said = verdict(time=[3.0, 2.1], memory=10.0)
    assert not check.failed(found) and said == ["time", "time, once more", "memory"]


def test_no_number_is_no_pass():
    found, _ = verdict(time=float("nan"))
    assert check.failed(found)


def test_only_the_counter_may_be_absent():
    def absent():
        raise counted.Uncounted("valgrind is not installed")

    found = check.judge({"instructions": absent}, KNOWN, print)
    assert not check.failed(found) and "valgrind is not installed" in check.lines(found)[0]
    assert check.failed(check.judge({"times": absent}, KNOWN, print))


def test_better_and_new_measures_are_named():
    found, _ = verdict(time=1.0, other=5.0)
    assert found.better() == ["time"] and found.new() == ["other"] and not check.failed(found)


def test_the_command_keeps_a_baseline_and_fails_against_it(monkeypatch, tmp_path):
    now = {"value": 1.0}
    monkeypatch.setattr(
        measures, "all_measures", lambda: {"times": lambda: {"a time": now["value"]}}
    )
    options = ["--baseline", str(tmp_path / "baseline.json")]

    def status(*more):
        return CliRunner().invoke(check.main, [*options, *more]).exit_code

    assert status("--renew") == 0 and status() == 0
    now["value"] = 1.3
    assert status() == 1
    assert status("--renew") == 0 and status() == 0
    assert status("--only", "tines") == 2


def test_spread_is_half_the_range_over_the_median():
    found = check.spread(groups(time=[1.0, 1.2, 0.9]), 3, print)
    assert found["time"] == (1.0, pytest.approx(0.15))


def test_the_committed_baseline_knows_what_is_measured():
    known = check.read(check.BASELINE)
    starts = ("rms / bound, idpc, O", "time of a fit", "memory of a fit", "instructions of a fit")
    for begin in (*starts, "import stemdisp", "run of the sample data"):
        assert any(name.startswith(begin) for name in known), begin
    assert all(value > 0 for value in known.values())


def test_times_that_take_turns_give_their_ratio():
    def busy(seconds):
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    ratio = measures.interleaved(lambda: busy(0.01), lambda: busy(0.005), 3)
    assert ratio == pytest.approx(2.0, rel=0.1)


@pytest.mark.slow
def test_a_fit_that_does_its_work_twice_fails_and_an_unchanged_one_passes(monkeypatch):
    groups = {"times": measures.times}
    known = measures.times()
    assert not check.failed(check.judge(groups, known, print))
    fit_once = accuracy.stemdisp_fit

    def twice(noise):
        fit = fit_once(noise)

        def slow(image, start):
            fit(image, start)
            return fit(image, start)

        return slow

    monkeypatch.setattr(accuracy, "stemdisp_fit", twice)
    found = check.judge(groups, known, print)
    assert check.failed(found) and len(found.worse()) == 3


@pytest.mark.slow
@pytest.mark.skipif(bool(counted.why_not()), reason=counted.why_not() or "can count")
def test_instructions_are_counted_and_twice_the_work_is_twice_the_count(tmp_path):
    slow = tmp_path / "counted_twice.py"
    slow.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from benchmarks import counted\n"
        "from stemdisp.refine import refine_columns\n"
        "def fit(*given, **named):\n"
        "    refine_columns(*given, **named)\n"
        "    return refine_columns(*given, **named)\n"
        "counted.main(Path(sys.argv[1]), fit)\n",
        encoding="utf-8",
    )
    once = counted.count()
    twice = counted.count(work=(str(slow),))
    for name, instructions in once.items():
        assert twice[name] == pytest.approx(2 * instructions, rel=0.02)
