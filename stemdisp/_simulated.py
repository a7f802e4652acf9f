"""What ``stemdisp simulate`` writes: its options checked, and the functions behind them called."""

from __future__ import annotations

from typing import Any

from stemdisp.errors import ConfigError


def shares(text: str) -> tuple[float, ...]:
    """Read numbers between 0 and 1, separated by commas."""
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = (-1.0,)
    if not all(0.0 <= share <= 1.0 for share in shares):
        raise ConfigError(
            f"--occupancy {text!r} is not a list of numbers from 0 to 1: 0.45,0.6,0.8"
        )
    return shares


def write(signal: Any, path: str) -> None:
    """Write a simulated signal as .hspy: the same signal gives the same bytes.

    HyperSpy's own ``save`` adds the time to the metadata.
    """
    import hyperspy
    from rsciio.hspy import file_writer

    content = signal._to_dictionary() | {"models": None}
    content["package_info"] = {"package": "hyperspy", "package_version": hyperspy.__version__}
    file_writer(path, content)


def synthetic(given: dict[str, Any]) -> tuple[Any, Any]:
    """Draw a stack of Gaussian columns."""
    from stemdisp.simulate import simulate_stack

    only = [name for name in ("thickness_nm", "tilt", "phonons") if name in given]
    if only:
        flags = ", ".join("--" + name.split("_")[0] for name in only)
        raise ConfigError(f"{flags}: only with --multislice")
    return simulate_stack(given.pop("preset"), **given)


def multislice(given: dict[str, Any]) -> tuple[Any, Any]:
    """Compute segment images with abTEM."""
    from tqdm import tqdm

    from stemdisp.lamella import Lamella
    from stemdisp.multislice import Optics, simulate_multislice
    from stemdisp.simulate import PRESETS

    only = [name for name in ("n_frames", "size") if name in given]
    if only:
        flags = ", ".join("--" + name.removeprefix("n_") for name in only)
        raise ConfigError(f"{flags}: not with --multislice, which makes one scan of one period")
    preset, seed = given.pop("preset"), given.pop("seed")
    if preset not in PRESETS:
        raise ConfigError(f"--preset {preset!r} is unknown; use one of: {', '.join(PRESETS)}")
    specimen = PRESETS[preset].specimen
    lamella = {
        "structure": specimen.structure,
        "zone_axis": specimen.zone_axis,
        "plane": specimen.plane,
        "displaced": specimen.displaced,
        "delta0_A": specimen.delta0_A,
        "xi_planes": specimen.xi_planes,
        "occupancy": specimen.occupancy,
        "seed": seed,
    }
    lamella |= {"film_A": 0.0} if specimen.film_A <= 0 else {}
    names = ("delta0_A", "xi_planes", "occupancy", "thickness_nm")
    lamella |= {name: given.pop(name) for name in names if name in given}
    optics = {"phonons": given.pop("phonons", 1), "tilt_mrad": given.pop("tilt", (0.0, 0.0))}
    with tqdm(total=1, disable=None, leave=False, desc="multislice") as bar:

        def tell(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.refresh()

        return simulate_multislice(
            Lamella(**lamella), Optics(**optics), seed=seed, progress=tell, **given
        )
