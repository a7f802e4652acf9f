"""The command line of the benchmarks: measure, keep, write the page and its figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from benchmarks import pipelines
from benchmarks.contest import Plan, compete
from benchmarks.environments import PEERS
from benchmarks.figures import draw_all
from benchmarks.page import write_page
from benchmarks.pipelines import SAMPLE_RUN, Whole
from benchmarks.report import Options, machine, measure
from benchmarks.store import FILE, ROOT, Store

PARTS = ("own", "start", "runs", "peers")
WHOLE = (SAMPLE_RUN, Whole("one image, 4096 px", 1, 4096), Whole("16 frames of 1024 px", 16, 1024))


def names(_: click.Context, parameter: click.Parameter, text: str) -> tuple[str, ...]:
    """Read names separated by commas."""
    known = PARTS if parameter.name == "only" else tuple(p.name for p in PEERS)
    found = tuple(name for name in text.split(",") if name)
    for name in found:
        if name not in known:
            raise click.BadParameter(f"{name!r} is none of {', '.join(known)}.")
    return found


def numbers(_: click.Context, __: click.Parameter, text: str) -> tuple[int, ...]:
    """Read sizes separated by commas."""
    return tuple(sorted({int(part) for part in text.split(",")}))


@click.command()
@click.option("--full", is_flag=True, help="Three images, all noises at all sizes: hours.")
@click.option("--quick", is_flag=True, help="Small images only, to try it: 256 and 512 px.")
@click.option("--sizes", default="512,1024,2048,4096", callback=numbers, help="Sides in px.")
@click.option("--limit", default=120.0, show_default=True, help="Most seconds for one fit.")
@click.option("--images", default=1, show_default=True, help="Noisy images for each peer.")
@click.option("--peers", default=",".join(p.name for p in PEERS), callback=names)
@click.option("--only", default=",".join(PARTS), callback=names, help="Parts to measure.")
@click.option("--fresh", is_flag=True, help="Forget what an interrupted run has measured.")
@click.option("--resume", is_flag=True, help="Keep what a finished run has measured; draw again.")
@click.option("--keep", default=FILE, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--docs", default=ROOT / "docs", type=click.Path(file_okay=False, path_type=Path))
def main(**chosen: object) -> None:
    """Measure stemdisp and its peers, write docs/benchmarks.md and its figures."""
    plan, options, whole = plans(chosen)
    store = Store(chosen["keep"], fresh=chosen["fresh"], resume=chosen["resume"])
    only = chosen["only"]
    if "own" in only:
        _once(store, "own", lambda: measure(options, say=say).plain())
    if "start" in only:
        _once(store, "start", lambda: [list(row) for row in pipelines.cold_start()])
    if "runs" in only:
        if store.get(f"run/{SAMPLE_RUN.label}") is None:
            say("a run that compiles what is not yet compiled")
            pipelines.run_whole(SAMPLE_RUN)
        for item in whole:
            _once(store, f"run/{item.label}", lambda item=item: pipelines.run_whole(item))
    if "peers" in only:
        compete(plan, store, say)
    store.put("machine", machine())
    draw_all(plan, store, chosen["docs"] / "images")
    page = write_page(chosen["docs"], plan, store, command=command(chosen), whole=whole)
    store.finish()
    click.echo(page)


def plans(chosen: dict) -> tuple[Plan, Options, tuple[Whole, ...]]:
    """Turn the options into what is to be measured."""
    plan = Plan(chosen["sizes"], chosen["images"], chosen["limit"], peers=chosen["peers"])
    options, whole = Options(large=4096), WHOLE
    if chosen["full"]:
        plan = replace(plan, images=max(3, plan.images), every_kind=True, limit_s=4 * 3600.0)
    if chosen["quick"]:
        sizes = (256, 512) if plan.sizes == Plan().sizes else plan.sizes
        plan = replace(plan, sizes=sizes, limit_s=min(plan.limit_s, 60.0))
        options = Options(size=256, repeats=2, runs=1, speed_size=512, large=512)
        whole = (SAMPLE_RUN, Whole("one image, 1024 px", 1, 1024))
    return plan, options, whole


def command(chosen: dict) -> str:
    """Give the command that writes the page."""
    flags = [f"--{name}" for name in ("full", "quick") if chosen[name]]
    usual = {"sizes": (512, 1024, 2048, 4096), "limit": 120.0, "images": 1}
    usual["peers"] = tuple(p.name for p in PEERS)
    for name, value in usual.items():
        if chosen[name] != value:
            text = ",".join(map(str, chosen[name])) if isinstance(value, tuple) else chosen[name]
            flags.append(f"--{name} {text}")
    return f'make bench ARGS="{" ".join(flags)}"' if flags else "make bench"


def say(text: str) -> None:
    """Say on the error stream what is being done."""
    click.echo(f"... {text}", err=True)


def _once(store: Store, name: str, work: object) -> None:
    """Measure what is not there yet; what fails is recorded, and the rest goes on."""
    found = store.get(name)
    if found is None or (isinstance(found, dict) and found.get("status") == "failed"):
        say(name)
        try:
            found = work()
        except Exception as error:  # noqa: BLE001 - one part may fail, the others count
            found = {"status": "failed", "reason": " ".join(str(error).split()) or repr(error)}
        store.put(name, found)
