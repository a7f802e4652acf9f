"""Geometric phase analysis: how a lattice runs through an image, and where it is strong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.restoration import unwrap_phase

# Places between the reflections: what is there looks like no lattice.
_BETWEEN = [(0.5, 0.37), (0.37, 0.5), (0.63, -0.5), (0.5, -0.63)]


def distortion_terms(t: np.ndarray) -> np.ndarray:
    """Give the polynomial terms of a `Lattice`'s distortion.

    Parameters
    ----------
    t : ndarray, shape (n, 2)
        Positions relative to the centre, in units of the scale; clipped at 1.5.

    Returns
    -------
    ndarray, shape (n, 7)
        Terms of degree 2 and 3.
    """
    return _terms(t)[:, 3:]


def _terms(t: np.ndarray) -> np.ndarray:
    """Polynomial terms up to degree 3 of scaled positions (n, 2); shape (n, 10)."""
    x, y = np.clip(t[:, 0], -1.5, 1.5), np.clip(t[:, 1], -1.5, 1.5)
    return np.stack(
        [np.ones_like(x), x, y, x * x, x * y, y * y, x**3, x * x * y, x * y * y, y**3], axis=1
    )


@dataclass(frozen=True, eq=False)
class Tracked:
    """Straight lattice, its distortion and its strength; names as in `Lattice`."""

    origin_px: np.ndarray
    cell_px: np.ndarray
    centre_px: np.ndarray
    scale_px: float
    distortion: np.ndarray
    crystallinity: np.ndarray
    grid_px: float


def track(flat: np.ndarray, cell: np.ndarray, recip: np.ndarray) -> Tracked:
    """Follow the phases of the strongest reflections across the image.

    The content is ``I(r - d(r))``, so the phase of reflection g is ``-2 pi g . d``; two
    reflections give the distortion d (geometric phase analysis, Hytch, Snoeck, Kilaas 1998,
    doi 10.1016/S0304-3991(98)00035-7).
    """
    spacing = max(4, round(min(np.hypot(*cell.T)) / 3))
    width = 1.1 * max(np.hypot(*cell.T)) / spacing
    hk = [(h, k) for h in range(0, 4) for k in range(-3, 4) if (h, k) > (0, 0)]
    hk = [key for key in hk if np.hypot(*(np.array(key) @ recip)) < 0.4]
    maps = _demodulate(flat, np.array(hk + _BETWEEN) @ recip, spacing)
    strength = {key: _rough_power(m, width) for key, m in zip(hk, maps, strict=False)}
    pair = _two_strongest(strength, recip)
    waves = [_smooth(maps[hk.index(key)], width) for key in pair]
    noise = np.median([np.median(np.abs(_smooth(m, width)) ** 2) for m in maps[len(hk) :]])
    energy = np.abs(waves[0]) ** 2 + np.abs(waves[1]) ** 2
    energy = np.sqrt(np.maximum(energy - 2 * noise, 0))
    crystal = energy / np.percentile(energy, 80)
    my, mx = energy.shape
    yy, xx = np.mgrid[0:my, 0:mx]
    xy = np.column_stack([xx.ravel(), yy.ravel()]) * spacing + (spacing - 1) / 2
    centre = np.array([(flat.shape[1] - 1) / 2, (flat.shape[0] - 1) / 2])
    scale = max(flat.shape) / 2
    phases = [_smooth_phase(wave, crystal) for wave in waves]
    g = np.array(pair) @ recip
    good = (crystal > 0.5).ravel()
    weight = np.where(good, np.minimum(crystal.ravel(), 1.2), 0.0)
    field = np.linalg.solve(-2 * np.pi * g, np.stack([p.ravel() for p in phases])).T
    design = _terms((xy - centre) / scale)
    ridge = np.diag([0.0] * 3 + [1e-4] * 3 + [1e-3] * 4) * weight.sum()
    normal = design.T @ (weight[:, None] * design) + ridge
    coefficients = np.linalg.solve(normal, design.T @ (weight[:, None] * field))
    # position = straight + d(straight): the constant and linear part belong to origin and cell
    linear = coefficients[1:3] / scale
    straighten = np.eye(2) + linear
    origin = coefficients[0] + centre - centre @ straighten
    return Tracked(
        origin_px=origin,
        cell_px=cell @ straighten,
        centre_px=centre,
        scale_px=scale,
        distortion=coefficients[3:],
        crystallinity=np.minimum(crystal, 1.5),
        grid_px=float(spacing),
    )


def _demodulate(flat: np.ndarray, g: np.ndarray, spacing: int) -> np.ndarray:
    """Complex amplitudes of the frequencies g (n, 2) in blocks of `spacing` px; (n, my, mx)."""
    my, mx = (n // spacing for n in flat.shape)
    inside = np.arange(spacing)
    # exp(-2 pi i g x) is a product of one factor per block and one per pixel in it, so that all
    # frequencies of a row of blocks come out of one matrix product
    wave = np.exp(-2j * np.pi * np.outer(inside, g[:, 0])) / spacing
    real = np.hstack([wave.real, wave.imag]).astype(np.float32)
    down = (np.exp(-2j * np.pi * np.outer(g[:, 1], inside)) / spacing).astype(np.complex64)
    across = np.exp(-2j * np.pi * spacing * np.outer(g[:, 0], np.arange(mx)))
    out = np.empty((len(g), my, mx), dtype=np.complex64)
    for row in range(my):
        block = flat[row * spacing : (row + 1) * spacing, : mx * spacing]
        both = (block.reshape(-1, spacing) @ real).reshape(spacing, mx, 2, len(g))
        part = np.einsum("ns,smn->nm", down, both[:, :, 0] + 1j * both[:, :, 1])
        out[:, row] = part * across * np.exp(-2j * np.pi * spacing * row * g[:, 1])[:, None]
    return out


def _smooth(amplitude: np.ndarray, width: float) -> np.ndarray:
    """Gaussian mean of a coarse map that counts nothing beyond its border."""
    norm = [ndimage.gaussian_filter1d(np.ones(n), width, mode="constant") for n in amplitude.shape]
    return ndimage.gaussian_filter(amplitude, width, mode="constant") / np.outer(*norm)


def _rough_power(amplitude: np.ndarray, width: float) -> float:
    """Root mean square of means over blocks as large as the Gaussian that `_smooth` uses."""
    block = max(1, min(round(3.5 * width), *amplitude.shape))
    my, mx = (n // block for n in amplitude.shape)
    part = amplitude[: my * block, : mx * block].reshape(my, block, mx, block)
    return float(np.sqrt(np.mean(np.abs(part.mean(axis=(1, 3))) ** 2)))


def _two_strongest(
    strength: dict[tuple[int, int], float], recip: np.ndarray
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Choose the pair of reflections that fixes a shift best: strong, long and not parallel."""
    best, pair = -1.0, ((1, 0), (0, 1))
    keys = sorted(strength, key=strength.__getitem__, reverse=True)[:8]
    for a in keys:
        for b in keys:
            ga, gb = np.array(a) @ recip, np.array(b) @ recip
            angle = abs(np.cross(np.append(ga, 0), np.append(gb, 0))[2])
            angle /= np.hypot(*ga) * np.hypot(*gb)
            value = min(strength[a], strength[b]) * angle
            if a != b and value > best:
                best, pair = value, (a, b)
    return pair


def _smooth_phase(amplitude: np.ndarray, crystal: np.ndarray) -> np.ndarray:
    """Unwrapped phase on the crystal."""
    mask = crystal <= 0.35
    if mask.all() or min(amplitude.shape) < 3:
        return np.angle(amplitude)
    wrapped = np.ma.masked_array(np.angle(amplitude), mask)
    return np.asarray(np.ma.filled(unwrap_phase(wrapped, rng=0), 0.0))
