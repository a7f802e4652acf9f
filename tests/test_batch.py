"""Many fields: one directory each, one table of all, and nothing finished is ever lost."""

from __future__ import annotations

import gc
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import weakref
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import _fake_fields
import pandas as pd
import pytest
from _fake_fields import tree

import stemdisp
from stemdisp import _field_row, batch, tables
from stemdisp._provenance import settings_of
from stemdisp._publish import hold
from stemdisp.batch import run_fields
from stemdisp.cli import main
from stemdisp.config import Config, config_from_dict
from stemdisp.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = {"analysis": {"dose_series": False}}
needs_kill = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Put stand-ins for pipeline and report; return the list of the files they ran."""
    ran = []
    modules = _fake_fields.modules()

    def run(config, *, progress, executor=None):
        ran.append(Path(config.input.path[0]).name)
        return _fake_fields.run(config, progress=progress)

    modules["pipeline"].run = run
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, f"stemdisp.{name}", module)
        monkeypatch.setattr(stemdisp, name, module, raising=False)
    monkeypatch.chdir(tmp_path)
    return ran


@pytest.fixture
def data(tmp_path):
    """Three fields, their files' content being what is found in them."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, text in (("f1", "0.5"), ("f2", "0.25"), ("f10", "0.125")):
        (folder / f"{name}.emd").write_text(text)
    return folder


@pytest.fixture
def invoke(capsys, tmp_path):
    """Return a function that runs `stemdisp run` here: -> status, stdout, stderr."""
    (tmp_path / "a.toml").write_text("")

    def run(*args):
        with pytest.raises(SystemExit) as caught:
            main(["run", "a.toml", *map(str, args)])
        return caught.value.code, *capsys.readouterr()

    return run


def paths(data):
    return [str(path) for path in data.iterdir()]


def test_each_field_has_its_results_and_its_row(fake, data):
    table = run_fields(Config(), paths(data), "out")
    assert fake == ["f1.emd", "f2.emd", "f10.emd"]
    for name in ("f1", "f2", "f10"):
        assert (Path("out") / name / ".stemdisp").exists()
    written = pd.read_csv("out/fields.csv", keep_default_na=False, na_values=[""])
    assert list(written) == list(table) == list(tables.specs("fields"))
    assert table["field"].tolist() == written["field"].tolist() == ["f1", "f2", "f10"]
    assert written["delta1_A"].tolist() == [0.5, 0.25, 0.125]
    row = table.iloc[0]
    assert row["path"].endswith("f1.emd") and (row["status"], row["message"]) == ("done", "")
    assert row["delta1_err_A"] == 0.01 and row["delta0_A"] == 0.51
    assert (row["xi_planes"], row["xi_low_planes"]) == (2.0, 1.8)
    assert pd.isna(row["xi_high_planes"]) and pd.isna(row["N_disp"])
    assert (row["N_vac"], row["N_vac_low"], row["N_vac_high"]) == (5, 4.0, 7.0)
    assert row["N_difference"] == -1
    assert (row["bulk_offset_A"], row["bulk_offset_err_A"]) == (0.02, 0.001)
    assert (row["n_warnings"], row["warning_codes"]) == (2, "misfit;tilt-offset")
    assert row["pixel_size_A"] == pytest.approx(0.2)  # of 0.1 x 0.4
    assert row["stemdisp"] == stemdisp.__version__ and len(row["sha256"]) == 64


def test_the_planes_of_all_fields_are_those_of_each(fake, data):
    (data / "f3.emd").write_text("bad")
    run_fields(Config(), paths(data), "out")
    own = {name: pd.read_csv(f"out/{name}/planes.csv") for name in ("f1", "f2", "f10")}
    expected = pd.concat(own, names=["field"]).reset_index(level=0).reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.read_csv("out/planes.csv"), expected)
    assert len(expected) == 6


def test_the_planes_of_a_field_are_read_once(fake, data, monkeypatch):
    read, inner = [], _field_row._planes_of
    monkeypatch.setattr(_field_row, "_planes_of", lambda *a: read.append(a[0]) or inner(*a))
    run_fields(Config(), paths(data), "out")
    assert sorted(read) == ["f1", "f10", "f2"]  # and not after each later field again
    (data / "f2.emd").write_text("0.7")
    run_fields(Config(), paths(data), "out")
    planes = pd.read_csv("out/planes.csv").set_index("field")
    assert planes["delta_A"]["f2"].max() == pytest.approx(0.7)


def test_a_failure_is_entered_and_the_others_go_on(fake, data, invoke):
    (data / "f2.emd").write_text("bad")
    (data / "f0.emd").write_text("bug")
    status, out, err = invoke("--input", "data/*.emd", "--output", "out")
    assert status == 3 and len(err.splitlines()) == 1
    assert err.startswith("stemdisp: 2 of 4 fields failed, first f0: internal error: KeyError: 'k'")
    assert err.endswith(f"all are in {Path('out', 'fields.csv')}\n")
    lines = out.splitlines()
    assert lines[1] == (
        "2/4 f1: delta(1) = 0.500 ± 0.010 Å, xi = 2 planes (at least 1.8), N_vac = 5"
    )
    assert lines[2] == "3/4 f2: failed: data/f2.emd: too small (exit status 3)"
    table = pd.read_csv("out/fields.csv").set_index("field")
    assert table["status"].tolist() == ["failed", "done", "failed", "done"]
    assert table["message"]["f2"] == "data/f2.emd: too small (exit status 3)"
    assert table["message"]["f0"] == "internal error: KeyError: 'k' (exit status 1)"
    assert table["sha256"].notna().all() and pd.isna(table["delta1_A"]["f2"])
    assert not Path("out/f2").exists()


def test_all_done_is_status_0_and_quiet_is_quiet(fake, data, invoke):
    (Path("a.toml")).write_text('[input]\npath = "data/*.emd"\n')
    assert invoke("--quiet") == (0, "", "")
    assert len(pd.read_csv("results/a/fields.csv")) == 3
    status, out, err = invoke()
    assert (status, err) == (0, "") and out.count("(kept)") == 3
    assert out.endswith(f"Table: {Path('results', 'a', 'fields.csv')}\n")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--input", "data/*.tif"], "'data/*.tif' matches no file"),
        (["--input", "data/*.emd", "data/f1.emd"], "'data/f1.emd' is a file (a frame of one"),
    ],
)
def test_wrong_patterns_end_in_status_2(fake, data, invoke, args, words):
    status, out, err = invoke(*args, "--output", "out")
    assert (status, out) == (2, "") and words in err and len(err.splitlines()) == 1
    assert not Path("out").exists() and fake == []


def test_plain_paths_are_the_frames_of_one_series(fake, data, invoke):
    # the stand-in takes one file only: it was given both at once
    status, _, err = invoke("--input", "data/f1.emd", "data/f2.emd", "--output", "out")
    assert status == 1 and "ValueError" in err and not Path("out").exists()


def test_a_configuration_that_fails_everywhere_ends_the_batch_first(data, tmp_path):
    config = config_from_dict({"crystal": {"displaced": "La"}})
    with pytest.raises(ConfigError, match="La"):
        run_fields(config, paths(data), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_path_is_a_wrong_call():
    with pytest.raises(ValueError, match="at least one"):
        run_fields(Config(), [], "out")


def rename(monkeypatch):
    monkeypatch.setattr(_field_row, "__version__", "9.9")


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (lambda d, m: None, []),
        (lambda d, m: (d / "f2.emd").touch(), []),
        (lambda d, m: (d / "f2.emd").write_text("0.26"), ["f2.emd"]),
        (lambda d, m: (d / "f3.emd").write_text("0.3"), ["f3.emd"]),
        (lambda d, m: Path("out/f1/report.html").unlink(), ["f1.emd"]),
        (lambda d, m: Path("out/f1/summary.json").write_text("{"), ["f1.emd"]),
        (lambda d, m: Path("out/f1/planes.csv").write_text("N,old\n"), ["f1.emd"]),
        (lambda d, m: Path("out/fields.csv").unlink(), []),
        (lambda d, m: rename(m), ["f1.emd", "f2.emd", "f10.emd"]),
    ],
    ids="nothing time file new report summary planes table version".split(),
)
def test_only_what_is_not_current_is_run_again(fake, data, monkeypatch, change, again):
    run_fields(Config(), paths(data), "out")
    before = tree(Path("out"))
    del fake[:]
    change(data, monkeypatch)
    table = run_fields(Config(), paths(data), "out")
    assert fake == again
    assert (table["status"] == "done").all() and len(table) == len(list(data.iterdir()))
    assert (tree(Path("out")) == before) == ("f2.emd" not in again[:1] and "f3.emd" not in again)


def test_another_configuration_is_run_again(fake, data, tmp_path):
    curve = tmp_path / "curve.csv"
    curve.write_text("one")
    config = config_from_dict({"analysis": {"occupancy_calibration": str(curve)}})
    for settings, expected in ((Config(), 3), (config, 3), (config, 0)):
        del fake[:]
        run_fields(settings, paths(data), "out")
        assert len(fake) == expected
    # the same name, but another curve
    curve.write_text("two")
    del fake[:]
    run_fields(config, paths(data), "out")
    assert len(fake) == 3


def test_another_signal_of_the_same_file_is_run_again(fake, data):
    for name, expected in (("iDPC", 1), ("HAADF", 1), ("HAADF", 0)):
        del fake[:]
        run_fields(Config(), [f"{data / 'f1.emd'}::{name}"], "out")
        assert len(fake) == expected


def test_a_failed_field_is_tried_again_and_keeps_its_old_results_meanwhile(fake, data):
    run_fields(Config(), paths(data), "out")
    (data / "f2.emd").write_text("bad")
    for _ in range(2):
        del fake[:]
        table = run_fields(Config(), paths(data), "out").set_index("field")
        assert fake == ["f2.emd"] and table["status"]["f2"] == "failed"
        assert pd.isna(table["delta1_A"]["f2"])
        assert "f2" not in set(pd.read_csv("out/planes.csv")["field"])
        assert Path("out/f2/report.html").read_text() == "0.25"
    (data / "f2.emd").write_text("0.25")
    del fake[:]
    assert (run_fields(Config(), paths(data), "out")["status"] == "done").all()
    assert fake == []


def test_stopped_by_the_user(fake, data, invoke):
    (data / "f2.emd").write_text("stop")
    status, out, err = invoke("--input", "data/*.emd", "--output", "out")
    assert status == 130 and out.startswith("1/3 f1:") and "what is finished stays" in err
    assert pd.read_csv("out/fields.csv")["field"].tolist() == ["f1"]
    assert [p.name for p in Path("out").iterdir() if ".new-" in p.name] == []


def test_no_cell_is_a_formula(fake, tmp_path):
    (tmp_path / "=1+1.emd").write_text("0.5")
    (tmp_path / "-x.emd").write_text("bad")
    run_fields(Config(), ["=1+1.emd", "-x.emd"], "out")
    text = Path("out/fields.csv").read_text()
    assert "x,'-x.emd,failed,'-x.emd: too small (exit status 3)," in text
    assert "\n_1_1,'=1+1.emd,done," in text
    for name in ("fields.csv", "planes.csv"):
        cells = pd.read_csv(f"out/{name}", dtype=str).select_dtypes(exclude="number").to_numpy()
        signs = [c for c in cells.ravel() if isinstance(c, str) and c.startswith(("=", "@", "+"))]
        assert signs == []


def test_the_output_of_something_else_is_left_alone(fake, data, invoke):
    one = ("--input", data / "f1.emd", "--output", "out")
    many = ("--input", "data/*.emd", "--output", "out")
    stemdisp.report.text_summary = lambda result: ""
    assert invoke(*one)[0] == 0
    before = tree(Path("out"))
    status, _, err = invoke(*many)
    assert status == 2 and "results of a single run" in err and tree(Path("out")) == before
    many = (*many[:-1], "all")
    assert invoke(*many)[0] == 0
    before = tree(Path("all"))
    status, _, err = invoke(*one[:-1], "all")
    assert status == 2 and "results of many fields" in err and tree(Path("all")) == before
    Path("mine").mkdir()
    Path("mine/planes.csv").write_text("mine")
    status, _, err = invoke(*many[:-1], "mine")
    assert status == 2 and "'planes.csv', which stemdisp did not write" in err
    assert tree(Path("mine")) == {"planes.csv": b"mine"}


def test_two_batches_on_one_output(fake, data):
    with hold("out"), pytest.raises(ConfigError, match="another run"):
        run_fields(Config(), paths(data), "out")
    run_fields(Config(), paths(data), "out")


class Backwards(Executor):
    """Runs three calls in another order, some of them not at all."""

    def __init__(self, lost: str = "") -> None:
        self.calls, self.lost = [], lost

    def submit(self, function, /, *args, **kwargs):
        pickle.loads(pickle.dumps((function, args, kwargs)))
        future = Future()
        self.calls.append((future, function, args))
        if len(self.calls) == 3:
            self.finish()
        return future

    def finish(self):
        for future, function, args in reversed(self.calls):
            if self.lost and self.lost in args[0].input.path[0]:
                future.set_exception(ConnectionError("worker\nlost"))
            else:
                future.set_result(function(*args))


def test_the_order_in_which_fields_end_changes_nothing(fake, data):
    run_fields(Config(), paths(data), "here")
    told = []
    run_fields(Config(), paths(data), "there", executor=Backwards(), tell=told.append)
    assert fake[3:] != fake[:3]  # the order was another one
    assert tree(Path("here")) == tree(Path("there"))
    assert [line[:4] for line in told] == ["1/3 ", "2/3 ", "3/3 "]
    with ThreadPoolExecutor(2) as pool:
        run_fields(Config(), paths(data), "threads", executor=pool)
    assert tree(Path("here")) == tree(Path("threads"))


def test_a_lost_worker_is_a_failure_of_its_field_only(fake, data):
    table = run_fields(Config(), paths(data), "out", executor=Backwards("f2")).set_index("field")
    assert table["status"].to_dict() == {"f1": "done", "f2": "failed", "f10": "done"}
    assert table["message"]["f2"] == "a file: worker lost (exit status 3)"


def test_nothing_is_kept_of_a_field_but_its_row(fake, data, monkeypatch):
    class Big:
        def __init__(self, config):
            self.config, self.delta = config, 0.5

    seen, alive = [], []

    def run(config, *, progress, executor=None):
        gc.collect()
        alive.append(sum(ref() is not None for ref in seen))
        result = Big(config)
        seen.append(weakref.ref(result))
        return result

    monkeypatch.setattr(stemdisp.pipeline, "run", run)
    table = run_fields(Config(), paths(data), "out")
    gc.collect()
    assert alive == [0, 0, 0] and len(table) == 3
    assert [ref() for ref in seen] == [None] * 3


KILLED = textwrap.dedent(
    """
    # Kill a batch at every system call that changes a file, go on, and compare.
    import os, pathlib, shutil, signal, sys
    sys.path.insert(0, {tests!r})
    import _fake_fields
    _fake_fields.install()
    from stemdisp.batch import run_fields
    from stemdisp.config import Config

    names = ("mkdir", "rename", "replace", "fsync", "unlink", "rmdir")
    real = {{name: getattr(os, name) for name in names}}
    paths = sys.argv[1:3]
    run_fields(Config(), paths, "whole")
    expected = _fake_fields.tree(pathlib.Path("whole"))
    point = kills = 0
    while True:
        point += {step}
        shutil.rmtree("out", ignore_errors=True)
        child = os.fork()
        if child == 0:
            left = point

            def counted(function):
                def call(*args, **kwargs):
                    global left
                    left -= 1
                    if left == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return function(*args, **kwargs)
                return call

            for name in names:
                setattr(os, name, counted(real[name]))
            run_fields(Config(), paths, "out")
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, -signal.SIGKILL), status
        out = pathlib.Path("out")
        if (out / "fields.csv").exists():  # right for what is finished
            shown = (out / "fields.csv").read_text().splitlines()
            whole = expected["fields.csv"].decode().splitlines()
            assert shown == whole[:len(shown)], (point, shown)
        ran = []
        again = _fake_fields.run
        finished = {{p.name for p in out.glob("*/.stemdisp")}} and {{
            p.parent.name for p in out.glob("[!.]*/.stemdisp")}}

        def run(config, *, progress, executor=None):
            ran.append(pathlib.Path(config.input.path[0]).stem)
            return again(config)

        sys.modules["stemdisp.pipeline"].run = run
        run_fields(Config(), paths, "out")
        sys.modules["stemdisp.pipeline"].run = again
        assert not finished & set(ran), (point, finished, ran)
        assert _fake_fields.tree(out) == expected, point
        strays = [p.name for p in out.iterdir() if ".new-" in p.name or ".old-" in p.name]
        assert strays == [], (point, strays)
        if status == 0:
            break
        kills += 1
    print(kills)
    """
)


@needs_kill
@pytest.mark.parametrize(("step", "kills"), [(11, 3), pytest.param(1, 40, marks=pytest.mark.slow)])
def test_killed_anywhere_nothing_finished_is_lost(data, step, kills):
    script = KILLED.format(tests=str(ROOT / "tests"), step=step)
    command = [sys.executable, "-c", script, *(str(data / f"f{n}.emd") for n in (1, 2))]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=data, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= kills


def test_half_a_replacement_of_a_finished_field_is_undone(fake, data):
    run_fields(Config(), paths(data), "out")
    before = tree(Path("out"))
    del fake[:]
    Path("out/.f1.new-" + "0" * 32).mkdir()
    Path("out/f2").rename("out/.f2.old-stemdisp")  # killed between two renames
    run_fields(Config(), paths(data), "out")
    assert fake == [] and tree(Path("out")) == before
    assert [p.name for p in Path("out").iterdir() if ".new-" in p.name or ".old-" in p.name] == []


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def no_figures() -> None:
    """Leave the figures out, which take most of a small run's time."""
    from stemdisp.report import figures

    figures.draw_figures = lambda result, directory, *, progress=False: []


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Three small images, and what an uninterrupted batch makes of them."""
    from stemdisp.simulate import simulate_stack

    folder = tmp_path_factory.mktemp("real")
    for k, preset in enumerate(("lao-kto-111", "bulk", "bulk")):
        stack, _ = simulate_stack(preset, seed=k, size=160, n_frames=1, dose_e_per_A2=4000)
        stack.inav[0].save(str(folder / f"f{k}.hspy"))
    (folder / "a.toml").write_text("[analysis]\ndose_series = false\n")
    with pytest.MonkeyPatch.context() as patch:
        from stemdisp.report import figures

        patch.setattr(figures, "draw_figures", figures.draw_figures)
        no_figures()
        table = run_fields(config_from_dict(SETTINGS), sorted(folder.glob("*.hspy")), folder / "o")
        yield folder, table


def test_rows_hold_what_the_summary_and_the_planes_say(real):
    folder, table = real
    row, summary = table.iloc[0], json.loads((folder / "o" / "f0" / "summary.json").read_text())
    first = pd.read_csv(folder / "o" / "f0" / "planes.csv").iloc[0]
    assert row["delta1_A"] == first["delta_A"] and row["delta1_err_A"] == first["delta_err_A"]
    assert abs(row["delta1_A"] - 0.54) < 4 * row["delta1_err_A"]  # the truth
    assert row["sha256"] == summary["input"]["sha256"]
    assert row["delta0_A"] == summary["decay"]["delta0_A"]
    bounds = pytest.approx(
        [x or float("nan") for x in summary["decay"]["xi_ci_planes"]], nan_ok=True
    )
    assert [row["xi_low_planes"], row["xi_high_planes"]] == bounds
    assert row["n_warnings"] == len(summary["warnings"]) > 0
    assert summary["configuration"] == settings_of(config_from_dict(SETTINGS))
    assert summary["configuration"] != settings_of(Config())
    crystal = table.iloc[1]  # no interface: nothing is made up
    assert crystal[["delta1_A", "xi_planes", "N_vac", "plane1_occupancy"]].isna().all()
    assert crystal["status"] == "done"


def test_a_field_is_what_a_single_run_writes(real, monkeypatch):
    folder, _ = real
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as caught:
        main(["run", "a.toml", "--input", str(folder / "f0.hspy"), "--output", "one", "--quiet"])
    assert caught.value.code == 0
    assert tree(folder / "one") == tree(folder / "o" / "f0")


@pytest.mark.slow
def test_processes_give_the_same_bytes(real):
    folder, table = real
    spawn = get_context("spawn")
    files = sorted(folder.glob("*.hspy"))
    with ProcessPoolExecutor(2, mp_context=spawn, initializer=no_figures) as pool:
        pooled = run_fields(config_from_dict(SETTINGS), files, folder / "pool", executor=pool)
    pd.testing.assert_frame_equal(pooled, table)
    assert tree(folder / "pool") == tree(folder / "o")


@needs_kill
@pytest.mark.slow
def test_killed_in_earnest_and_continued_gives_the_same_bytes(real):
    folder, table = real
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r})\n"
        "from test_batch import no_figures; no_figures()\n"
        "from stemdisp.cli import main; main()"
    )
    command = [sys.executable, "-c", script, "run", "a.toml"]
    command += ["--input", f"{folder}/*.hspy", "--output", "again"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment()
    )
    with process:
        assert process.stdout.readline().startswith("1/3 f0: delta(1) = 0.5")
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    seen = pd.read_csv(folder / "again" / "fields.csv")
    assert 1 <= len(seen) < 3 and (seen["status"] == "done").all()
    told = []
    files = sorted(folder.glob("*.hspy"))
    again = run_fields(config_from_dict(SETTINGS), files, folder / "again", tell=told.append)
    pd.testing.assert_frame_equal(again, table)
    assert tree(folder / "again") == tree(folder / "o")
    assert told[0].endswith("(kept)") and not told[-1].endswith("(kept)")


@pytest.mark.skipif(sys.platform == "win32", reason="needs make")
@pytest.mark.parametrize(
    ("given", "got"),
    [("d/*.emd", ["d/*.emd"]), ("d/a.emd  d/b.emd", ["d/a.emd", "d/b.emd"]), ("", None)],
)
def test_make_hands_the_pattern_on(tmp_path, given, got):
    (tmp_path / "d").mkdir()
    for name in ("d/a.emd", "d/b.emd", "stamp"):
        (tmp_path / name).write_text("")
    program = tmp_path / "stemdisp"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    command = ["make", "-f", str(ROOT / "Makefile"), "pipeline", f"BIN={tmp_path}"]
    command += [f"SET_UP={tmp_path / 'stamp'}", f"INPUT={given}", "OUTPUT=o o"]
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (0, 0))
    # the tests may run under make themselves, which would speak of directories
    alone = {
        name: value for name, value in os.environ.items() if "MAKE" not in name and name != "MFLAGS"
    }
    options = {"check": True, "capture_output": True, "text": True, "env": alone}
    done = subprocess.run(command, cwd=tmp_path, **options)
    args = done.stdout.splitlines()
    wanted = [] if got is None else ["--input", *got]
    assert args == ["run", "pipelines/lao_kto_111.toml", *wanted, "--output", "o o"]


def test_a_batch_module_is_all_that_a_worker_needs():
    sent = pickle.loads(pickle.dumps((batch.analyse_field, config_from_dict(SETTINGS))))
    assert sent == (batch.analyse_field, config_from_dict(SETTINGS))
