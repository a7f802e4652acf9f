"""The comparison with peers: its records, tables, figures and page; the adapters where they are."""

import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import accuracy, cli, contest, environments, page, pipelines, scene
from benchmarks import contest_tables as tables
from benchmarks.environments import PEERS, Unavailable
from benchmarks.figures import FILES, STYLE, draw_all
from benchmarks.store import Store

SIZE = 128
PLAN = contest.Plan(sizes=(128, 160, 192), limit_s=50.0)
IDPC = contest.TIMED


def made_up(factor=1.0, rate=1000.0, size=SIZE, kind=IDPC):
    """A record of a fit whose errors are `factor` bounds."""
    truth = scene.true_columns(size)
    bound = accuracy.bounds_of(truth, size, kind, "species")
    error = np.random.default_rng(size).normal(size=(len(truth), 2))
    error *= factor * bound[["x_err_A", "y_err_A"]].to_numpy() / scene.PIXEL_A
    found = truth[["x_px", "y_px"]].to_numpy() + error
    run = {"x_px": list(found[:, 0]), "y_px": [None, *found[1:, 1]], "seconds": len(truth) / rate}
    run |= {"before_mib": 100.0, "peak_mib": 130.0, "versions": {"thing": "1.2"}}
    return {"columns": len(truth)} | contest.judge(truth, [run], size=size, kind=kind)


@pytest.fixture(scope="module")
def fits():
    return {1.0: made_up(), 2.5: made_up(2.5, 10.0)}


@pytest.fixture
def store(tmp_path, fits):
    """What a run might leave: one peer slow, one stopped, one that cannot be installed."""
    kept = Store(tmp_path / "measured.json")
    for peer in PEERS:
        for kind in contest.KINDS:
            for size in PLAN.sizes:
                found = fits[1.0 if peer.name == "stemdisp" else 2.5]
                if peer.name == "singleorigin":
                    found = {"status": "failed", "reason": "installation: no such package"}
                elif peer.name == "atomap" and size > 128:
                    found = {"columns": 100, "expected_s": 960.0, "status": "not run"}
                elif peer.name == "photutils" and size > 128:
                    found = {"columns": 100, "status": "stopped", "after_s": 170.0}
                kept.put(contest.case_name(peer, kind, size, PLAN), found)
    kept.put("machine", "a machine")
    return kept


def test_errors_and_failures_are_scored_against_truth_and_bound(fits):
    for factor, found in fits.items():
        for score in found["scores"].values():
            assert score["ratio"] == pytest.approx(factor, rel=0.5)
        assert sum(s["failed"] for s in found["scores"].values()) == 1  # the one without a place
        assert abs(found["bias_pm"]) < 5 * found["bias_err_pm"]


def test_a_bias_towards_the_middle_of_the_cage_is_seen():
    truth = scene.true_columns(256)
    along = scene.direction()
    # [110] leans by 35.3 degrees from the normal [111], which points up
    assert along == pytest.approx([3**-0.5, -((2 / 3) ** 0.5)], abs=1e-6)
    fitted = truth.copy()
    fitted[["x_px", "y_px"]] -= 0.05 * along / scene.PIXEL_A
    bias, error = contest.near_bias(truth, [fitted])
    assert bias == pytest.approx(-0.05) and error == pytest.approx(0, abs=1e-9)
    across = np.array([-along[1], along[0]])
    fitted[["x_px", "y_px"]] = truth[["x_px", "y_px"]].to_numpy() + 0.4 * across
    assert contest.near_bias(truth, [fitted])[0] == pytest.approx(0, abs=1e-9)


def test_tables_say_what_ran_what_would_take_how_long_and_what_failed(store):
    text = tables.speed_table(PLAN, store)
    row = next(line for line in text.splitlines() if "atomap" in line and "iDPC" in line)
    assert row.count("not run (about 16 min)") == 2 and "10 (" in row
    assert text.count("stopped after 3 min") == 6 and "1,000 (" in text
    assert text.count("failed: installation: no such package") == 9
    assert "130 (30)" in tables.memory_table(PLAN, store)
    errors = tables.accuracy_table(PLAN, store, first=True)
    assert errors.count("| 128") == 15 and "160" not in errors
    assert tables.factors(PLAN, store)[0][1:] == (192, pytest.approx(100.0))
    assert {len(line.split("|")) for line in errors.splitlines()} == {13}


def test_the_page_shows_its_figures_and_every_part(store, tmp_path):
    store.put("start", [[pipelines.FIRST_FIT, 12.0], [pipelines.LATER_FIT, 0.3]])
    run = {"status": "done", "input_mib": 1.0, "report_mib": 2.0, "wall_s": 5.0, "cpu_s": 8.0}
    run |= {"peak_gib": 0.5, "stages_s": {"register": 1.0, "dose": 2.0, "load": 0.1}}
    whole = (pipelines.SAMPLE_RUN, pipelines.Whole("large", 1, 1024))
    store.put("run/the sample data", run)
    store.put("run/large", {"status": "failed", "reason": "no memory"})
    drawn = draw_all(PLAN, store, tmp_path / "images")
    path = page.write_page(tmp_path, PLAN, store, command="make bench", whole=whole)
    text = path.read_text(encoding="utf-8")
    for figure in drawn:
        assert f"](images/{figure.name})" in text and figure.stat().st_size > 5_000
    assert {p.name for p in drawn} == set(FILES.values())
    assert "failed: no memory" in text and "dose 2.0 s, register 1.0 s" in text
    assert "100 times scipy" in text and "nan" not in text
    goals = page.more_goals(PLAN, store)
    assert [row[-1] for row in goals] == ["**no**", "yes", "**no**"]
    assert set(STYLE) == {p.name for p in PEERS} and len(set(STYLE.values())) == len(PEERS)


def test_an_interrupted_run_goes_on_and_a_finished_one_begins_anew(monkeypatch, tmp_path):
    asked = []

    def fit_apart(peer, python, source, warm, limit_s):
        asked.append((peer.name, source.name))
        if len(asked) == 4:
            raise KeyboardInterrupt
        return {"status": "failed", "reason": "no reason"} if peer.name == "scipy" else run()

    def run():
        truth = scene.true_columns(SIZE)
        places = {"x_px": list(truth["x_px"] + 0.05), "y_px": list(truth["y_px"])}
        about = {"seconds": 0.1, "before_mib": 1.0, "peak_mib": 2.0, "versions": {}}
        return {"status": "done"} | places | about

    monkeypatch.setattr(contest, "fit_apart", fit_apart)
    monkeypatch.setattr(contest, "prepare", lambda peer, say: sys.executable)
    plan = contest.Plan(sizes=(SIZE,), peers=("stemdisp", "scipy"))
    path = tmp_path / "measured.json"
    with pytest.raises(KeyboardInterrupt):
        contest.compete(plan, Store(path))
    again = Store(path)
    contest.compete(plan, again)  # three were done; those of scipy fail, and all are there
    assert [name for name, _ in asked] == ["stemdisp"] * 3 + ["scipy"] * 4
    again.finish()
    assert Store(path).get("fit/scipy/idpc/128/1/120") is None
    kept = Store(path, resume=True)
    contest.compete(plan, kept)  # what failed is tried again, nothing else
    assert len(asked) == 7 + 3
    assert Store(path, fresh=True).span() == ("", "")


def test_what_takes_too_long_is_not_run_but_foretold(monkeypatch, tmp_path):
    asked = []

    def fit_apart(peer, python, source, warm, limit_s):
        truth = scene.true_columns(int(np.load(source)["image"].shape[0]))
        asked.append(len(truth))
        places = {"x_px": list(truth["x_px"] + 0.05), "y_px": list(truth["y_px"])}
        about = {"seconds": len(truth) / 2.0, "before_mib": 1.0, "peak_mib": 2.0, "versions": {}}
        return {"status": "done"} | places | about

    monkeypatch.setattr(contest, "fit_apart", fit_apart)
    monkeypatch.setattr(contest, "prepare", lambda peer, say: sys.executable)
    sizes = (128, 160, 256)
    limit = len(scene.true_columns(160)) / 2.0 + 1
    plan = contest.Plan(sizes=sizes, limit_s=limit, peers=("scipy",))
    kept = Store(tmp_path / "m.json")
    contest.compete(plan, kept)
    counts = [len(scene.true_columns(s)) for s in sizes]
    assert asked == [counts[0], counts[0], counts[0], counts[1]]  # iDPC alone goes further
    last = kept.get(contest.case_name(PEERS[1], IDPC, 256, plan))
    assert last["status"] == "not run" and last["expected_s"] == counts[2] / 2.0


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of processor time there")
def test_a_fit_that_takes_too_long_is_stopped(monkeypatch, tmp_path):
    (tmp_path / "slow.py").write_text("while True:\n    pass\n", encoding="ascii")
    monkeypatch.setattr(contest, "ADAPTERS", tmp_path)
    peer = environments.Peer("slow", "slow", "slow.py", "slow")
    python = environments.Path(sys.executable)
    found = contest.fit_apart(peer, python, tmp_path / "image.npz", tmp_path, limit_s=0.5)
    assert found["status"] == "stopped"
    broken = environments.Peer("broken", "broken", "absent.py", "broken")
    found = contest.fit_apart(broken, python, tmp_path / "image.npz", tmp_path, limit_s=30)
    assert found["status"] == "failed" and "absent.py" in found["reason"]


def test_a_peer_that_cannot_be_installed_is_reported_by_its_reason(monkeypatch, tmp_path):
    def run(command, **_):
        bad = "pip" in command
        text = "ERROR: No matching distribution found for it|self==1\n\n" if bad else ""
        return subprocess.CompletedProcess(command, int(bad), "", text)

    monkeypatch.setattr(environments.subprocess, "run", run)
    with pytest.raises(Unavailable, match=r"installation: ERROR: No matching .* it/self==1$"):
        environments.prepare(PEERS[1], folder=tmp_path / "env")
    assert not environments.is_ready(PEERS[1], folder=tmp_path / "env")
    assert environments.prepare(PEERS[0]) == environments.Path(sys.executable)


def test_every_package_of_a_peer_is_pinned():
    for peer in PEERS[1:]:
        lines = environments.requirements(peer).read_text(encoding="ascii").split()
        assert lines and all(line.count("==") == 1 for line in lines)
        assert any(line.startswith(f"{peer.package}==") for line in lines)


def test_options_choose_what_is_measured():
    usual = {"sizes": (512, 1024), "images": 1, "limit": 120.0, "peers": ("scipy",)}
    usual |= {"full": False, "quick": False}
    plan, _, _ = cli.plans(usual)
    small, large = (plan.wants(PEERS[1], contest.KINDS[0], s) for s in (512, 1024))
    assert small and not large and plan.wants(PEERS[0], contest.KINDS[0], 1024)
    full, _, _ = cli.plans(usual | {"full": True})
    assert full.wants(PEERS[1], contest.KINDS[0], 1024) and full.images == 3
    assert cli.command(usual) == 'make bench ARGS="--sizes 512,1024 --peers scipy"'
    done = CliRunner().invoke(cli.main, ["--peers", "atomp"])
    assert done.exit_code == 2 and "none of stemdisp, scipy, atomap" in done.output


@pytest.mark.slow
@pytest.mark.parametrize("peer", PEERS, ids=lambda p: p.name)
def test_an_adapter_fits_a_tiny_image(peer, tmp_path):
    if not environments.is_ready(peer):
        pytest.skip(f"make bench has made no environment for {peer.name} here")
    kind, size = contest.KINDS[0], contest.WARM_SIZE
    source = contest.write_scene(tmp_path / "image.npz", size, kind, 1)
    warm = contest.write_scene(tmp_path / "warm.npz", size, kind, 0)
    python = environments.python_of(peer)
    found = contest.fit_apart(peer, python, source, warm, limit_s=400)
    assert found["status"] == "done", found.get("reason")
    truth = scene.true_columns(size)
    done = contest.judge(truth, [found], size=size, kind=kind)
    # Even those who lose O in the tails of Ta find Ta and K, far better than they were told.
    for name in ("Ta", "K"):
        assert done["scores"][name]["failed"] == 0 and done["scores"][name]["rms_pm"] < 2.0
    assert found["peak_mib"] >= found["before_mib"] > 20 and found["seconds"] > 0
    assert json.dumps(found["versions"])


def test_adapters_need_nothing_of_stemdisp():
    others = [p.adapter for p in PEERS if p.package]
    code = f"import sys; sys.path.insert(0, {str(environments.ADAPTERS)!r}); import protocol; "
    code += "print('stemdisp' in sys.modules or 'pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    for name in others:
        assert "stemdisp" not in (environments.ADAPTERS / name).read_text(encoding="utf-8")


def test_the_time_of_a_quick_fit_is_not_a_multiple_of_the_clock_s_ticks():
    code = (
        f"import sys; sys.path.insert(0, {str(environments.ADAPTERS)!r}); import protocol, json; "
    )
    code += "print([protocol.typical(times) for times in json.load(sys.stdin)])"
    begin, tick, true = np.random.default_rng(0).uniform(0, 4, 50), 4.0, 57.3
    ticks = tick * (np.floor((begin + true) / tick) - np.floor(begin / tick))
    ticks[:2] += 100.0  # the first ones are slow
    cases = [list(ticks), [3.5], [2.0, 1.0], [9.0, 1.0, 2.0]]
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(cases), capture_output=True, text=True, check=True,
    )  # fmt: skip
    quick, *few = json.loads(done.stdout)
    assert (
        quick == pytest.approx(true, rel=0.015) and abs(np.median(ticks) - true) > 0.02 * true / 2
    )
    assert few == [3.5, 1.5, 2.0]
