"""The files of compiled code: whatever is wrong with them, a fit gives the same bits."""

import errno
import gc
import os
import pickle
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stemdisp import _codefiles
from stemdisp._codefiles import SUFFIX

ROOT = Path(__file__).resolve().parent.parent
posix = pytest.mark.skipif(os.name != "posix", reason="needs owners and permissions")
as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs to become another user"
)

# One small compiled loop; prints its result and how often its code was found.
LOOP = """
import numpy as np
from stemdisp._pairs import closer_pairs
at, out = np.zeros((2, 3), np.int64)
columns = np.arange(8.0).reshape(2, 4)
closer_pairs(np.array([0, 2, 3]), np.array([0, 1, 1]), columns, 9.0, at, out)
stats = closer_pairs.stats
print(out.tobytes().hex(), sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def in_a_process(folder, script=LOOP, **environment):
    """Run in a process of its own, in an empty working directory; nothing is said on stderr."""
    folder.mkdir(exist_ok=True)
    there = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    there |= {"HOME": str(folder / "home"), **environment}
    there = {name: value for name, value in there.items() if value is not None}
    work = folder / "work"
    work.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=there, cwd=work, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert list(work.iterdir()) == []
    return done.stdout.split()


def kept(folder):
    return sorted(folder.glob(f"**/*{SUFFIX}"))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A directory in which one process has kept its code, and what that process printed."""
    folder = tmp_path_factory.mktemp("first")
    out = in_a_process(folder, NUMBA_CACHE_DIR=str(folder / "cache"))
    assert out[1:] == ["0", "1"] and len(kept(folder / "cache")) == 1
    return folder / "cache", out[0]


@pytest.fixture
def caches(first, tmp_path):
    """The same for each test."""
    shutil.copytree(first[0], tmp_path / "cache")
    return tmp_path / "cache", first[1]


def cut(content):
    return content[: len(content) // 2]


def one_bit(content):
    """Turned where it is machine code: unpickling would see nothing."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def another_pickle(content):
    """One that makes a file in the working directory when it is read."""
    return content[:57] + b"cbuiltins\nopen\n(S'ran'\nS'w'\ntR."


DAMAGE = {
    "cut": cut,
    "one bit": one_bit,
    "empty": lambda content: b"",
    "garbage": lambda content: os.urandom(5000),
    "head only": lambda content: content[:57],
    "longer": lambda content: content + b"\0",
    "another pickle": another_pickle,
}


def test_damaged_code_is_compiled_again_and_mended(caches, tmp_path):
    cache, bits = caches
    (file,) = kept(cache)
    assert in_a_process(tmp_path, NUMBA_CACHE_DIR=str(cache)) == [bits, "1", "0"]
    file.write_bytes(another_pickle(file.read_bytes()))
    assert in_a_process(tmp_path, NUMBA_CACHE_DIR=str(cache)) == [bits, "0", "1"]
    assert kept(cache) == [file]
    assert in_a_process(tmp_path, NUMBA_CACHE_DIR=str(cache)) == [bits, "1", "0"]


def test_the_other_pickle_would_have_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(another_pickle(bytes(57))[57:]).close()
    assert Path("ran").exists()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The only place for files of compiled code."""
    monkeypatch.setattr(_codefiles, "folders", lambda: iter([tmp_path / "code"]))
    return tmp_path / "code"


PAYLOAD = b"code" * 1000


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_no_damage_goes_unseen(folder, damage):
    assert _codefiles.read("f-1", b"key") is None
    assert _codefiles.write("f-1", b"key", PAYLOAD)
    assert _codefiles.read("f-1", b"key") == PAYLOAD
    (file,) = kept(folder)
    file.write_bytes(damage(file.read_bytes()))
    assert _codefiles.read("f-1", b"key") is None


def test_code_of_another_key_is_not_this_code(folder):
    _codefiles.write("f-1", b"key", PAYLOAD)
    (file,) = kept(folder)
    file.rename(file.with_name("f-2" + SUFFIX))
    assert _codefiles.read("f-2", b"key of 2") is None
    assert _codefiles.read("f-2", b"key") == PAYLOAD


@posix
def test_only_files_that_nobody_else_may_write_are_believed(folder):
    _codefiles.write("f-1", b"key", PAYLOAD)
    (file,) = kept(folder)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    for mode in (0o664, 0o646, 0o666):
        file.chmod(mode)
        assert _codefiles.read("f-1", b"key") is None
    file.chmod(0o600)
    assert _codefiles.read("f-1", b"key") == PAYLOAD
    if os.geteuid() == 0:
        os.chown(file, 12345, -1)
        assert _codefiles.read("f-1", b"key") is None
        os.chown(file, 0, -1)
    elsewhere = file.rename(file.with_name("elsewhere"))
    file.symlink_to(elsewhere)
    assert _codefiles.read("f-1", b"key") is None
    file.unlink()
    os.mkfifo(file)  # must not be waited for
    assert _codefiles.read("f-1", b"key") is None
    assert _codefiles.write("f-1", b"key", PAYLOAD)
    assert _codefiles.read("f-1", b"key") == PAYLOAD


@pytest.mark.parametrize("at", ["open", "write", "chmod", "replace"])
def test_a_full_disk_leaves_no_half_file(folder, monkeypatch, at):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    assert _codefiles.write("f-1", b"key", PAYLOAD)
    if at == "write":
        monkeypatch.setattr(_codefiles, "open", lambda *a: FullFile(a[0]), raising=False)
    else:
        monkeypatch.setattr("tempfile.mkstemp" if at == "open" else f"os.{at}", full)
    assert not _codefiles.write("f-1", b"key", b"newer")
    monkeypatch.undo()
    monkeypatch.setattr(_codefiles, "folders", lambda: iter([folder]))
    assert [path.name for path in folder.iterdir()] == ["f-1" + SUFFIX]
    assert _codefiles.read("f-1", b"key") == PAYLOAD


class FullFile:
    """A file on a disk that fills up after ten bytes."""

    def __init__(self, descriptor):
        self.descriptor = descriptor

    def __enter__(self):
        return self

    def __exit__(self, *error):
        os.close(self.descriptor)

    def write(self, content):
        os.write(self.descriptor, content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_what_is_outdated_or_unfinished_goes_in_time(folder):
    folder.mkdir()
    day = 86400
    ages = {
        "f-old": 31 * day,
        "f-young": 29 * day,
        "g-old": 31 * day,
        "f-1.x.tmp": 2 * day,
        "f-1.y.tmp": 60,
    }
    for name, age in ages.items():
        path = folder / (name + SUFFIX)
        path.touch()
        os.utime(path, (time.time() - age,) * 2)
    foreign = folder / "f-old.txt"
    foreign.touch()
    os.utime(foreign, (0, 0))
    _codefiles.write("f-1", b"key", PAYLOAD)
    left = {path.name.removesuffix(SUFFIX) for path in folder.iterdir()}
    assert left == {"f-1", "f-young", "g-old", "f-1.y.tmp", "f-old.txt"}


def test_where_files_may_lie(monkeypatch, tmp_path):
    def all_folders(**environment):
        for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        found = list(_codefiles.folders())
        assert all(path.is_absolute() for path in found)
        return [path for path in found if path != ROOT / "stemdisp" / "__pycache__"]

    monkeypatch.setattr(sys, "platform", "linux")
    (mine,) = all_folders(HOME=str(tmp_path))
    assert mine.parent == tmp_path / ".cache"
    assert all_folders(HOME=str(tmp_path), XDG_CACHE_HOME="") == [mine]
    assert all_folders(HOME=str(tmp_path), XDG_CACHE_HOME="here") == [mine]
    assert all_folders(HOME="", XDG_CACHE_HOME="", NUMBA_CACHE_DIR="nonsense") == []
    both = {"HOME": str(tmp_path), "XDG_CACHE_HOME": "/x"}
    assert all_folders(**both) == [Path("/x", mine.name)]
    assert all_folders(**both, NUMBA_CACHE_DIR="/y") == [Path("/y", mine.name)]


@pytest.mark.slow
def test_other_versions_and_settings_are_other_files(caches, tmp_path):
    cache, bits = caches
    seen = set(kept(cache))
    for changed in (
        "import numba; numba.__version__ = '0.0'\n" + LOOP,
        "from stemdisp import _compiled; _compiled._file_digest = lambda path: 'edited'\n" + LOOP,
    ):
        assert in_a_process(tmp_path, changed, NUMBA_CACHE_DIR=str(cache)) == [bits, "0", "1"]
        assert len(kept(cache)) == len(seen) + 1
        seen = set(kept(cache))
    there = {"NUMBA_CACHE_DIR": str(cache), "NUMBA_OPT": "0"}
    assert in_a_process(tmp_path, **there)[1:] == ["0", "1"]
    there = {"NUMBA_CACHE_DIR": str(cache), "NUMBA_NUM_THREADS": "1"}
    assert in_a_process(tmp_path, **there) == [bits, "1", "0"]


def test_a_helper_or_a_constant_that_changes_changes_the_file(monkeypatch):
    from stemdisp import _compiled, _kernels, _summed

    before = _compiled._source(_summed.summed_pairs.py_func)
    files = {Path(line.rpartition("=")[0]).name for line in before}
    assert {"_summed.py", "_kernels.py", "_compiled.py"} <= files
    assert "_pairs.py" not in files
    for module, name in ((_summed, "FAR"), (_kernels, "WIDE")):
        monkeypatch.setattr(module, name, 7)
        after = _compiled._source(_summed.summed_pairs.py_func)
        assert after != before, name
        before = after


def test_garbage_is_looked_for_again_after_compiling():
    from stemdisp import _compiled
    from stemdisp._pairs import closer_pairs

    assert closer_pairs._compiler.compile.__name__ == "compile_quickly"
    seen = []
    broken = _compiled._without_collecting(lambda: seen.append(gc.isenabled()) or 1 / 0)
    for collects in (True, False):
        try:
            (gc.enable if collects else gc.disable)()
            with pytest.raises(ZeroDivisionError):
                broken()
            assert gc.isenabled() is collects
        finally:
            gc.enable()
    assert seen == [False, False]


def test_vectors_are_part_of_what_is_compiled(monkeypatch):
    from stemdisp import _compiled, _conjugate, _vectors
    from stemdisp._pairs import closer_pairs

    before = _compiled._source(_conjugate.multiply_rows.py_func)
    assert any(Path(line.rpartition("=")[0]).name == "_vectors.py" for line in before)
    digest = _compiled._file_digest
    monkeypatch.setattr(
        _compiled, "_file_digest", lambda p: "edited" if p == _vectors.__file__ else digest(p)
    )
    assert _compiled._source(_conjugate.multiply_rows.py_func) != before
    lonely = _compiled._source(closer_pairs.py_func)
    assert not any(Path(line.rpartition("=")[0]).name == "_vectors.py" for line in lonely)


@pytest.mark.slow
def test_four_processes_that_begin_at_once(tmp_path):
    there = {
        **os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LOOP],
            env=there, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    said = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert {err for _, err in said} == {""} and len({out.split()[0] for out, _ in said}) == 1
    (file,) = kept(tmp_path / "cache")
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@posix
def test_where_no_file_can_be_written_it_still_computes(first, tmp_path):
    """Neither beside the package, nor in HOME, nor where a variable says."""
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    stray = "open('stray', 'w').write('x' * 100000)\n"
    with pytest.raises(AssertionError, match="Traceb"):
        in_a_process(tmp_path, full + stray)
    (tmp_path / "work" / "stray").unlink()
    for environment in (
        {"HOME": None, "XDG_CACHE_HOME": ""},
        {"NUMBA_CACHE_DIR": "/proc/nonsense", "XDG_CACHE_HOME": "/dev/null"},
    ):
        # a setting of its own, so that nothing is found that other tests kept beside the package
        there = {"NUMBA_NOTHING": str(tmp_path), **environment}
        assert in_a_process(tmp_path, full + LOOP, **there) == [first[1], "0", "1"]


@as_root
def test_code_that_somebody_else_left_is_not_run(caches, tmp_path):
    cache, bits = caches
    (file,) = kept(cache)
    file.parent.chmod(0o777)
    os.chown(file, 65534, 65534)
    assert in_a_process(tmp_path, NUMBA_CACHE_DIR=str(cache)) == [bits, "0", "1"]
    assert kept(cache) == [file] and file.stat().st_uid == 0
    assert in_a_process(tmp_path, NUMBA_CACHE_DIR=str(cache)) == [bits, "1", "0"]
