"""What a run returns: tables, image, fits and the summary, and how they show themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stemdisp.config import Config
from stemdisp.corrections import Corrections
from stemdisp.crystal import Projection
from stemdisp.interface import Interface
from stemdisp.lattice import Lattice

if TYPE_CHECKING:
    from stemdisp.depths import Depths
    from stemdisp.response import OccupancyCurve
    from stemdisp.statistics import Correlation, DecayFit


@dataclass(frozen=True, eq=False)
class Result:
    """Tables and fits of one run.

    Attributes
    ----------
    config : Config
        The configuration that was run.
    summary : dict
        Content of ``summary.json``.
    columns, planes, line_profile : DataFrame
        Tables with the columns of the registry.
    frames : DataFrame or None
        One row per frame of a stack.
    dose_series : DataFrame or None
        Of a stack, one row per point of the dose series and per cumulative mean.
    image : ndarray, shape (ny, nx)
        The aligned mean image.
    residual : ndarray, shape (ny, nx)
        Image minus model; 0 where no fit was made.
    pixel_size_A : (float, float)
        Along x and y.
    lattice, interface, projection
        The crystal as found.
    decay, depths, correlation
        Fits, or None where there is no interface.
    curve : OccupancyCurve or None
        What calibrated the occupancies.
    profile_line_px : ndarray, shape (2, 2), or None
        End points (x, y) of the line profile.
    unexpected : DataFrame
        Peaks that no site explains: ``x_px, y_px, height``.
    corrections : Corrections or None
        What was corrected by hand; None for an automatic run.
    """

    config: Config
    summary: dict[str, Any]
    columns: pd.DataFrame
    planes: pd.DataFrame
    line_profile: pd.DataFrame
    frames: pd.DataFrame | None
    image: np.ndarray
    residual: np.ndarray
    pixel_size_A: tuple[float, float]
    lattice: Lattice
    interface: Interface | None
    projection: Projection
    decay: DecayFit | None = None
    depths: Depths | None = None
    correlation: Correlation | None = None
    curve: OccupancyCurve | None = None
    profile_line_px: np.ndarray | None = None
    unexpected: pd.DataFrame | None = None
    dose_series: pd.DataFrame | None = None
    corrections: Corrections | None = None

    def _repr_html_(self) -> str:
        from stemdisp.report import repr_html

        return repr_html(self)

    def __repr__(self) -> str:
        """Show the summary in words."""
        from stemdisp.report import text_summary

        return text_summary(self)
