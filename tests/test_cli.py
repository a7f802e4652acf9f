import contextlib
import os
import signal
import subprocess
import sys
import time
import tomllib
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import stemdisp
from stemdisp.cli import main
from stemdisp.config import Config, config_from_dict, describe
from stemdisp.errors import DataError

ROOT = Path(__file__).resolve().parent.parent
RUN_MAIN = "from stemdisp.cli import main; main()"


def call(*args, **variables):
    """Run the command line in a process of its own, with variables of the environment."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-c", RUN_MAIN, *map(str, args)]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


@pytest.fixture
def invoke(capsys):
    """Return a function that runs the command line here: -> status, stdout, stderr."""

    def run(*args):
        with pytest.raises(SystemExit) as caught:
            main([str(arg) for arg in args])
        captured = capsys.readouterr()
        return caught.value.code, captured.out, captured.err

    return run


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("[analysis]\nseed = 3\n")
    return path


@pytest.fixture
def stubs(monkeypatch):
    """Replace the pipeline and the report by stand-ins that record what they were given."""
    seen = types.SimpleNamespace(config=None, progress=None, error=None)
    pipeline, report = types.ModuleType("pipeline"), types.ModuleType("report")

    def run(config, *, progress, executor=None):
        seen.config, seen.progress = config, progress
        if seen.error is not None:
            raise seen.error
        return "result"

    def write(result, directory, *, progress):
        (Path(directory) / "report.html").write_text(result)

    pipeline.run, report.write, report.text_summary = run, write, lambda result: f"about {result}"
    for name, module in (("pipeline", pipeline), ("report", report)):
        monkeypatch.setitem(sys.modules, f"stemdisp.{name}", module)
        monkeypatch.setattr(stemdisp, name, module, raising=False)
    return seen


def test_run_writes_the_results_and_says_where(invoke, stubs, config, tmp_path):
    status, out, err = invoke("run", config, "--output", tmp_path / "out")
    assert (status, err) == (0, "")
    assert out == f"about result\nReport: {tmp_path / 'out' / 'report.html'}\n"
    assert (tmp_path / "out" / "report.html").read_text() == "result"
    assert stubs.config.analysis.seed == 3 and stubs.progress is True


def test_quiet(invoke, stubs, config, tmp_path):
    assert invoke("run", config, "--output", tmp_path / "out", "--quiet") == (0, "", "")
    assert stubs.progress is False


def test_the_default_output_is_named_after_the_configuration(
    invoke, stubs, config, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert invoke("run", config)[0] == 0
    assert (tmp_path / "results" / "a" / "report.html").exists()


@pytest.mark.parametrize(
    ("args", "paths"),
    [
        (["CONFIG", "--input", "a", "b c", "d"], ("a", "b c", "d")),
        (["CONFIG", "--input", "a", "--input", "b", "--quiet"], ("a", "b")),
        (["--input", "a", "b", "CONFIG"], ("a", "b")),
        (["--input=a", "CONFIG"], ("a",)),
        (["CONFIG"], ("sample_data/lao_kto_111.hspy",)),
    ],
)
def test_input_takes_one_or_several_paths(invoke, stubs, config, tmp_path, args, paths):
    args = [str(config) if arg == "CONFIG" else arg for arg in args]
    assert invoke("run", *args, "--output", tmp_path / "out")[0] == 0
    assert stubs.config.input.path == paths


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (DataError("a.tif: too\nsmall"), 3, "stemdisp: a.tif: too small"),
        (OSError(13, "Permission denied", "x.png"), 3, "x.png: Permission denied"),
        (
            OSError(28, "No space left on device", "x.png"),
            3,
            "(x.png: No space left on device); free",
        ),
        (KeyError("k"), 1, "internal error: KeyError: 'k'; run again with --debug"),
        (KeyboardInterrupt(), 130, "stopped; nothing was changed"),
    ],
)
def test_errors_end_in_one_line_and_leave_the_old_results(
    invoke, stubs, config, tmp_path, error, status, words
):
    out = tmp_path / "out"
    assert invoke("run", config, "--output", out)[0] == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    stubs.error = error
    found, stdout, stderr = invoke("run", config, "--output", out)
    assert found == status and stdout == ""
    assert words in stderr and "Traceback" not in stderr
    assert len(stderr.strip().splitlines()) == 1
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert "Traceback" in invoke("run", config, "--output", out, "--debug")[2]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["rnu"], "Did you mean 'run'?"),
        (["run"], "Missing argument 'CONFIG'"),
        (["run", "absent.toml"], "absent.toml: no such configuration file"),
        (["run", "absent.toml", "--input"], "--input names no file"),
        (["run", "absent.toml", "--outptu", "x"], "Did you mean '--output'?"),
        (["simulate", "a.tif"], "must end in .hspy"),
        (["simulate", "no/such/place/a.hspy"], "no such directory"),
        (["simulate", "a.hspy", "--size", "0"], "Invalid value for '--size'"),
        (["simulate", "a.hspy", "--dose", "-1"], "Invalid value for '--dose'"),
    ],
)
def test_a_wrong_command_line(invoke, tmp_path, monkeypatch, args, words):
    monkeypatch.chdir(tmp_path)
    status, out, err = invoke(*args)
    assert (status, out) == (2, "")
    assert err.startswith("stemdisp: ") and words in err and len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_configuration_is_refused_before_anything_heavy(tmp_path):
    (tmp_path / "a.toml").write_text("[input]\npth = 'x'\n")
    done = call("run", tmp_path / "a.toml", "--output", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.endswith("a.toml: [input] has no key 'pth'; did you mean 'path'?\n")
    assert not (tmp_path / "out").exists()


def test_help_is_light_and_lists_every_key():
    script = (
        "import sys\nfrom stemdisp.cli import main\n"
        "try:\n    main(['run', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'numpy', 'h5py', 'scipy', 'pandas', 'hyperspy', 'numba', 'matplotlib', 'dask'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT
    )
    for spec in describe():
        assert f"{spec.key} = " in done.stdout


def test_help_is_fast():
    times = []
    for _ in range(5):
        start = time.perf_counter()
        assert call("--help").returncode == 0
        times.append(time.perf_counter() - start)
    assert min(times) < 0.4


def test_the_printed_configuration_is_the_default_one(invoke):
    status, out, _ = invoke("config")
    assert status == 0
    assert config_from_dict(tomllib.loads(out)) == Config()
    for spec in describe():
        name = spec.key.partition(".")[2]
        assert f"\n{name} = " in out or f"\n# {name} = " in out, spec.key


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(invoke, shell):
    status, out, _ = invoke("completion", shell)
    assert status == 0
    assert "_STEMDISP_COMPLETE" in out


@pytest.mark.parametrize(
    ("words", "found"), [("stemdisp si", "simulate"), ("stemdisp run --sch", "--scheduler")]
)
def test_completion_completes(words, found):
    done = call(
        _STEMDISP_COMPLETE="bash_complete",
        COMP_WORDS=words,
        COMP_CWORD=str(len(words.split()) - 1),
    )
    assert done.stdout.split() == [f"plain,{found}"]


def test_version():
    assert call("--version").stdout == f"stemdisp, version {stemdisp.__version__}\n"


def test_inspect(tmp_path, invoke, image):
    np.save(tmp_path / "a.npy", image)
    status, out, err = invoke("inspect", tmp_path / "a.npy")
    assert (status, err) == (0, "") and "NumPy, 1 signal" in out
    status, out, err = invoke("inspect", tmp_path / "absent.npy")
    assert (status, out) == (3, "") and err.endswith("absent.npy: no such file; check the path\n")


@pytest.fixture
def fake_simulation(monkeypatch, image):
    """Replace the simulation by a stand-in; return the options that it was given."""
    from hyperspy.signals import Signal2D

    seen = {}

    def simulate_stack(preset, **options):
        seen.update(options, preset=preset)
        if preset == "unknown":
            raise ValueError("preset = 'unknown' is unknown; use one of: a, b")
        return Signal2D(np.stack([image, image + 1])), pd.DataFrame({"species": ["K"], "i": [0.0]})

    module = types.ModuleType("simulate")
    module.simulate_stack = simulate_stack
    monkeypatch.setitem(sys.modules, "stemdisp.simulate", module)
    return seen


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--thickness", 10), ("--thickness", "--multislice")),
        (("--tilt", 1, 2, "--phonons", 1), ("--tilt, --phonons", "--multislice")),
        (("--multislice", "--frames", 3), ("--frames", "not with")),
        (("--occupancy", "0.5,x"), ("--occupancy", "0.45,0.6")),
        (("--occupancy", "0.5,1.5"), ("--occupancy", "0 to 1")),
        (("--multislice", "--preset", "gold"), ("gold", "lao-kto-111")),
    ],
)
def test_options_that_do_not_go_together_are_named(invoke, tmp_path, options, words):
    status, _, err = invoke("simulate", tmp_path / "a.hspy", *options)
    assert status == 2 and all(word in err for word in words)
    assert list(tmp_path.iterdir()) == []


def test_multislice_without_abtem_says_what_to_install(invoke, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "abtem", None)
    status, _, err = invoke("simulate", tmp_path / "a.hspy", "--multislice")
    assert status == 2 and "pip install 'stemdisp[simulate]'" in err
    assert list(tmp_path.iterdir()) == []


def test_simulate_writes_the_stack_and_its_truth(invoke, tmp_path, fake_simulation):
    status, out, _ = invoke(
        "simulate", tmp_path / "a.b.hspy", "--seed", 5, "--frames", 2, "--dose", 100
    )
    assert status == 0 and "a.b.truth.csv" in out
    assert fake_simulation["seed"] == 5 and fake_simulation["n_frames"] == 2
    assert fake_simulation["dose_e_per_A2"] == 100.0 and "size" not in fake_simulation
    assert stemdisp.load(tmp_path / "a.b.hspy").data.shape == (2, 24, 32)
    assert pd.read_csv(tmp_path / "a.b.truth.csv").species.tolist() == ["K"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.b.hspy", "a.b.truth.csv"]


def test_simulate_that_fails_writes_nothing(invoke, tmp_path, fake_simulation):
    status, _, err = invoke("simulate", tmp_path / "a.hspy", "--preset", "unknown")
    assert status == 2 and "use one of: a, b" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGTERM")
def test_a_run_that_is_told_to_stop_cleans_up(tmp_path, config):
    script = (
        "import sys, time, types\n"
        "module = types.ModuleType('stemdisp.pipeline')\n"
        "def run(config, *, progress, executor=None):\n"
        "    sys.stdout.write('ready\\n'); sys.stdout.flush(); time.sleep(60)\n"
        "module.run = run\n"
        "sys.modules['stemdisp.pipeline'] = module\n"
        "sys.modules['stemdisp.report'] = types.ModuleType('stemdisp.report')\n" + RUN_MAIN
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, "run", str(config), "--output", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 143 and err == "stemdisp: stopped; nothing was changed\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".out.lock", "a.toml"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_where_nobody_reads_or_nothing_can_be_said_the_status_is_right():
    command = [sys.executable, "-m", "stemdisp"]
    options = {"cwd": ROOT, "stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as nobody, open("/dev/full", "w") as full:
        done = subprocess.run([*command, "config"], stdout=nobody, check=False, **options)
        assert (done.returncode, done.stderr) == (141, "")
        done = subprocess.run([*command, "config"], stdout=full, check=False, **options)
        assert done.returncode == 3 and "the disk is full; make room" in done.stderr
        done = subprocess.run(
            [*command, "inspect", "absent.npy"], check=False, **{**options, "stderr": full}
        )
        assert done.returncode == 3
    # no streams at all, as of some services
    script = "import os; [os.close(n) for n in (0, 1, 2)]\n"
    script += "os.execv({0!r}, [{0!r}, '-m', 'stemdisp', 'inspect', 'absent.npy'])"
    done = subprocess.run([sys.executable, "-c", script.format(sys.executable)], cwd=ROOT)
    assert done.returncode == 3


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
def test_a_signal_that_is_ignored_stays_ignored(name):
    """As of nohup, and of commands in the background of a script."""
    from stemdisp import _stopping

    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with _stopping.listening():
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_a_request_that_is_dropped_or_held_comes_again():
    from stemdisp import _stopping

    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGALRM)}
    with pytest.raises(_stopping.Stopped) as stop, _stopping.listening():
        with contextlib.suppress(_stopping.Stopped):  # as libraries do in destructors
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    assert stop.value.exit_status == 143
    done = []
    with pytest.raises(_stopping.Stopped), _stopping.listening():
        with _stopping.held():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(2 * _stopping._AGAIN_S)
            done.append("step")
        done.append("more")
    assert done == ["step"]
    with pytest.raises(_stopping.Stopped), _stopping.listening():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except _stopping.Stopped:
            raise ImportError("what compiled modules make of it") from None
    assert before == {n: signal.getsignal(n) for n in before}
