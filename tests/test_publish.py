import ast
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from stemdisp import _publish
from stemdisp._publish import MARKER, publish, write_together
from stemdisp.errors import ConfigError

both_ways = pytest.mark.parametrize("use_exchange", [True, False])


def fill(folder, version, n=5):
    (folder / "figures").mkdir()
    for k in range(n):
        (folder / f"{k}.txt").write_text(version)
        (folder / "figures" / f"{k}.txt").write_text(version)


def versions(folder):
    """Return the set of texts in a tree and the number of its files."""
    files = [p for p in folder.rglob("*.txt")]
    return {p.read_text() for p in files}, len(files)


def strays(parent):
    return [p.name for p in parent.iterdir() if ".new-" in p.name or ".old-" in p.name]


def write(out, version, **options):
    with publish(out, **options) as folder:
        fill(folder, version)


@both_ways
def test_first_and_second_time(tmp_path, use_exchange):
    out = tmp_path / "results" / "run"
    for version in ("one", "two", "three"):
        write(out, version, use_exchange=use_exchange)
        assert versions(out) == ({version}, 10)
        assert strays(out.parent) == []


def test_an_empty_directory_may_be_filled(tmp_path):
    (tmp_path / "run").mkdir()
    write(tmp_path / "run", "one")
    assert versions(tmp_path / "run") == ({"one"}, 10)


@both_ways
def test_a_failure_leaves_the_old_results(tmp_path, use_exchange):
    out = tmp_path / "run"
    write(out, "one")
    for error in (RuntimeError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error), publish(out, use_exchange=use_exchange) as folder:
            fill(folder, "two", n=2)
            raise error
        assert versions(out) == ({"one"}, 10)
        assert strays(tmp_path) == []


def test_a_failure_without_old_results_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), publish(tmp_path / "run"):
        raise RuntimeError
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["thesis.txt", "figures/photo.jpg", ".hidden"])
def test_a_directory_with_foreign_files_is_never_replaced(tmp_path, content):
    foreign = tmp_path / "home" / content
    foreign.parent.mkdir(parents=True)
    foreign.write_text("precious")
    with pytest.raises(ConfigError, match="which stemdisp did not write"), publish(foreign.parent):
        pytest.fail("must be refused before the run begins")
    assert foreign.read_text() == "precious"


def test_a_file_put_into_the_results_is_never_lost(tmp_path):
    out = tmp_path / "run"
    write(out, "one")
    (out / "notes.md").write_text("precious")
    with pytest.raises(ConfigError, match=r"holds 'notes\.md'"):
        write(out, "two")
    assert (out / "notes.md").read_text() == "precious"
    (out / "notes.md").unlink()
    (out / ".DS_Store").touch()
    write(out, "two")
    assert versions(out) == ({"two"}, 10)


def test_a_file_put_there_during_the_run_is_not_lost(tmp_path):
    out = tmp_path / "run"
    write(out, "one")
    with pytest.raises(ConfigError, match=r"holds 'late\.txt'"), publish(out) as folder:
        fill(folder, "two")
        (out / "late.txt").write_text("precious")
    assert (out / "late.txt").read_text() == "precious"


def test_files_that_belong_together_are_all_old_or_all_new(tmp_path):
    one, two = tmp_path / "a.csv", tmp_path / "a.hspy"

    def write_pair(text, fail=None):
        def write_last(path):
            Path(path).write_text(text)
            if fail is not None:
                raise fail

        write_together({one: lambda path: Path(path).write_text(text), two: write_last})

    for text in ("old", "new"):
        write_pair(text)
        for error in (OSError(28, "No space left on device"), KeyboardInterrupt()):
            with pytest.raises(type(error)):
                write_pair("half", error)
        assert one.read_text() == two.read_text() == text
        assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "a.hspy"}


def test_what_a_killed_process_left_beside_a_file_goes_in_time(tmp_path):
    left = tmp_path / f".a.csv.new-{'0' * 32}.csv"
    others = [tmp_path / f".b.csv.new-{'0' * 32}.csv", tmp_path / ".a.csv.new-mine.csv"]
    for path in (left, *others):
        path.write_text("half")
        os.utime(path, (0, 0))
    young = tmp_path / f".a.csv.new-{'1' * 32}.csv"  # somebody may be writing it
    young.write_text("half")
    write_together({tmp_path / "a.csv": lambda path: Path(path).write_text("whole")})
    assert set(tmp_path.iterdir()) == {tmp_path / "a.csv", young, *others}


@both_ways
def test_an_output_that_vanishes_during_the_run_is_made_again(tmp_path, use_exchange):
    out = tmp_path / "run"
    write(out, "one")
    with publish(out, use_exchange=use_exchange) as folder:
        fill(folder, "two")
        shutil.rmtree(out)
    assert versions(out) == ({"two"}, 10) and strays(tmp_path) == []


@both_ways
def test_a_file_in_the_place_of_the_output_is_not_lost(tmp_path, use_exchange):
    out = tmp_path / "run"
    with (
        pytest.raises(ConfigError, match="is a file; name a directory"),
        publish(out, use_exchange=use_exchange) as folder,
    ):
        fill(folder, "two")
        out.write_text("precious")
    assert out.read_text() == "precious" and strays(tmp_path) == []


def test_a_parent_that_is_moved_takes_the_old_results_along(tmp_path):
    out = tmp_path / "results" / "run"
    write(out, "one")
    with pytest.raises(FileNotFoundError), publish(out) as folder:
        (folder / "early.txt").write_text("two")
        out.parent.rename(tmp_path / "moved")
        fill(folder, "two")
    assert versions(tmp_path / "moved" / "run") == ({"one"}, 10)
    assert not out.exists()
    write(tmp_path / "moved" / "run", "three")  # and what was unfinished goes with the next run
    assert versions(tmp_path / "moved" / "run") == ({"three"}, 10)
    assert strays(tmp_path / "moved") == []


def test_outputs_that_are_no_directories(tmp_path):
    (tmp_path / "file").touch()
    for out, message in [
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "below", "cannot be"),
        ("/", "root directory"),
    ]:
        with pytest.raises(ConfigError, match=message), publish(out):
            pytest.fail("must be refused")


def test_a_link_is_followed_not_replaced(tmp_path):
    write(tmp_path / "real", "one")
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    write(tmp_path / "link", "two")
    assert (tmp_path / "link").is_symlink()
    assert versions(tmp_path / "real") == ({"two"}, 10)


def test_two_runs_on_one_output(tmp_path):
    out = tmp_path / "run"
    with publish(out) as folder:
        fill(folder, "one")
        with pytest.raises(ConfigError, match="another run is writing"):
            write(out, "two")
    assert versions(out) == ({"one"}, 10)


def test_a_run_killed_between_two_renames_is_undone(tmp_path):
    out = tmp_path / "run"
    write(out, "one")
    out.rename(_publish._old(out))
    (tmp_path / f".run.new-{'0' * 32}").mkdir()
    with pytest.raises(RuntimeError), publish(out):
        assert versions(out) == ({"one"}, 10)
        raise RuntimeError
    assert versions(out) == ({"one"}, 10)
    assert strays(tmp_path) == []


def test_recovery_leaves_neighbours_alone(tmp_path):
    neighbour = tmp_path / ".run.new-ideas"
    neighbour.mkdir()
    write(tmp_path / "run", "one")
    assert neighbour.exists()


def test_the_marker_lists_the_files(tmp_path):
    write(tmp_path / "run", "one")
    listed = (tmp_path / "run" / MARKER).read_text().splitlines()
    assert "0.txt" in listed and "figures/4.txt" in listed and len(listed) == 10


CALLS = textwrap.dedent(
    """
    # Do something at every call by which publishing changes or opens files, before it and after it.
    import builtins, errno, fcntl, io, os, pathlib, shutil, signal, sys, tempfile
    sys.path.insert(0, {tests!r})
    from test_publish import strays, versions, write
    from stemdisp import _publish, _stopping
    from stemdisp.errors import explain

    what, use_exchange, step = sys.argv[1], sys.argv[2] == "True", int(sys.argv[3])
    FULL = "mkdir open write close fsync rename replace _exchange".split()
    names = ("mkdir rename replace fsync unlink rmdir open write chmod utime link symlink "
             "truncate ftruncate").split()
    left = 0
    seen = []

    def act(name):
        global left
        left -= 1
        seen.append(name)
        if what == "full":
            if left <= 0 and name in FULL:
                raise OSError(errno.ENOSPC, "No space left on device")
        elif left == 0:
            os.kill(os.getpid(), signal.SIGKILL if what == "kill" else signal.SIGTERM)

    def counted(function, name):
        def call(*args, **kwargs):
            act(name)
            result = function(*args, **kwargs)
            if what != "full":
                act("after " + name)
            return result
        return call

    def opening(function):
        def call(file, mode="r", *args, **kwargs):
            if not set(mode) & set("wax+"):
                return function(file, mode, *args, **kwargs)
            stream = counted(function, "open")(file, mode, *args, **kwargs)
            # nothing is written into a lock file, so there is nothing to fail when it is closed
            for name in () if str(file).endswith(".lock") else ("write", "close"):
                setattr(stream, name, counted(getattr(stream, name), name))
            return stream
        return call

    def child(out):
        for name in names:
            setattr(os, name, counted(getattr(os, name), name.replace("open", "os.open")))
        builtins.open = io.open = opening(open)
        fcntl.flock = counted(fcntl.flock, "flock")
        _publish._exchange = counted(_publish._exchange, "_exchange")
        status = 0
        try:
            with _stopping.listening():
                write(out, "two", use_exchange=use_exchange)
        except _stopping.Stopped as stop:
            status = stop.exit_status + 50 * (_stopping.left() == "the new results are in place")
        except Exception as err:
            text, status = explain(err)
            if not ("No space" in text or "disk is full" in text):
                status = 1
        os._exit(status)

    ends, all_calls, point = [], set(), 0
    while True:
        point += step
        with tempfile.TemporaryDirectory(dir=sys.argv[4]) as parent:
            out = pathlib.Path(parent, "run")
            write(out, "one")
            forked = os.fork()
            if not forked:
                left = point
                child(out)
            status = os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1])
            found = versions(out) if out.exists() else None
            old, new = ({{"one"}}, 10), ({{"two"}}, 10)
            if what != "kill":
                # where not even a way back can be written, the next run finds it
                gone = what == "full" and not use_exchange and found is None
                wanted = new if status in (0, 193) else old
                assert found == wanted or gone, (point, status, found)
                assert gone or strays(out.parent) == [], (point, strays(out.parent))
            elif use_exchange:
                assert found in (old, new), (point, found)
            try:
                with _publish.publish(out):
                    raise ZeroDivisionError
            except ZeroDivisionError:
                pass
            assert versions(out) in (old, new), point
            assert strays(out.parent) == [], (point, strays(out.parent))
            ends.append((status, versions(out) == new))
            if status == 0:
                break
    print(ends)
    """
)


def ends_of(what, use_exchange, step, folder):
    """Whatever was done at every call: how each child ended, and whether its results were new."""
    script = CALLS.format(tests=os.path.dirname(__file__))
    command = [sys.executable, "-c", script, what, str(use_exchange), str(step), str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout)


STATUS = {"kill": {-9}, "stop": {143, 193}, "full": {2, 3}}
each_call = pytest.mark.parametrize(
    ("step", "least"), [(17, 4), pytest.param(1, 60, marks=pytest.mark.slow)]
)


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and signals")
@each_call
@both_ways
@pytest.mark.parametrize("what", STATUS)
def test_at_every_call_the_results_are_old_or_new(tmp_path, what, use_exchange, step, least):
    *ends, (last, new) = ends_of(what, use_exchange, step, tmp_path)
    assert (last, new) == (0, True) and len(ends) >= least / (2 if what == "full" else 1)
    assert {status for status, _ in ends} <= STATUS[what]
    if step == 1 and what != "full":  # both sides of the replacement were reached
        assert {new for _, new in ends} == {False, True}
        at = [new for _, new in ends]
        assert at == sorted(at)
