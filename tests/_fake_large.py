"""A made-up result with many columns in a large image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from _fake_result import changed, make


def many_columns(count: int, *, side: int) -> Any:
    """Lay copies of the small field side by side, and again until there are enough columns."""
    result = make(size=320)
    per_row = int(np.ceil(side / 280))
    copies = []
    for k in range(per_row**2):
        shift = np.array([k % per_row, k // per_row]) * 280.0
        step = {"i": 200.0 * (k % per_row), "j": 200.0 * (k // per_row)}
        moved = {f"{a}_px": result.columns[f"{a}_px"] + s for a, s in zip("xy", shift, strict=True)}
        copies.append(
            result.columns.assign(**moved, **{n: result.columns[n] + s for n, s in step.items()})
        )
    columns = pd.concat(copies * 3, ignore_index=True).head(count)
    noise = 0.15 * np.random.default_rng(0).normal(size=(side, side)).astype(np.float32)
    y, x = np.ogrid[:side, :side]
    image = (np.cos(0.35 * x) * np.cos(0.3 * y) + noise).astype(np.float32)
    return changed(result, columns=columns, image=image, residual=noise)
