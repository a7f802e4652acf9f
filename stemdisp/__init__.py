"""Atomic displacements, occupancies and their depth profiles from iDPC-STEM images.

The public functions are loaded on first use, so that importing the package stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Bound at once: Python would otherwise put the module of the same name in the function's place.
from stemdisp.load import load

__version__ = "0.1.0"

# Public name -> the module that holds it.
_HOMES = {
    "Corrections": "corrections",
    "align_stack": "register",
    "average_planes": "planes",
    "correlate": "statistics",
    "edit": "editor",
    "find_columns": "find",
    "find_depths": "depths",
    "find_interface": "interface",
    "find_lattice": "lattice",
    "fit_decay": "statistics",
    "flag_vacancies": "vacancies",
    "from_atomap": "interop",
    "integrate_dpc": "dpc",
    "line_profile": "occupancy",
    "load_corrections": "corrections",
    "measure_displacements": "sublattice",
    "measure_occupancy": "occupancy",
    "project": "crystal",
    "refine_columns": "refine",
    "run": "pipeline",
    "simulate_multislice": "multislice",
    "simulate_stack": "simulate",
    "to_atomap": "interop",
    "to_markers": "interop",
}

__all__ = [
    "Corrections",
    "__version__",
    "align_stack",
    "average_planes",
    "correlate",
    "edit",
    "find_columns",
    "find_depths",
    "find_interface",
    "find_lattice",
    "fit_decay",
    "flag_vacancies",
    "from_atomap",
    "integrate_dpc",
    "line_profile",
    "load",
    "load_corrections",
    "measure_displacements",
    "measure_occupancy",
    "project",
    "refine_columns",
    "run",
    "simulate_multislice",
    "simulate_stack",
    "to_atomap",
    "to_markers",
]

if TYPE_CHECKING:
    from stemdisp.corrections import Corrections, load_corrections
    from stemdisp.crystal import project
    from stemdisp.depths import find_depths
    from stemdisp.dpc import integrate_dpc
    from stemdisp.editor import edit
    from stemdisp.find import find_columns
    from stemdisp.interface import find_interface
    from stemdisp.interop import from_atomap, to_atomap, to_markers
    from stemdisp.lattice import find_lattice
    from stemdisp.multislice import simulate_multislice
    from stemdisp.occupancy import line_profile, measure_occupancy
    from stemdisp.pipeline import run
    from stemdisp.planes import average_planes
    from stemdisp.refine import refine_columns
    from stemdisp.register import align_stack
    from stemdisp.simulate import simulate_stack
    from stemdisp.statistics import correlate, fit_decay
    from stemdisp.sublattice import measure_displacements
    from stemdisp.vacancies import flag_vacancies


def __getattr__(name: str) -> Any:
    """Load a public function on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'stemdisp' has no attribute {name!r}")
    return getattr(importlib.import_module(f"stemdisp.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
