"""The crystal and the calibration that a configuration chooses, checked before anything is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stemdisp.config import Config
from stemdisp.crystal import Projection, project
from stemdisp.errors import ConfigError
from stemdisp.response import OccupancyCurve, choose_curve
from stemdisp.simulate import PROPORTIONAL
from stemdisp.sublattice import cage_shells

if TYPE_CHECKING:
    from hyperspy.signals import Signal2D


def chosen_projection(config: Config) -> Projection:
    """Project the crystal, and check that the columns which the run asks for are in it."""
    crystal = config.crystal
    try:
        found = project(crystal.structure, crystal.zone_axis, displaced=crystal.displaced)
        cage_shells(found, crystal.displaced, tuple(crystal.cage.split("/")))
    except ValueError as error:
        raise ConfigError(f"[crystal] {error}") from error
    elements = {element for site in found.sites for element in site.elements}
    given = {} if isinstance(crystal.born_charges, str) else crystal.born_charges
    for species in given:
        if species not in elements:
            raise ConfigError(
                f"[crystal] born_charges: {found.name} has no {species!r}; it has "
                f"{', '.join(sorted(elements))}"
            )
    return found


def chosen_curve(config: Config) -> OccupancyCurve | None:
    """Give the calibration of the occupancy that the run asks for."""
    return choose_curve(
        config.analysis.occupancy_calibration,
        config.crystal.structure,
        config.crystal.zone_axis,
        config.specimen.thickness_nm,
    )


def applied_curve(
    curve: OccupancyCurve | None, config: Config, source: Signal2D
) -> tuple[OccupancyCurve | None, list[dict[str, str]]]:
    """Leave out the calibration of real images where the data say that they need none."""
    said = source.metadata.get_item("stemdisp.simulation.intensity", default=None)
    if curve is None or said != PROPORTIONAL or config.analysis.occupancy_calibration != "auto":
        return curve, []
    text = (
        "the data say that they are simulated: columns are Gaussians whose intensity is in "
        "proportion to their occupancy. The calibration of real images that [specimen] "
        "thickness_nm asks for is not applied to the occupancy, and what it says of the atoms' "
        "displacements does not hold; leave thickness_nm unknown"
    )
    return None, [{"code": "simulated-columns", "message": text}]
