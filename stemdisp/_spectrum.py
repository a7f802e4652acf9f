"""Peaks of the power spectrum, and the affine map that turns a known 2-D lattice into them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

# Power of noise is exponentially distributed; among 10^5 frequencies its maximum is about 12
# times its mean. A peak must stand well above that.
PEAK_RATIO = 20.0
MAX_PEAKS = 24
# Image axes may be scaled differently by 5 % and sheared by 2 degrees: ratio of singular values.
MAX_DEFORMATION = 1.11
PIXEL_TOLERANCE = 0.14


@dataclass(frozen=True, eq=False)
class Peaks:
    """Peaks of an averaged spectrum: frequencies (n, 2) as (x, y) in 1/px, strength, spectrum."""

    freq: np.ndarray
    strength: np.ndarray
    ratio: np.ndarray
    fx: np.ndarray
    fy: np.ndarray
    resolution: float


def find_peaks(image: np.ndarray) -> Peaks:
    """Average the power spectra of overlapping blocks and pick their peaks.

    Blocks keep peaks sharp under slow distortion and let those that hold no crystal count little.
    """
    ny, nx = image.shape
    by, bx = min(ny, 512), min(nx, 512)
    window = np.hanning(by + 2)[1:-1, None] * np.hanning(bx + 2)[None, 1:-1]
    total = np.zeros((by, bx // 2 + 1))
    for y in np.unique(np.linspace(0, ny - by, max(1, round(2 * ny / by) - 1)).astype(int)):
        for x in np.unique(np.linspace(0, nx - bx, max(1, round(2 * nx / bx) - 1)).astype(int)):
            total += np.abs(fft.rfft2(image[y : y + by, x : x + bx] * window)) ** 2
    total = fft.fftshift(total, axes=0)
    fy, fx = fft.fftshift(fft.fftfreq(by)), fft.rfftfreq(bx)
    resolution = 1.0 / min(by, bx)
    ratio = total / _background(total, fx, fy)
    radius = np.hypot(fx[None, :], fy[:, None])
    allowed = (radius > 4 * resolution) & (radius < 0.45)
    top = (ratio == ndimage.maximum_filter(ratio, size=5)) & allowed & (ratio > PEAK_RATIO)
    rows, cols = np.nonzero(top)
    keep = (cols > 0) | (rows > by // 2)  # the column fx = 0 holds both members of each pair
    rows, cols = rows[keep], cols[keep]
    order = np.argsort(total[rows, cols])[::-1][:MAX_PEAKS]
    rows, cols = rows[order], cols[order]
    freq = np.array([_centroid(total, fx, fy, r, c) for r, c in zip(rows, cols, strict=True)])
    strength = np.sqrt(total[rows, cols])
    return Peaks(freq.reshape(-1, 2), strength, ratio, fx, fy, resolution)


def _background(power: np.ndarray, fx: np.ndarray, fy: np.ndarray) -> np.ndarray:
    """Median power at the same distance from the origin, smooth in that distance."""
    radius = np.hypot(fx[None, :], fy[:, None])
    width = max(fx[1], 1.0 / len(fy)) * 3
    ring = (radius / width).astype(int)
    labels = np.arange(ring.max() + 1)
    median = ndimage.median(power, ring, labels)
    median = np.exp(ndimage.gaussian_filter1d(np.log(median + np.finfo(float).tiny), 1.0))
    return median[ring] / np.log(2.0)


def _centroid(
    power: np.ndarray, fx: np.ndarray, fy: np.ndarray, row: int, col: int
) -> tuple[float, float]:
    """Sub-bin position by parabolas through the logarithm."""
    out = []
    for axis, (k, values) in enumerate(((row, fy), (col, fx))):
        if 0 < k < power.shape[axis] - 1:
            take = [k - 1, k, k + 1]
            line = np.log(power[take, col] if axis == 0 else power[row, take])
            bend = line[0] - 2 * line[1] + line[2]
            shift = 0.5 * (line[0] - line[2]) / bend if bend < 0 else 0.0
        else:
            shift = 0.0
        out.append(values[k] + np.clip(shift, -0.5, 0.5) * (values[1] - values[0]))
    return out[1], out[0]


@dataclass(frozen=True, eq=False)
class Match:
    """An affine map from reciprocal angstrom to reciprocal px and how well it explains peaks."""

    matrix: np.ndarray
    score: float
    explained: float
    found: float


def match_lattice(
    peaks: Peaks,
    reciprocal: np.ndarray,
    strengths: dict[tuple[int, int], float],
    *,
    pixel_size_A: float | None,
) -> list[Match]:
    """Find maps of the reciprocal lattice onto the peaks.

    Parameters
    ----------
    peaks : Peaks
        Observed.
    reciprocal : ndarray, shape (2, 2)
        Rows u*, v* in 1/A (Cartesian).
    strengths : dict
        Expected amplitude of each reflection (h, k), half of the plane.
    pixel_size_A : float or None
        Approximate pixel size, trusted within 14 %.

    Returns
    -------
    list of Match
        Best first; empty when nothing fits.
    """
    observed = np.vstack([peaks.freq[:14], -peaks.freq[:14]])
    indices = sorted(strengths, key=strengths.__getitem__, reverse=True)[:7]
    expected = np.array(indices, dtype=float) @ reciprocal
    pairs_p = [(a, b) for a in range(len(peaks.freq[:14])) for b in range(len(observed)) if a != b]
    pairs_g = [(a, b) for a in range(len(indices)) for b in range(len(indices)) if a != b]
    if not pairs_p or not pairs_g:
        return []
    p = observed[np.array(pairs_p)]  # (np, 2 vectors, 2)
    g = expected[np.array(pairs_g)]
    independent = np.abs(np.linalg.det(g)) > 1e-6
    inverse = np.linalg.inv(g[independent])
    matrices = np.matmul(inverse[:, None], p[None, :]).reshape(-1, 2, 2)
    matrices = matrices[_plausible(matrices, pixel_size_A)]
    if len(matrices) == 0:
        return []
    return _rank(peaks, matrices, reciprocal, strengths)


def _plausible(matrices: np.ndarray, pixel_size_A: float | None) -> np.ndarray:
    """Keep near-similarities of sensible scale."""
    frobenius = np.sum(matrices**2, axis=(1, 2))
    det = np.abs(np.linalg.det(matrices))
    root = np.sqrt(np.maximum(frobenius**2 - 4 * det**2, 0))
    large, small = np.sqrt((frobenius + root) / 2), np.sqrt(np.maximum((frobenius - root) / 2, 0))
    scale = np.sqrt(det)
    good = (large < MAX_DEFORMATION * small) & (scale > 0)
    if pixel_size_A is None:
        return good & (scale > 0.015) & (scale < 0.7)
    off = np.abs(np.log(np.maximum(scale, 1e-9) / pixel_size_A))
    return good & (off < PIXEL_TOLERANCE)


def _rank(
    peaks: Peaks,
    matrices: np.ndarray,
    reciprocal: np.ndarray,
    strengths: dict[tuple[int, int], float],
) -> list[Match]:
    """Score maps by the peaks they explain and the reflections they find, refine, sort out."""
    hk = np.array(list(strengths), dtype=float)
    widened = ndimage.maximum_filter(peaks.ratio, size=3)
    weight = np.array(list(strengths.values()))
    best: list[Match] = []
    rough = _score_many(peaks, matrices, hk @ reciprocal, weight)
    # A multiple of the cell can have the same shape (2 u by v of a perovskite along [110]): it
    # finds all it expects, but leaves peaks unexplained.
    rough = rough * _explained(peaks, matrices, reciprocal)
    for index in np.argsort(rough)[::-1][:60]:
        matrix = _refine(peaks, matrices[index], reciprocal)
        match = _score(peaks, widened, matrix, hk @ reciprocal, weight)
        rows = reciprocal @ matrix
        twins = [k for k, m in enumerate(best) if _same_lattice(rows, reciprocal @ m.matrix)]
        if not twins:
            best.append(match)
        # the axes of a tetragonal cell, exchanged, fit as well: the map that deforms less is right
        for k in twins:
            if _anisotropy(matrix) < _anisotropy(best[k].matrix) - 0.01:
                if match.score > 0.98 * best[k].score:
                    best[k] = match
        if len(best) >= 5:
            break
    return sorted(best, key=lambda m: -m.score)


def _anisotropy(matrix: np.ndarray) -> float:
    """Ratio of the largest to the smallest scale of a map, less 1."""
    large, small = np.linalg.svd(matrix, compute_uv=False)
    return float(large / max(small, 1e-300)) - 1.0


def _score_many(
    peaks: Peaks, matrices: np.ndarray, reflections: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """Rough score of many maps: spectrum looked up at the expected reflections."""
    scores = np.empty(len(matrices))
    log_ratio = ndimage.maximum_filter(np.log(np.maximum(peaks.ratio, 1.0)), size=3)
    for start in range(0, len(matrices), 4096):
        part = reflections @ matrices[start : start + 4096]
        value, inside = _look_up(peaks, log_ratio, part)
        hit = np.where(inside, np.minimum(value, 8.0), 0.0) @ weight
        norm = inside @ weight
        scores[start : start + 4096] = hit / np.maximum(norm, 0.3 * weight.sum())
    return scores


def _explained(peaks: Peaks, matrices: np.ndarray, reciprocal: np.ndarray) -> np.ndarray:
    """Share of the peaks' strength that each of many (unrefined) maps indexes."""
    share = np.empty(len(matrices))
    length = np.linalg.norm(peaks.freq, axis=1)
    for start in range(0, len(matrices), 4096):
        basis = reciprocal @ matrices[start : start + 4096]
        index = peaks.freq @ np.linalg.inv(basis)
        nearest = np.rint(index)
        off = np.linalg.norm((index - nearest) @ basis, axis=2)
        # an error of the map grows with the order of the reflection
        near = (off < 1.6 * peaks.resolution + 0.03 * length) & np.any(nearest != 0, axis=2)
        share[start : start + 4096] = near @ peaks.strength / peaks.strength.sum()
    return share


def _look_up(peaks: Peaks, values: np.ndarray, freq: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of the half-plane spectrum at frequencies (..., 2) and whether they are inside."""
    flip = np.where(freq[..., 0] < 0, -1.0, 1.0)
    fx, fy = freq[..., 0] * flip, freq[..., 1] * flip
    col = np.rint(fx / (peaks.fx[1] - peaks.fx[0])).astype(int)
    row = np.rint((fy - peaks.fy[0]) / (peaks.fy[1] - peaks.fy[0])).astype(int)
    inside = (col < len(peaks.fx)) & (row >= 0) & (row < len(peaks.fy))
    inside &= np.hypot(fx, fy) < 0.45
    found = values[np.clip(row, 0, len(peaks.fy) - 1), np.clip(col, 0, len(peaks.fx) - 1)]
    return found, inside


def _refine(peaks: Peaks, matrix: np.ndarray, reciprocal: np.ndarray) -> np.ndarray:
    """Least squares of the map on all peaks that it indexes."""
    for _ in range(4):
        basis = reciprocal @ matrix
        index = np.rint(peaks.freq @ np.linalg.inv(basis))
        off = np.hypot(*(peaks.freq - index @ basis).T)
        use = (off < 1.5 * peaks.resolution) & np.any(index != 0, axis=1)
        if np.linalg.matrix_rank(index[use]) < 2:
            return matrix
        w = np.sqrt(peaks.strength[use])[:, None]
        matrix = np.linalg.lstsq(w * (index[use] @ reciprocal), w * peaks.freq[use], rcond=None)[0]
    return matrix


def _score(
    peaks: Peaks,
    widened: np.ndarray,
    matrix: np.ndarray,
    reflections: np.ndarray,
    weight: np.ndarray,
) -> Match:
    """Share of peak strength explained times share of expected strength found."""
    expected = reflections @ matrix
    both = np.vstack([expected, -expected])
    distance = np.hypot(*np.moveaxis(peaks.freq[:, None] - both[None], -1, 0))
    near = distance.min(axis=1) < 1.6 * peaks.resolution
    explained = float(peaks.strength[near].sum() / max(peaks.strength.sum(), 1e-300))
    value, inside = _look_up(peaks, widened, expected)
    seen = inside & (value > 6.0)
    found = float(weight[seen].sum() / max(weight[inside].sum(), 0.3 * weight.sum()))
    return Match(matrix, explained * found, explained, found)


def _same_lattice(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two reciprocal bases span the same lattice within 2 %."""
    change = a @ np.linalg.inv(b)
    return bool(np.all(np.abs(change - np.rint(change)) < 0.03)) and bool(
        abs(abs(np.linalg.det(np.rint(change))) - 1) < 0.01
    )
