import os
import subprocess
import sys
import textwrap

import pytest

from stemdisp import _publish
from stemdisp._publish import MARKER, publish
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


CHILD = textwrap.dedent(
    """
    import os, pathlib, signal, sys
    sys.path.insert(0, {tests!r})
    from test_publish import write
    from stemdisp import _publish

    left = int(sys.argv[2])

    def counted(function):
        def call(*args, **kwargs):
            global left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return call

    for name in ("mkdir", "rename", "fsync", "unlink", "rmdir"):
        setattr(os, name, counted(getattr(os, name)))
    _publish._exchange = counted(_publish._exchange)
    write(sys.argv[1], "two", use_exchange=sys.argv[3] == "True")
    """
)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@both_ways
def test_killed_at_every_call(tmp_path, use_exchange):
    script = CHILD.format(tests=os.path.dirname(__file__))
    kills = 0
    for point in range(1, 200):
        out = tmp_path / str(point) / "run"
        write(out, "one")
        command = [sys.executable, "-c", script, str(out), str(point), str(use_exchange)]
        status = subprocess.run(command, check=False, capture_output=True).returncode
        seen = versions(out) if out.exists() else None
        if use_exchange:
            assert seen in (({"one"}, 10), ({"two"}, 10))
        with pytest.raises(RuntimeError), publish(out):
            raise RuntimeError
        assert versions(out) in (({"one"}, 10), ({"two"}, 10))
        assert strays(out.parent) == []
        if status == 0:
            break
        kills += 1
    assert status == 0 and kills > 20
