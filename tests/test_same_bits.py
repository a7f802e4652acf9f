"""The same input and the same seed give the same bits, however the work is shared out."""

import hashlib
import json
import os
import pickle
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import stemdisp
from stemdisp.report.files import strict

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ("lao_kto_111", "kto_111_multislice")
TABLES = ("planes", "columns", "line_profile", "frames", "dose_series")
OF_MANY = [name for name in TABLES if name != "columns"]
# Between processors: single columns, of which one at the border moves most, and all that is made of
# many. Whether a step of a column is braked is a decision, and may hang on a last bit.
COLUMN_A, TOLERANCE_A = 1e-5, 1e-6

# Runs what is named and keeps the tables, all digits of them, and the summary.
RUN = """
import pickle, sys
import stemdisp
result = stemdisp.run({"input": {"path": sys.argv[2:]}})
names = ("planes", "columns", "line_profile", "frames", "dose_series")
tables = {name: getattr(result, name) for name in names}
pickle.dump((tables, result.summary), open(sys.argv[1], "wb"))
"""


def digest(tables, summary):
    """Checksum of every bit of the tables and of the summary, but for seconds and file names."""
    total = hashlib.sha256()
    for name in TABLES:
        table = tables[name]
        for column in () if table is None else table:
            values = table[column].to_numpy()
            total.update(f"{name}.{column} {values.dtype}".encode())
            plain = values.dtype.kind in "fiub"
            total.update(values.tobytes() if plain else repr(list(values)).encode())
    left = {key: value for key, value in summary.items() if key not in ("timings_s", "input")}
    left["configuration"] = {k: v for k, v in left["configuration"].items() if k != "input"}
    total.update(json.dumps(strict(left), sort_keys=True).encode())
    return total.hexdigest()


def digest_of(result):
    return digest({name: getattr(result, name) for name in TABLES}, result.summary)


@pytest.fixture(scope="module")
def stack():
    """Two small frames."""
    return stemdisp.simulate_stack(seed=1, n_frames=2, size=192)[0]


@pytest.fixture(scope="module")
def bits(stack):
    return digest_of(stemdisp.run(stack))


def test_threads_chunks_and_laziness_change_no_bit(stack, bits, monkeypatch):
    from threadpoolctl import threadpool_limits

    lazy = stack.as_lazy()
    lazy.data = lazy.data.rechunk((1, 50, 70))
    monkeypatch.setattr("numba.config.NUMBA_NUM_THREADS", 4)
    with threadpool_limits(4):
        assert digest_of(stemdisp.run(lazy)) == bits


def test_the_last_bit_of_one_pixel_is_seen(stack, bits):
    changed = stack.deepcopy()
    changed.data[1, 90, 90] = np.nextafter(changed.data[1, 90, 90], np.float32(np.inf))
    assert digest_of(stemdisp.run(changed)) != bits


def run_as(folder, name, paths, *, cwd=None, **environment):
    """Run in a process of its own, with this environment; give the tables and the summary."""
    there = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    there |= {"PYTHONPATH": str(ROOT), **environment}
    out = folder / f"{name}.pickle"
    command = [sys.executable, "-c", RUN, str(out), *map(str, paths)]
    subprocess.run(command, env=there, cwd=cwd or folder, check=True)
    return pickle.loads(out.read_bytes())


def threads(number):
    names = ("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    return dict.fromkeys(names, str(number))


@pytest.mark.slow
def test_surroundings_change_no_bit(stack, tmp_path):
    """Each change alone: threads, files, chunks, hashes, language, clock, directory, cache."""
    whole = tmp_path / "stack.hspy"
    stack.save(whole)
    stack.save(tmp_path / "chunks.hspy", chunks=(1, 64, 48))
    for frame in (0, 1):
        stack.inav[frame].save(tmp_path / f"frame{frame}.hspy")
    frames = [tmp_path / f"frame{frame}.hspy" for frame in (0, 1)]
    (tmp_path / "elsewhere").mkdir()
    ways = {f"{n} threads": ([whole], threads(n)) for n in (1, 2, 4, 8)}
    ways |= {
        "two files": (frames, {}),
        "chunks": ([tmp_path / "chunks.hspy"], {}),
        "hash seed 0": ([whole], {"PYTHONHASHSEED": "0"}),
        "hash seed 1": ([whole], {"PYTHONHASHSEED": "1"}),
        "C": ([whole], {"LC_ALL": "C", "TZ": "Asia/Tokyo"}),
        "German": ([whole], {"LC_ALL": "de_DE.UTF-8", "LANG": "de_DE.UTF-8", "TZ": "UTC+9"}),
        "elsewhere": (["../stack.hspy"], {"cwd": tmp_path / "elsewhere"}),
        "nothing compiled yet": ([whole], {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}),
    }
    seen = {}
    for name, (paths, environment) in ways.items():
        seen[name] = digest(*run_as(tmp_path, "out", paths, **environment))
    assert len(set(seen.values())) == 1, seen
    # control: frames in another order are another series
    assert digest(*run_as(tmp_path, "out", frames[::-1])) not in seen.values()


# What an older processor lacks: instructions in linear algebra, in compiled loops, in numpy.
OLDER = {
    "linear algebra": {"OPENBLAS_CORETYPE": "Prescott"},
    "loops": {"NUMBA_CPU_NAME": "x86-64-v2", "NUMBA_CPU_FEATURES": ""},
    "numpy": {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"},
}


def farthest(ours, theirs, tables):
    """Largest difference (angstrom) of any length in the tables; other gaps are not allowed."""
    most = 0.0
    for name in tables:
        for column in () if ours[name] is None else ours[name]:
            a, b = (table[name][column].to_numpy() for table in (ours, theirs))
            if not column.endswith("_A"):
                continue
            assert (np.isnan(a) == np.isnan(b)).all(), (name, column)
            if np.isfinite(a).any():
                most = max(most, float(np.nanmax(abs(a - b))))
    return most


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names of x86 processors")
@pytest.mark.parametrize("sample", SAMPLES)
def test_another_processor_changes_less_than_the_tolerance(sample, tmp_path):
    path = [ROOT / "sample_data" / f"{sample}.hspy"]
    here, _ = run_as(tmp_path, "here", path)
    every = {key: value for way in OLDER.values() for key, value in way.items()}
    for name, environment in {**OLDER, "all three": every}.items():
        there, _ = run_as(tmp_path, "there", path, **environment)
        alone, many = (farthest(here, there, names) for names in (["columns"], OF_MANY))
        sys.stdout.write(f"{sample}, {name}: {alone:.1e}, {many:.1e} angstrom\n")  # pytest -s
        assert digest_tables(there) != digest_tables(here)  # the variables do something
        assert alone < COLUMN_A and many < TOLERANCE_A
    # control: twice the tolerance in a single value is seen
    there["columns"].loc[len(there["columns"]) // 2, "x_A"] += 2 * COLUMN_A
    there["planes"].loc[len(there["planes"]) // 2, "delta_A"] += 2 * TOLERANCE_A
    assert farthest(here, there, ["columns"]) > COLUMN_A
    assert farthest(here, there, OF_MANY) > TOLERANCE_A


def digest_tables(tables):
    return digest(tables, {"configuration": {}})
