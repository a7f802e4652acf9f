"""The command line of the benchmarks."""

from __future__ import annotations

import datetime
from pathlib import Path

import click

from benchmarks.report import Options, Report, machine, measure

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"

_PAGE = """\
# Benchmarks

Written by `make bench ARGS="{arguments}"` on {date}. {machine}.

The image: KTaO3 seen along [1-10] with [111] up, 0.10 Å per px; peaks Ta 1.0, KO 0.55, O 0.25 on a
background of 0.10; widths 0.45, 0.42, 0.40 Å; K displaced and O missing near the interface; every
column displaced at random by 5 pm rms. Starts are 0.3 px rms off.

`bound` is the Cramér-Rao bound of the model that is fitted (all columns together, one width per
species), rms per axis: no unbiased fit can do better. `slope` is the response to the random
displacements: 1 is faithful. `pull` is the rms of error over claimed error: 1 is honest. `failed`
columns are off by more than 0.5 Å or missing without a quality bit; `marked` ones carry such a
bit and are left out. Sampling errors are given after ±; the goals allow two of them. Times grow
with the load of the machine (1 is this run alone): compare rows of one run. Only the large image
is fitted on more than one core.

{tables}"""


@click.command()
@click.option("--size", default=512, show_default=True, type=click.IntRange(min=128))
@click.option("--repeats", default=5, show_default=True, help="Noisy images of each kind.")
@click.option("--runs", default=3, show_default=True, help="Runs whose median time counts.")
@click.option(
    "--speed-size",
    default=1024,
    show_default=True,
    type=click.IntRange(min=128),
    help="Image for columns per second.",
)
@click.option("--peers", is_flag=True, help="Also run atomap, if installed (minutes).")
@click.option(
    "--peer-size",
    default=1024,
    show_default=True,
    type=click.IntRange(min=128),
    help="Image on which atomap is timed.",
)
@click.option(
    "--large", default=0, help="Also time the fit of one image of this size on two cores."
)
@click.option("--quick", is_flag=True, help="Leave out the pipeline and the first call.")
@click.option("--write", is_flag=True, help="Write docs/benchmarks.md as well.")
def main(**chosen: object) -> None:
    """Measure speed and accuracy and print the tables; on one core but for --large."""
    quick, write = chosen.pop("quick"), chosen.pop("write")
    options = Options(**chosen, pipeline=not quick, first_call=not quick)
    report = measure(options, say=lambda text: click.echo(f"... {text}", err=True))
    click.echo(report.markdown())
    click.echo(machine())
    if write:
        PAGE.write_text(page(report), encoding="utf-8")


def page(report: Report) -> str:
    """Give the page of the documentation."""
    options = report.options
    arguments = f"--size {options.size} --repeats {options.repeats} --runs {options.runs}"
    arguments += f" --speed-size {options.speed_size}"
    arguments += f" --peers --peer-size {options.peer_size}" if options.peers else ""
    arguments += f" --large {options.large}" if options.large else ""
    return _PAGE.format(
        arguments=f"{arguments} --write",
        date=datetime.date.today().isoformat(),
        machine=machine(),
        tables=report.markdown().rstrip() + "\n",
    )
