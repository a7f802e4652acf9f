"""Many fields in one process, and whether the benchmark would see that they leave something."""

from dataclasses import replace

import pytest

from benchmarks import endurance
from benchmarks.endurance import ROUND, Sample, judge

STILL = Sample(
    field=1,
    failed=False,
    cpu_s=2.0,
    yard_s=0.02,
    rss_mib=400.0,
    children_mib=0.0,
    children=0,
    files=15,
    threads=2,
    objects=300_000,
    figures=0,
)


def series(n=100, **growth):
    """Samples of which some numbers grow by so much per field."""
    return [
        replace(
            STILL,
            field=k + 1,
            **{name: getattr(STILL, name) + by * k for name, by in growth.items()},
        )
        for k in range(n)
    ]


def test_what_stays_as_it_is_passes():
    verdict = judge(series(), warm_up=20, window=20)
    assert verdict.broken() == [] and verdict.memory == verdict.speed == 0.0


@pytest.mark.parametrize(
    ("growth", "seen"),
    [
        ({"rss_mib": 0.5}, ["memory"]),
        ({"children_mib": 0.5}, ["memory"]),
        ({"cpu_s": 0.003}, ["speed"]),
        ({"objects": 400}, ["objects"]),
        ({"files": 1}, ["files"]),
        ({"threads": 1}, ["threads"]),
        ({"children": 1}, ["children"]),
        ({"figures": 1}, ["figures"]),
    ],
    ids=str,
)
def test_what_grows_is_named(growth, seen):
    assert judge(series(**growth), warm_up=20, window=20).broken() == seen


def test_a_machine_that_slows_down_is_no_defect():
    slower = [replace(s, cpu_s=2.0 * (1 + s.field), yard_s=0.02 * (1 + s.field)) for s in series()]
    verdict = judge(slower, warm_up=20, window=20)
    assert verdict.broken() == [] and verdict.raw_speed > 1.0


def test_too_few_fields_are_refused():
    with pytest.raises(ValueError, match="30 fields are too few"):
        judge(series(30), warm_up=20, window=20)


def test_windows_hold_whole_rounds():
    assert endurance.windows(1000) == (100, 100)
    for count in (60, 200, 400):
        warm_up, window = endurance.windows(count)
        assert window % len(ROUND) == 0 and warm_up + 2 * window <= count


def test_children_are_counted(tmp_path):
    import subprocess
    import sys

    words = "import sys; x = bytearray(60_000_000); print('there', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        assert child.pid in endurance.descendants(endurance.os.getpid())
        assert endurance.rss_mib(child.pid) > 50
        before = endurance.cpu_s()
        child.stdin.close()
        child.wait()
    assert child.pid not in endurance.descendants(endurance.os.getpid())
    assert endurance.cpu_s() >= before
    assert endurance.rss_mib(child.pid) == 0.0


@pytest.fixture
def short_rounds(monkeypatch):
    """Rounds of few and small fields: the same code, in a minute or two."""
    monkeypatch.setattr(endurance, "ROUND", ("bulk_160", "noise", "stack", "truncated", "flat"))


@pytest.mark.slow
def test_sixty_fields_leave_nothing_behind(tmp_path, short_rounds):
    samples = endurance.endure(60, tmp_path)
    assert len(samples) == 60 and sum(s.failed for s in samples) == 36
    assert judge(samples, warm_up=20, window=20).broken() == []
    text = endurance.page(samples, command="test", seconds=60.0)
    assert "\nof 60 files" in text and "36\nfields failed" in text


@pytest.mark.slow
def test_a_callback_that_keeps_things_is_seen(tmp_path, short_rounds):
    kept, opened = [], []

    def leak(sample):
        # lists, because the collector does not follow dictionaries that are empty
        kept.append([bytearray(3_000_000), [[] for _ in range(4000)]])
        opened.append((tmp_path / "open").open("w"))

    samples = endurance.endure(60, tmp_path, each=leak)
    for file in opened:
        file.close()
    broken = judge(samples, warm_up=20, window=20).broken()
    assert {"memory", "objects", "files"} <= set(broken)
