"""Files are read by another process, which may do nothing else; whatever ends it is one line."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from stemdisp import _gate, _limits
from stemdisp.errors import DataError
from stemdisp.inspection import inspect
from stemdisp.load import load

ROOT = Path(__file__).resolve().parent.parent
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux")


def python(code, *arguments, **options):
    """Run code in a Python of its own, which knows stemdisp."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("env", {}),
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


def alive(pid):
    """Tell whether a process runs; one that ended and was not asked for its status does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@pytest.fixture
def packed(tmp_path):
    """A series of frames that have to be decoded."""
    frames = np.random.default_rng(1).normal(size=(4, 64, 48)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", frames, compression="zlib", photometric="minisblack")
    return tmp_path / "a.tif", frames


# What ends the reading process


@on_linux
@pytest.mark.parametrize("end", ["SIGSEGV", "SIGKILL", "SIGXCPU"])
def test_a_reader_that_dies_is_an_error_of_the_file_and_the_next_file_is_read(packed, end):
    path, frames = packed
    lazy = load(path, lazy=True)
    assert np.array_equal(lazy.data[1].compute(), frames[1])
    first = _gate._PROCESS.start()
    first.send_signal(signal.SIGSTOP)
    caught = []

    def read():
        try:
            lazy.data[2].compute(scheduler="synchronous")
        except DataError as error:
            caught.append(str(error))

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.2)
    assert thread.is_alive()  # it waits for the stopped process
    first.send_signal(getattr(signal, end))
    first.send_signal(signal.SIGCONT)
    thread.join(20)
    (text,) = caught
    assert text.startswith(f"{path}: cannot be read") and "copy or export it again" in text
    assert ("crashed: SIGSEGV" if end == "SIGSEGV" else "too long or too much memory") in text
    assert np.array_equal(lazy.data[2].compute(), frames[2])
    assert _gate._PROCESS.start().pid != first.pid


def test_an_interrupted_read_does_not_spoil_the_next(packed, monkeypatch):
    path, frames = packed

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(_gate.Answer, "array", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load(path)
    assert np.array_equal(load(path).data, frames)


def test_more_memory_than_there_is_is_said(packed, monkeypatch):
    path, frames = packed

    def full(*arguments):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(_gate.Answer, "array", full)
        with pytest.raises(DataError, match=r"a\.tif: needs more memory than there is; crop it"):
            load(path)
    assert np.array_equal(load(path).data, frames)


@on_linux
def test_it_ends_with_the_process_that_asks(packed):
    path, _ = packed
    code = """
        import os, signal, sys
        from stemdisp import _gate
        _gate.read_file(sys.argv[1])
        print(_gate._PROCESS.start().pid, flush=True)
        if sys.argv[2] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
    """
    for way in ("ended", "killed"):
        done = python(code, path, way)
        assert done.stderr == ""
        pid = int(done.stdout)
        until = time.monotonic() + 10
        while alive(pid) and time.monotonic() < until:
            time.sleep(0.05)
        assert not alive(pid)


@on_linux
def test_it_does_not_hear_ctrl_c(packed):
    path, frames = packed
    load(path)
    reader = _gate._PROCESS.start()
    pid = reader.pid  # before: a new one must not pass for it
    reader.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert np.array_equal(load(path).data, frames)
    assert _gate._PROCESS.start().pid == pid


@on_linux
def test_a_forked_process_gets_a_reader_of_its_own(packed):
    path, _ = packed
    code = """
        import os, sys
        from stemdisp import _gate
        values = lambda: _gate.read_file(sys.argv[1]).signals[0].data.sum()
        expected, pid = values(), _gate._PROCESS.start().pid
        child = os.fork()
        if child == 0:
            os._exit(0 if values() == expected and _gate._PROCESS.start().pid != pid else 1)
        same = all(values() == expected for _ in range(20))
        assert os.waitpid(child, 0)[1] == 0 and same and _gate._PROCESS.start().pid == pid
    """
    done = python(code, path)
    assert (done.returncode, done.stderr) == (0, "")


def test_threads_get_their_own_frames(packed):
    path, frames = packed
    lazy = load(path, lazy=True)
    wrong = []

    def read(k):
        for _ in range(10):
            if not np.array_equal(lazy.data[k].compute(scheduler="synchronous"), frames[k]):
                wrong.append(k)

    threads = [threading.Thread(target=read, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_file_that_changes_while_it_is_read_is_named(packed):
    path, frames = packed
    lazy = load(path, lazy=True)
    tifffile.imwrite(path, frames[:2], photometric="minisblack")
    with pytest.raises(DataError, match=r"a\.tif: was changed while it was read; run again"):
        lazy.data[3].compute()


def test_relative_paths_follow_the_directory_of_the_process_that_asks(packed, monkeypatch):
    path, frames = packed
    load(path)
    other = path.parent / "other"
    other.mkdir()
    np.save(other / "b.npy", 2 * frames)
    monkeypatch.chdir(path.parent)
    lazy = load(path.name, lazy=True)
    monkeypatch.chdir(other)
    assert np.array_equal(load("b.npy").data, 2 * frames)
    assert np.array_equal(lazy.data[3].compute(), frames[3])
    with pytest.raises(DataError, match=r"^a\.tif: no such file"):
        load(path.name)


def test_programs_beside_the_data_are_not_run(packed, tmp_path):
    path, _ = packed
    marker = tmp_path / "ran"
    for name in ("h5py", "numpy", "rsciio", "sitecustomize", "stemdisp"):
        (tmp_path / f"{name}.py").write_text(f"open({str(marker)!r}, 'w')\n")
    code = """
        import sys
        sys.path[:] = [path for path in sys.path if path]
        from stemdisp import _gate
        print(len(_gate.read_file(sys.argv[1]).signals))
    """
    done = python(code, path, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("1\n", "")
    assert not marker.exists()
    # the current directory is searched where it stands in the search path: the test can fail
    (tmp_path / "stemdisp.py").unlink()
    python("import sys; sys.path.insert(0, ''); import h5py", cwd=tmp_path)
    assert marker.exists()


# What it may do


@on_linux
def test_limits_of_time_and_memory():
    endless = """
        from stemdisp import _limits
        _limits.LEAST_CPU_S = 0.5
        _limits.allow(0)
        while True:
            pass
    """
    assert python(endless).returncode == -signal.SIGXCPU
    greedy = """
        import numpy as np
        from stemdisp import _limits
        _limits.GIB = 2**26
        _limits.allow(2**26)
        np.ones(3 * 2**26, np.uint8)
        print("enough")
        np.ones(5 * 2**26, np.uint8)
    """
    done = python(greedy)
    assert done.stdout == "enough\n" and "Unable to allocate 320. MiB" in done.stderr


DEEDS = {
    "another file": "open(other).read()",
    "another file by os": "os.open(other, os.O_RDONLY)",
    "writing": "open(own, 'a')",
    "a new file": "open(other + '2', 'w')",
    "a shell": "os.system('touch ' + other + '2')",
    "a program": "subprocess.run(['touch', other + '2'])",
    "a removal": "os.remove(other)",
    "a new name": "os.rename(other, other + '2')",
    "a network": "socket.create_connection(('127.0.0.1', 9))",
    "a pickle": "pickle.loads(b'cos\\nsystem\\n(S\"true\"\\ntR.')",
    "code in text": "eval('1 + 1')",
    "an import of sympy": "import sympy",
    "an import of HyperSpy": "import hyperspy.api",
}


@pytest.mark.parametrize("deed", DEEDS)
def test_nothing_but_reading(tmp_path, deed):
    (tmp_path / "own").write_text("own")
    (tmp_path / "other").write_text("other")
    code = """
        import os, pickle, socket, subprocess, sys
        from stemdisp._limits import Watch
        own, other, deed, watched = sys.argv[1:]
        watch = Watch()
        watch.file = os.path.realpath(own)
        deed = compile(deed, "deed.py", "exec")
        if watched == "yes":
            watch.begin()
        try:
            assert open(own).read() == "own"
            exec(deed)
        except (OSError, ImportError) as error:
            sys.stdout.write(type(error).__name__)
        sys.stdout.write(f" {len(watch.refused)}")
    """
    where = (tmp_path / "own", tmp_path / "other", DEEDS[deed])
    assert python(code, *where, "yes").stdout == "PermissionError 1"
    assert (tmp_path / "other").read_text() == "other" and not (tmp_path / "other2").exists()
    if deed != "a network":
        assert python(code, *where, "no").stdout == " 0"  # nothing else refuses it


def test_what_a_reader_swallows_is_refused_all_the_same(tmp_path):
    """A reader that tries something and goes on when it fails."""
    code = """
        import sys
        from stemdisp import _read
        from stemdisp._limits import Watch
        from stemdisp._reader import Reader
        call = _read._call_reader

        def curious(name, path, **options):
            try:
                open("/etc/hostname" if sys.argv[2] == "yes" else path).close()
            except OSError:
                pass
            return call(name, path, **options)

        _read._call_reader = curious
        watch = Watch()
        watch.begin()
        asked = {"path": sys.argv[1], "lazy": False, "n_bytes": 0, "max_bytes": 10**9, "stamp": [],
                 "directory": "/"}
        sys.stdout.write(Reader(watch).answer(asked)[0].get("error", "fine"))
    """
    np.save(tmp_path / "a.npy", np.ones((32, 32)))
    said = python(code, tmp_path / "a.npy", "yes").stdout
    assert "a.npy: reading it would open '/etc/hostname', which no image needs" in said
    assert python(code, tmp_path / "a.npy", "no").stdout == "fine"


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not there")
@pytest.mark.slow
def test_no_file_is_opened_but_the_one_that_is_named(write_hspy, image, tmp_path):
    """Compiled libraries, too: seen by the system itself."""
    path = write_hspy("a.hspy", image)
    (tmp_path / "b.hspy").write_bytes(path.read_bytes())
    log = tmp_path / "log"
    command = "from stemdisp.cli import main; main()"
    strace = ["strace", "-f", "-e", "trace=open,openat,creat,execve"]
    subprocess.run(
        [*strace, "-o", log, sys.executable, "-c", command, "inspect", path],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
    )
    mine = [line for line in log.read_text().splitlines() if str(tmp_path) in line]
    assert any("a.hspy" in line for line in mine)
    assert not [line for line in mine if "execve" not in line and "a.hspy" not in line]


# Pieces that were never written


def test_pieces_that_were_never_written_are_counted(write_hspy, image, recwarn):
    frames = np.stack([image] * 4)
    path = write_hspy("a.hspy", frames)
    assert not load(path).metadata.has_item("stemdisp.pieces_missing")
    assert "incomplete" not in inspect(path)
    with h5py.File(path, "a") as file:
        group = next(iter(file["Experiments"].values()))
        del group["data"]
        data = group.create_dataset("data", frames.shape, "f4", chunks=(1, *image.shape))
        data[:3] = frames[:3]
    signal = load(path)
    assert signal.metadata.stemdisp.pieces_missing == [f"{path}: 1 of 4 pieces"]
    assert "incomplete: 1 of the 4 pieces of its images were never written" in inspect(path)


def test_the_private_memory_of_this_process_is_known():
    if sys.platform.startswith("linux"):
        before = _limits._private_bytes()
        block = np.ones(2**26, np.uint8)
        assert _limits._private_bytes() - before > 0.9 * block.size
