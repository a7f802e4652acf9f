"""The command line: ``stemdisp run``, ``edit``, ``inspect``, ``simulate`` and smaller ones.

Nothing heavy is imported here before a command needs it, and a configuration is checked first of
all. Errors of the user end in one line on stderr and an exit status; see `stemdisp.errors`.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from stemdisp import __version__, _stopping
from stemdisp._printable import one_line, printable
from stemdisp.errors import ConfigError, DataError, explain


class _PathsCommand(click.Command):
    """A command whose ``--input`` takes several paths."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give every path after ``--input`` an ``--input`` of its own."""
        return super().parse_args(ctx, _repeat_input(args))


class _RunCommand(_PathsCommand):
    """One whose help lists the configuration, too."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the keys of the configuration from their one source."""
        from stemdisp._configcheck import toml_value
        from stemdisp.config import describe

        with formatter.section("Configuration keys (TOML), with their defaults"):
            formatter.write_dl(
                [
                    (f"{spec.key} = {toml_value(spec.default)}", f"{spec.doc} ({spec.type})")
                    for spec in describe()
                ]
            )


def _repeat_input(args: list[str]) -> list[str]:
    """Turn ``--input A B`` into ``--input A --input B``; a .toml file is the configuration."""
    out: list[str] = []
    reading = False
    for arg in args:
        if arg == "--":
            return out + args[args.index("--") :]
        if arg.startswith("-") and arg != "-":
            reading = arg == "--input"
            if not reading:
                out.append(arg)
            elif args[-1] == "--input":
                raise click.UsageError("--input names no file; give at least one path")
        elif reading and not arg.lower().endswith(".toml"):
            out += ["--input", arg]
        else:
            out.append(arg)
    return out


_NO_READER = 141  # as of a program that ends by SIGPIPE
_COUNT = click.IntRange(min=0)
_POSITIVE = click.IntRange(min=1)
_PATH = click.Path(readable=False)  # whether it can be read is said later, with the right status
_ABOVE_0 = click.FloatRange(min=0, min_open=True)

# main() reads it from the arguments, because errors are handled there.
_debug = click.option(
    "--debug", is_flag=True, expose_value=False, help="Show the full traceback of an error."
)


_FIRST_STEPS = """\b
First steps:
  stemdisp simulate test.hspy                       data to try things on, with their truth
  stemdisp inspect test.hspy                        what a file holds, and what a run takes of it
  stemdisp config > my.toml                         every setting, explained; change what differs
  stemdisp run my.toml --input test.hspy            results/my/report.html
\b
Exit status: 0 done, 2 the command or the configuration is wrong, 3 the data are, 1 a defect.
"""


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_FIRST_STEPS,
)
@click.version_option(__version__, prog_name="stemdisp")
def cli() -> None:
    """Measure atomic displacements and oxygen occupancy plane by plane in iDPC-STEM images."""


@cli.command(cls=_RunCommand)
@click.argument("config", type=_PATH)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="PATH ...",
    help="Data files instead of those of the configuration: one, or all frames of a series. A "
    "quoted pattern ('dir/*.emd') analyses every file that it matches as a field of its own.",
)
@click.option(
    "--corrections",
    metavar="FILE",
    help="What is corrected by hand, instead of [input] corrections of the configuration.",
)
@click.option("--output", metavar="DIR", help="Where to write. Default: results/NAME of CONFIG.")
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Of a Dask cluster whose workers see the same files: frames, or fields, are shared among "
    "them (pip install 'stemdisp[cluster]').",
)
@click.option("--quiet", is_flag=True, help="Show neither progress nor the summary.")
@_debug
def run(
    config: str,
    inputs: tuple[str, ...],
    corrections: str | None,
    output: str | None,
    scheduler: str | None,
    quiet: bool,  # noqa: FBT001 - click passes options by name
) -> None:
    """Run the analysis that the file CONFIG describes.

    \b
    stemdisp run my.toml                                      the files that my.toml names
    stemdisp run my.toml --input a.emd b.emd --output out     two frames of one field
    stemdisp run my.toml --input 'session/*.emd'              every file a field: a batch

    DIR receives report.html, summary.json, the tables as CSV, and figures as PNG and SVG: all of
    them or none. A batch that was stopped goes on where it was.
    """  # noqa: D301 - \b tells click to leave lines as they are
    from stemdisp._patterns import is_pattern

    settings = _settings(config, inputs, corrections)
    if output == "":
        raise ConfigError("--output is empty; name a directory, or leave it out")
    target = Path(output) if output else Path("results", Path(config).stem)
    from stemdisp._spread import open_cluster

    with _named(config), open_cluster(scheduler) as executor:
        if any(map(is_pattern, settings.input.path)):
            _analyse_fields(settings, target, quiet=quiet, executor=executor)
            return
        summary = _analyse(settings, target, quiet=quiet, executor=executor)
    if not quiet:
        _say(f"{summary}\nReport: {printable(str(target / 'report.html'))}")


def _settings(config: str, inputs: tuple[str, ...], corrections: str | None) -> Any:
    """Read a configuration, and put in its place what the command line says."""
    from stemdisp.config import load_config, with_input

    settings = with_input(load_config(config), inputs or None, corrections=corrections)
    _prepare()
    return settings


def _prepare() -> None:
    """Give libraries a home until the command ends, if the user's will not do."""
    from stemdisp._home import usable_home

    click.get_current_context().with_resource(usable_home())


@contextlib.contextmanager
def _named(config: str) -> Iterator[None]:
    """Name the configuration in what is said of one of its tables after it was read."""
    try:
        yield
    except ConfigError as err:
        if str(err).startswith("["):
            raise ConfigError(f"{config}: {err}") from err
        raise


def _analyse(settings: Any, target: Path, *, quiet: bool, executor: Any = None) -> str:
    """Run the pipeline and put its results in place; return the summary in words."""
    from stemdisp._publish import publish

    with publish(target) as folder:
        from stemdisp import pipeline, report

        result = pipeline.run(settings, progress=not quiet, executor=executor)
        report.write(result, folder, progress=not quiet)
        return report.text_summary(result)


def _analyse_fields(settings: Any, target: Path, *, quiet: bool, executor: Any = None) -> None:
    """Analyse every file that the patterns mean, on `executor` or here; tell how it went."""
    from stemdisp._patterns import expand

    paths: Sequence[str] = expand(settings.input.path, leave_out=target)
    if len(paths) > 1 and settings.input.corrections != "none":
        raise ConfigError(
            f"corrections belong to one image, but the input means {len(paths)} files; run the "
            "file that they were made for by itself"
        )
    if executor is not None:
        from stemdisp._source import absolute_paths

        paths = absolute_paths(tuple(paths))
    from stemdisp.batch import run_fields  # heavy

    options: dict[str, Any] = {
        "executor": executor,
        "progress": not quiet,
        "tell": None if quiet else _say,
    }
    table = run_fields(settings, paths, target, **options)
    if not quiet:
        _say(f"Table: {printable(str(target / 'fields.csv'))}")
    failed = table[table["status"] == "failed"]
    if len(failed):
        raise DataError(
            f"{len(failed)} of {len(table)} fields failed, first {failed['field'].iloc[0]}: "
            f"{failed['message'].iloc[0]}; all are in {target / 'fields.csv'}"
        )


@cli.command(cls=_PathsCommand)
@click.argument("config", type=_PATH)
@click.option(
    "--input", "inputs", multiple=True, metavar="PATH ...", help="Data files, as with run."
)
@click.option(
    "--corrections",
    metavar="FILE",
    help="What to go on with, if it is there, and where to save. Default: that of the "
    "configuration, else corrections.toml.",
)
@_debug
def edit(config: str, inputs: tuple[str, ...], corrections: str | None) -> None:
    """Run the analysis of CONFIG, and correct its columns by clicking in a window."""
    from stemdisp._patterns import is_pattern
    from stemdisp.corrections import FILE_NAME

    settings = _settings(config, inputs, None)
    if any(map(is_pattern, settings.input.path)):
        raise ConfigError("corrections belong to one image; give one file, or frames of a series")
    named = settings.input.corrections
    path = Path(corrections or (FILE_NAME if named == "none" else named))
    from stemdisp import editor, pipeline  # heavy

    editor.check_window()
    start = str(path) if path.exists() else None
    with _named(config):
        result = pipeline.run(settings, corrections=start, progress=True)
    window = editor.edit(result, path=path)
    _say(window.corrections.describe())
    if window.corrections != window.saved:
        name = printable(str(path))
        click.echo(f"stemdisp: closed without saving (key s); {name} is as it was", err=True)


@cli.command(short_help="Say what a file holds and what a run would need to be told.")
@click.argument("path", type=_PATH)
@_debug
def inspect(path: str) -> None:
    """Say what the file PATH holds and what a run would need to be told."""
    from stemdisp.inspection import inspect as describe_file

    _prepare()
    _say(describe_file(path))


@cli.command(short_help="Write synthetic data and their truth.")
@click.argument("out", type=_PATH)
@click.option("--preset", default="lao-kto-111", show_default=True, help="What to simulate.")
@click.option("--seed", type=_COUNT, default=0, show_default=True, help="Of the random numbers.")
@click.option("--frames", "n_frames", type=_POSITIVE, help="Number of frames.")
@click.option("--size", type=_POSITIVE, help="Pixels along each side.")
@click.option("--pixel-size", "pixel_size_A", type=_ABOVE_0, help="Angstrom per pixel.")
@click.option("--dose", "dose_e_per_A2", type=_ABOVE_0, help="Electrons per A^2 and frame.")
@click.option(
    "--multislice",
    is_flag=True,
    help="Compute the four segment images of one scan with abTEM, atom by atom: some minutes.",
)
@click.option("--thickness", "thickness_nm", type=_ABOVE_0, help="With --multislice: in nm.")
@click.option("--tilt", nargs=2, type=float, help="With --multislice: mrad along x and y.")
@click.option(
    "--delta", "delta0_A", type=float, help="Displacement of the cations in plane 1, angstrom."
)
@click.option("--xi", "xi_planes", type=_ABOVE_0, help="Planes over which it decays.")
@click.option(
    "--occupancy", help="Of the oxygen in planes 1, 2, ...: 0.45,0.6,0.8; 1 is full everywhere."
)
@click.option("--phonons", type=_COUNT, help="With --multislice: pairs of vibrating crystals.")
@_debug
def simulate(out: str, *, multislice: bool, **options: Any) -> None:
    """Write synthetic data to OUT (.hspy) and their truth to OUT's stem + .truth.csv.

    What is not given is that of the preset, whose specimen is a little tilted:
    all displaced columns are off by 0.015 A along u and -0.020 A along v, as the
    table of the truth holds. With --multislice OUT holds the counts of the four
    segments, to be analysed with kind = "dpc-segments" (pip install 'stemdisp[simulate]').
    """
    from stemdisp import _simulated
    from stemdisp._publish import write_together

    target = Path(out)
    if target.suffix != ".hspy":
        raise ConfigError(f"OUT = {out!r} must end in .hspy; rename it")
    if not target.parent.is_dir():
        raise ConfigError(f"{target.parent}: no such directory; make it first")
    given = {name: value for name, value in options.items() if value is not None}
    if "occupancy" in given:
        given["occupancy"] = _simulated.shares(given["occupancy"])
    _prepare()
    make = _simulated.multislice if multislice else _simulated.synthetic
    try:
        signal_, truth = make(given)
    except (ValueError, ImportError) as err:
        raise ConfigError(str(err)) from err
    truth_path = target.with_suffix(".truth.csv")
    write_together(
        {
            truth_path: lambda path: truth.to_csv(path, index=False),
            target: lambda path: _simulated.write(signal_, str(path)),
        }
    )
    _say(f"Wrote {printable(str(target))} and {printable(str(truth_path))}")


@cli.command(name="config")
@_debug
def show_config() -> None:
    """Print a configuration that names and explains every key.

    \b
    stemdisp config > my.toml
    """  # noqa: D301 - \b tells click to leave lines as they are
    from stemdisp._template import template

    click.echo(template(), nl=False)


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@_debug
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands, options and files.

    \b
    bash:  stemdisp completion bash >> ~/.bashrc
    zsh:   stemdisp completion zsh >> ~/.zshrc
    fish:  stemdisp completion fish > ~/.config/fish/completions/stemdisp.fish
    """  # noqa: D301 - \b tells click to leave lines as they are
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise ConfigError(f"this version of click knows no completion for {shell}; update click")
    click.echo(kind(cli, {}, "stemdisp", "_STEMDISP_COMPLETE").source())


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    Parameters
    ----------
    args : list of str, optional
        The arguments; those of the process by default.

    Raises
    ------
    SystemExit
        Always: status 0, 1 (a defect of stemdisp), 2 (command line or configuration), 3 (data),
        129, 130, 141 or 143 (stopped: terminal gone, Ctrl-C, nobody reads, SIGTERM).
    """
    args = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in args
    try:
        with _stopping.listening(), _quiet_libraries(debug=debug):
            cli.main(args=args, prog_name="stemdisp", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as err:
        click.echo(err.ctx.get_help() if err.ctx else err.format_message())
        sys.exit(2)
    except click.ClickException as err:
        _fail(_with_help(err), 2, debug=debug)
    except SystemExit:
        # click ends so where nobody reads on (| head); no defect, as its status would say
        if type(sys.stdout).__name__.endswith("PacifyFlushWrapper"):  # click's own
            sys.exit(_NO_READER)
        raise
    except _stopping.Stopped as err:
        _fail(f"stopped; {_stopping.left()}", err.exit_status, debug=debug)
    except (click.Abort, KeyboardInterrupt):
        _fail(f"stopped; {_stopping.left()}", 130, debug=debug)
    except Exception as err:  # noqa: BLE001 - the last resort turns a defect into one line
        what, status = explain(err)
        hint = "; run again with --debug and report it" if status == 1 else ""
        _fail(what + hint, status, debug=debug)
    sys.exit(0)


def _with_help(error: click.ClickException) -> str:
    """Give the message, and where to look where it has no remedy itself."""
    text = error.format_message()
    if isinstance(error, click.UsageError) and error.ctx is not None and "?" not in text:
        return f"{text.rstrip('.')}; see {error.ctx.command_path} --help"
    return text


@contextlib.contextmanager
def _quiet_libraries(*, debug: bool) -> Iterator[None]:
    """Keep other libraries' warnings off the terminal; stemdisp's own stand in the report."""
    if debug or sys.warnoptions:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def _say(text: str, *, err: bool = False) -> None:
    """Print lines of text, in which names of files and signals may stand."""
    click.echo("\n".join(map(printable, text.split("\n"))), err=err)


def _fail(message: str, status: int, *, debug: bool = False) -> NoReturn:
    """Print one line on stderr (with ``--debug`` the traceback before it) and exit."""
    with contextlib.suppress(OSError):  # the terminal may be gone, or a log on a full disk
        if debug:
            _say(traceback.format_exc(), err=True)
        click.echo(f"stemdisp: {one_line(message)}", err=True)
    sys.exit(status)
