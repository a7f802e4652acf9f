"""The same numbers from a Dask cluster, also when a worker dies in the middle."""

from __future__ import annotations

import os
import signal

import numba
import numpy as np
import pandas as pd
import pytest
from _scans import image_frames, paths, specimen

from stemdisp import _acquire, _spread
from stemdisp._series import place_series
from stemdisp._spread import open_cluster, spread
from stemdisp._threads import Crew
from stemdisp.cli import main
from stemdisp.errors import ConfigError, DataError
from stemdisp.pipeline import run
from stemdisp.simulate import simulate_stack

CONFIG = {"analysis": {"bulk_from": 8}}


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes on this machine; a lost one is replaced."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as made:
        yield made


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    path = tmp_path_factory.mktemp("stack") / "stack.hspy"
    signal_, _ = simulate_stack("lao-kto-111", seed=3, n_frames=6, size=224)
    signal_.save(path, chunks=(1, 224, 224))
    return path


@pytest.fixture(scope="module")
def here(stack):
    return run({"input": {"path": [str(stack)]}, **CONFIG})


def same(one, other):
    for name in ("columns", "planes", "frames", "dose_series"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name), check_exact=True)
    np.testing.assert_array_equal(one.image, other.image)


class KillsOne:
    """Executor that kills a worker process when it is given its n-th task."""

    def __init__(self, executor, cluster, *, at):
        self.executor, self.cluster, self.left = executor, cluster, at
        self.n_workers = executor.n_workers

    def submit(self, function, *arguments):
        future = self.executor.submit(function, *arguments)
        self.left -= 1
        if self.left == 0:
            os.kill(next(iter(self.cluster.workers.values())).process.pid, signal.SIGKILL)
        return future


def test_a_lazy_file_on_a_cluster_gives_the_numbers_of_one_process(
    stack, here, cluster, monkeypatch
):
    monkeypatch.setattr(_acquire, "_LOOK_BYTES", 0)
    monkeypatch.setattr(_acquire, "_HOLD_BYTES", 0)
    with open_cluster(cluster.scheduler_address) as executor:
        there = run({"input": {"path": [str(stack)]}, **CONFIG}, executor=executor)
    same(here, there)


def test_blocks_of_a_long_series_are_placed_on_the_cluster(cluster):
    blobs, _ = specimen(160, seed=1)
    frames = image_frames(blobs, paths(26, 160, seed=5), 160, dose=2000.0, seed=5)
    frames = (frames - frames.mean()).astype(np.float32)
    here = place_series(frames.__getitem__, len(frames), 10.0)
    with open_cluster(cluster.scheduler_address) as executor:
        counting = KillsOne(executor, cluster, at=0)  # counts, and kills none
        there = place_series(frames.__getitem__, len(frames), 10.0, executor=counting)
    assert counting.left == -2  # one task for each of two blocks
    assert abs(here.positions_px).max() > 0.5
    np.testing.assert_array_equal(here.positions_px, there.positions_px)
    assert here.report == there.report


def test_a_task_of_a_worker_keeps_to_one_thread(cluster):
    with open_cluster(cluster.scheduler_address) as executor:
        sizes = list(spread(_crew_size, [()] * 2, executor=executor))
    assert sizes == [1, 1]
    assert _crew_size() == numba.config.NUMBA_NUM_THREADS


def _crew_size() -> int:
    with Crew() as crew:
        return crew.size


def test_a_worker_that_is_killed_changes_nothing(stack, here, cluster, monkeypatch):
    monkeypatch.setattr(_acquire, "_LOOK_BYTES", 0)
    monkeypatch.setattr(_acquire, "_HOLD_BYTES", 0)
    before = {worker.process.pid for worker in cluster.workers.values()}
    with open_cluster(cluster.scheduler_address) as executor:
        killing = KillsOne(executor, cluster, at=9)
        there = run({"input": {"path": [str(stack)]}, **CONFIG}, executor=killing)
    after = {worker.process.pid for worker in cluster.workers.values()}
    assert killing.left < 0  # there were tasks after it
    assert before != after  # the process is another one
    same(here, there)


def test_a_signal_in_memory_sends_its_frames_along(stack, here, cluster):
    from hyperspy.api import load

    with open_cluster(cluster.scheduler_address) as executor:
        there = run(load(stack), settings=CONFIG, executor=executor)
    same(here, there)


def _die(number):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_task_that_kills_every_worker_ends_in_words(cluster):
    with (
        open_cluster(cluster.scheduler_address) as executor,
        pytest.raises(DataError, match="died at the same task"),
    ):
        list(spread(_die, [(1,)], executor=executor))


def test_nobody_at_the_address(capsys, stack, tmp_path, monkeypatch):
    monkeypatch.setattr(_spread, "_PATIENCE_S", 0.5)
    with (
        pytest.raises(ConfigError, match="no Dask scheduler answers there"),
        open_cluster("tcp://127.0.0.1:9"),
    ):
        pass
    config = tmp_path / "a.toml"
    config.write_text(f'[input]\npath = ["{stack}"]\n')
    with pytest.raises(SystemExit) as stop:
        main(["run", str(config), "--scheduler", "nonsense", "--output", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()
