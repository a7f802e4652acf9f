"""Real runs that are told to stop, or killed, at random moments: old results or new ones."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from _fake_fields import tree

from stemdisp._publish import publish

ROOT = Path(__file__).resolve().parent.parent
MOMENTS = int(os.environ.get("STEMDISP_MOMENTS", "17"))  # of each signal; three signals: 51 in all
COMMAND = [sys.executable, "-m", "stemdisp"]
OLD = '[input]\npath = ["s.hspy"]\n[analysis]\nconfidence = 0.9\n'
NEW = '[input]\npath = ["s.hspy"]\n'
EARLY_S = 1.0  # before that Python may still be starting, and answers signals in its own way

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes"),
]


def start(folder, *arguments):
    """Begin a command in a session of its own, so that whatever it starts can be found."""
    (folder / "tmp").mkdir(exist_ok=True)
    there = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp")}
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=folder / "work", env=there, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
        # tests that run in the background of a shell ignore it, and so would the command
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def finish(folder, *arguments):
    process = start(folder, *arguments)
    _, err = process.communicate(timeout=500)
    assert (process.returncode, err) == (0, "")


def members(session):
    """Processes of a session that are not zombies."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(its) == session and state != "Z":
            found.append(stat.parent.name)
    return found


def nobody_left(session):
    """Wait a little: who reads from a pipe that was closed needs a moment to see it."""
    for _ in range(100):
        if not members(session):
            return True
        time.sleep(0.1)
    return False


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """Old and new results of one small stack, and how long a run takes."""
    folder = tmp_path_factory.mktemp("trees")
    (folder / "work").mkdir()
    size = ("--frames", 2, "--size", 224, "--seed", 1)
    finish(folder, "simulate", "s.hspy", *size)
    for name, text in (("old", OLD), ("new", NEW)):
        (folder / "work" / f"{name}.toml").write_text(text)
        begin = time.monotonic()
        finish(folder, "run", f"{name}.toml", "--output", folder / name)
        seconds = time.monotonic() - begin
    old, new = tree(folder / "old"), tree(folder / "new")
    assert old.keys() == new.keys() and old != new  # so that a mixture would be seen
    return folder, seconds


def check_output(out, trees):
    """The old files to the last byte, or the new ones; return which."""
    found = tree(out)
    if found == tree(trees / "old"):
        assert (out / "summary.json").read_bytes() == (trees / "old/summary.json").read_bytes()
        return "old"
    assert found == tree(trees / "new")
    return "new"


def check_manners(process, err, number, after):
    """The status says what happened, in one line or (before and after the work) in none."""
    assert process.returncode in (0, 128 + number, -number), err
    if process.returncode == 128 + number:
        assert err in (
            "stemdisp: stopped; nothing was changed\n",
            "stemdisp: stopped; the new results are in place\n",
        )
    elif not (number == signal.SIGINT and after < EARLY_S):
        assert err == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_at_any_moment_the_results_are_the_old_or_the_new_ones(trees, tmp_path, number):
    folder, seconds = trees
    shutil.copytree(folder / "work", tmp_path / "work")
    out = tmp_path / "results" / "run"
    shutil.copytree(folder / "old", out)
    moments = np.random.default_rng(int(number)).uniform(0, 1.02 * seconds, MOMENTS)
    seen = []
    for after in moments:
        process = start(tmp_path, "run", "new.toml", "--output", out)
        time.sleep(after)
        # from a terminal everybody gets it
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        _, err = process.communicate(timeout=100)
        assert nobody_left(process.pid)
        check_manners(process, err, number, after)
        seen.append((round(after, 2), process.returncode, check_output(out, folder)))
        sys.stdout.write(f"{number!r} {seen[-1]} {err}\n")  # shown by pytest -s
        sys.stdout.flush()
        strays = {p.name for p in out.parent.iterdir()} - {"run", ".run.lock"}
        if process.returncode == 128 + number:
            expected = "new" if "in place" in err else "old"
            assert (strays, seen[-1][2]) == (set(), expected)
            assert list((tmp_path / "tmp").iterdir()) == []
        with pytest.raises(ZeroDivisionError), publish(out):  # the next one begins
            raise ZeroDivisionError
        assert {p.name for p in out.parent.iterdir()} == {"run", ".run.lock"}
        if seen[-1][2] == "new":
            shutil.rmtree(out)
            shutil.copytree(folder / "old", out)
    stopped = [status for _, status, _ in seen if status not in (0, -number)]
    assert number == signal.SIGKILL or len(stopped) > MOMENTS / 2
    finish(tmp_path, "run", "new.toml", "--output", out)
    assert check_output(out, folder) == "new"
    assert {p.name for p in out.parent.iterdir()} == {"run", ".run.lock"}
    assert list((tmp_path / "tmp").iterdir()) == []
    names = {"s.hspy", "s.truth.csv", "old.toml", "new.toml"}
    assert {p.name for p in (tmp_path / "work").iterdir()} == names


def test_two_real_runs_on_one_output(trees, tmp_path):
    """Whoever comes second is told so, at once; the first one's results appear."""
    folder, _ = trees
    shutil.copytree(folder / "work", tmp_path / "work")
    out = tmp_path / "run"
    shutil.copytree(folder / "old", out)
    first = start(tmp_path, "run", "new.toml", "--output", out)
    while not list(tmp_path.glob(".run.new-*")):
        assert first.poll() is None
        time.sleep(0.05)
    second = start(tmp_path, "run", "old.toml", "--output", out)
    _, err = second.communicate(timeout=100)
    assert second.returncode == 2 and err.count("\n") == 1
    assert "another run is writing" in err and "wait for it or name another" in err
    assert first.poll() is None and check_output(out, folder) == "old"
    _, err = first.communicate(timeout=500)
    assert (first.returncode, err) == (0, "") and check_output(out, folder) == "new"
    assert {p.name for p in tmp_path.iterdir()} == {"run", ".run.lock", "work", "tmp"}


SMALL_DISK = """
mount -t tmpfs -o size=$1k none "$2" && cp -a "$3/." "$2" && cd "$4" && shift 4 || exit 99
"$@"; status=$?
ls -A "$OUT/.." > "$LIST"; cp -a "$OUT" "$COPY"
exit $status
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False).returncode != 0,
    reason="needs to mount",
)
@pytest.mark.parametrize("room_kb", [64, 1000, 3000, 6000, 9000])
def test_on_a_full_disk_the_old_results_stay(trees, tmp_path, room_kb):
    """A file system with room for the old results, and some more."""
    folder, _ = trees
    before, disk, copy = (tmp_path / name for name in ("before", "disk", "copy"))
    shutil.copytree(folder / "old", before / "run")
    disk.mkdir()
    (tmp_path / "tmp").mkdir()
    size = sum(-(-p.stat().st_size // 4096) * 4 + 4 for p in before.rglob("*"))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "tmp")}
    env |= {"OUT": str(disk / "run"), "LIST": str(tmp_path / "list"), "COPY": str(copy)}
    command = [*COMMAND, "run", "new.toml", "--quiet", "--output", str(disk / "run")]
    places = [str(size + room_kb), str(disk), str(before), str(folder / "work")]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", SMALL_DISK, "sh", *places, *command],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    left = (tmp_path / "list").read_text().split()
    assert left == [".run.lock", "run"]
    if room_kb >= 9000:  # control: there is room for both
        assert (done.returncode, done.stderr) == (0, "") and check_output(copy, folder) == "new"
        return
    assert done.returncode == 3 and done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr and "free some space" in done.stderr
    assert check_output(copy, folder) == "old"
