"""The benchmark of large stacks at its smallest size, and what its rows say."""

from __future__ import annotations

import numpy as np
import pytest
from hyperspy.api import load

from benchmarks import scale


@pytest.mark.slow
def test_a_small_stack_is_measured(tmp_path):
    case = scale.Case(3, 288)
    path = tmp_path / "stack.hspy"
    scale.write_stack(path, case.n_frames, case.size)
    stack = load(path, lazy=True)
    assert stack.data.shape == (3, 288, 288) and stack.data.chunksize == (1, 288, 288)
    frame = np.asarray(stack.data[0])
    assert np.isfinite(frame).all() and frame.dtype == np.float32
    found = scale.measure(path, case)
    assert found["used"] == 3
    assert found["seconds"] > found["stages"]["register"] > 0
    assert 0.1 < found["peak_gib"] < 8
    assert len(scale.line(case, found).split("|")) == len(scale.HEAD.splitlines()[0].split("|"))
    text = scale.page([(case, found)], "python -m benchmarks.scale")
    assert "| 3 | 288 |" in text


def test_a_run_that_fails_is_not_a_row(tmp_path):
    (tmp_path / "a.hspy").write_text("no stack")
    with pytest.raises(Exception, match="non-zero exit status"):
        scale.measure(tmp_path / "a.hspy", scale.Case(3, 288))
