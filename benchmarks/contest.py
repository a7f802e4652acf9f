"""stemdisp and its peers on the same images, each fit in a fresh process on one core."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import accuracy, scene
from benchmarks.environments import (
    ADAPTERS,
    PEERS,
    ROOT,
    Peer,
    Unavailable,
    last_error,
    prepare,
)
from benchmarks.store import Store

KINDS = (scene.KINDS[0], scene.KINDS[1], scene.KINDS[3])  # white, Poisson, iDPC
TIMED = scene.KINDS[3]  # the noise with which larger images are timed
WARM_SIZE = 192  # large enough for atomap, which wants nine neighbours
NEAR = 3  # planes in which the bias of the displaced columns is looked for
GRACE_S = 120.0  # import, first call, repeats
PATIENCE = 5  # wall-clock over processor time, on a machine with other work

STOPPED = -24  # how a process ends at its limit of processor time (SIGXCPU)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """Which images are fitted, and how long one fit may take (processor seconds)."""

    sizes: tuple[int, ...] = (512, 1024, 2048, 4096)
    images: int = 1
    limit_s: float = 120.0
    every_kind: bool = False  # at all sizes, and not at the first one only
    peers: tuple[str, ...] = tuple(p.name for p in PEERS)

    def wants(self, peer: Peer, kind: scene.Kind, size: int) -> bool:
        """Say whether this case is measured if there is time for it."""
        small = size == self.sizes[0]
        return small or self.every_kind or kind == TIMED or peer.name == "stemdisp"


def case_name(peer: Peer, kind: scene.Kind, size: int, plan: Plan) -> str:
    """Give the name of a record."""
    return f"fit/{peer.name}/{kind.noise}/{size}/{plan.images}/{plan.limit_s:g}"


def compete(plan: Plan, store: Store, say: Say = lambda _: None) -> None:
    """Measure all that the plan asks for; what fails is recorded with its reason."""
    for peer in (p for p in PEERS if p.name in plan.peers):
        try:
            python = prepare(peer, say=say)
        except Unavailable as error:
            python, reason = None, str(error)
        for kind in KINDS:
            rate = None
            for size in plan.sizes:
                name = case_name(peer, kind, size, plan)
                found = store.get(name)
                if found is None or found["status"] == "failed":
                    if python is None:
                        found = {"status": "failed", "reason": reason}
                    else:
                        say(f"{peer.name}: {kind.name}, {size} x {size}")
                        found = _try(peer, python, kind, size, plan, rate)
                    store.put(name, found)
                rate = found.get("rate", rate)


def _try(*case: object) -> dict:
    """Measure one case; whatever fails, the others are measured."""
    try:
        return _case(*case)
    except Exception as error:  # noqa: BLE001
        return {"status": "failed", "reason": last_error(f"{type(error).__name__}: {error}")}


def _case(
    peer: Peer, python: Path, kind: scene.Kind, size: int, plan: Plan, rate: float | None
) -> dict:
    """Fit the images of one case, unless the rate at the size before says it takes too long."""
    truth = scene.true_columns(size)
    about = {"columns": len(truth)}
    if rate is not None:
        about["expected_s"] = len(truth) / rate
        if not plan.wants(peer, kind, size) or about["expected_s"] > plan.limit_s:
            return about | {"status": "not run"}
    perfect = scene.perfect_image(truth, size)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        warm = write_scene(Path(folder, "warm.npz"), WARM_SIZE, kind, 0)
        for seed in range(plan.images):
            source = write_scene(Path(folder, "image.npz"), size, kind, seed, perfect=perfect)
            found = fit_apart(peer, python, source, warm, limit_s=plan.limit_s + GRACE_S)
            if found["status"] != "done":
                return about | found
            runs.append(found)
    return about | judge(truth, runs, size=size, kind=kind)


def write_scene(
    path: Path, size: int, kind: scene.Kind, seed: int, *, perfect: np.ndarray | None = None
) -> Path:
    """Write an image and its starts for the adapters."""
    truth = scene.true_columns(size)
    if perfect is None:
        perfect = scene.perfect_image(truth, size)
    start = scene.starts(truth, seed)
    np.savez(
        path,
        image=scene.add_noise(perfect, kind, seed).astype(np.float32),
        x_px=start["x_px"],
        y_px=start["y_px"],
        species=start["species"].to_numpy().astype("U2"),
        sigma_A=truth["sigma_A"],
        pixel_A=scene.PIXEL_A,
        background=scene.BACKGROUND,
        noise=kind.noise,
    )
    return path


def fit_apart(peer: Peer, python: Path, source: Path, warm: Path, *, limit_s: float) -> dict:
    """Run an adapter in a process of its own, with the threads and the core of this one."""
    target = source.with_suffix(".json")
    target.unlink(missing_ok=True)
    command = [str(python), str(ADAPTERS / peer.adapter), str(source), str(warm), str(target)]
    environment = os.environ | {"MPLBACKEND": "Agg", "QT_QPA_PLATFORM": "offscreen"}
    environment |= {"PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONPATH", None)
    if not peer.package:
        environment["PYTHONPATH"] = str(ROOT)
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=PATIENCE * limit_s,
            env=environment,
            preexec_fn=partial(limit_processor, limit_s) if os.name == "posix" else None,
        )
    except subprocess.TimeoutExpired:
        return {"status": "stopped", "after_s": limit_s}
    except OSError as error:
        return {"status": "failed", "reason": last_error(str(error))}
    if done.returncode == STOPPED:
        return {"status": "stopped", "after_s": limit_s}
    if done.returncode or not target.is_file():
        said = done.stdout + done.stderr
        if done.returncode < 0:
            said = f"ended by signal {-done.returncode} (too little memory?)"
        return {"status": "failed", "reason": last_error(said)}
    return {"status": "done"} | json.loads(target.read_text(encoding="utf-8"))


def limit_processor(seconds: float) -> None:
    """Have the system end this process after so much processor time."""
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (int(np.ceil(seconds)), int(np.ceil(seconds)) + 5))


def judge(truth: pd.DataFrame, runs: Sequence[dict], *, size: int, kind: scene.Kind) -> dict:
    """Hold fits against the truth and the bound; time and memory are those of the worst image."""
    fitted = [
        truth[["species"]].assign(
            x_px=np.array(r["x_px"], dtype=float), y_px=np.array(r["y_px"], dtype=float)
        )
        for r in runs
    ]
    bound = accuracy.bounds_of(truth, size, kind, "species")
    scores = accuracy.score(truth, fitted, bound)
    bias, error = near_bias(truth, fitted)
    seconds = float(np.median([r["seconds"] for r in runs]))
    most = max(runs, key=lambda r: r["peak_mib"])
    return {
        "status": "done",
        "seconds": seconds,
        "rate": len(truth) / seconds,
        "before_mib": most["before_mib"],
        "peak_mib": most["peak_mib"],
        "versions": runs[0]["versions"],
        "scores": {name: asdict(s) for name, s in scores.items()},
        "bias_pm": 100 * bias,
        "bias_err_pm": 100 * error,
    }


def near_bias(truth: pd.DataFrame, fitted: Sequence[pd.DataFrame]) -> tuple[float, float]:
    """Give the mean error of K along [110] next to the interface, and its error (Å)."""
    along = scene.direction()
    rows = ((truth["species"] == "K") & (truth["N"] <= NEAR)).to_numpy()
    true = truth.loc[rows, ["x_px", "y_px"]].to_numpy()
    off = np.concatenate(
        [(f.loc[rows, ["x_px", "y_px"]].to_numpy() - true) @ along for f in fitted]
    )
    off = scene.PIXEL_A * off
    off = off[np.abs(off) <= accuracy.LOST_A]
    if off.size < 2:
        return np.nan, np.nan
    return float(off.mean()), float(off.std(ddof=1) / np.sqrt(off.size))
