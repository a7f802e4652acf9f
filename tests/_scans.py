"""Stacks whose scan is known line by line, as images or as the segments behind them."""

from __future__ import annotations

import numpy as np

from stemdisp.simulate import Scan, Specimen, build_columns, idpc_noise, render

PIXEL_A = 0.15
STEP_PX = 0.05  # of the difference quotients that make vectors


def specimen(size, *, pixel_size_A=PIXEL_A, seed=0, **physics):
    """Blobs (x, y, intensity, sigma in px) of columns and film, and the table of the columns."""
    rng = np.random.default_rng(seed)
    scan = Scan(size=size, pixel_size_A=pixel_size_A)
    made = Specimen(**physics)
    truth, atoms = build_columns(made, scan, rng)
    columns = [truth["x_px"], truth["y_px"], truth["intensity"], truth["sigma_A"] / pixel_size_A]
    return np.vstack([np.column_stack(columns), atoms]), truth


def paths(n, size, *, drift_px=0.0, jitter_px=(0.0, 0.0), step_px=4.0, seed=0):
    """Displacement (n, size, 2) of every line: shift of the frame, drift within it, jitter."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, step_px, (n, 2))
    steps[0] = 0.0
    line = np.linspace(-0.5, 0.5, size)[None, :, None]
    out = np.cumsum(steps, axis=0)[:, None] + line * rng.normal(0, drift_px, (n, 1, 2))
    return out + rng.normal(0, 1, (n, size, 2)) * np.array(jitter_px)


def image_frames(blobs, scan_paths, size, *, dose=500.0, seed=0):
    """Integrated frames with their noise."""
    rng = np.random.default_rng(seed)
    area = PIXEL_A**2
    return np.stack(
        [render(blobs, p, size) / area + idpc_noise(size, PIXEL_A, dose, rng) for p in scan_paths]
    ).astype(np.float32)


def segment_frames(blobs, scan_paths, size, *, dose=500.0, rotation_deg=0.0, seed=0):
    """Counts (n, 4, ny, nx) of four segments that catch half of the electrons."""
    rng = np.random.default_rng(seed)
    captured = 0.5 * dose * PIXEL_A**2
    angle = np.radians(rotation_deg)
    out = []
    for path in scan_paths:

        def moved(dx, dy, path=path):
            return render(blobs + np.array([dx, dy, 0.0, 0.0]), path, size) / PIXEL_A**2

        scale = 2 * STEP_PX * PIXEL_A
        gx = (moved(-STEP_PX, 0) - moved(STEP_PX, 0)) / scale
        gy = (moved(0, -STEP_PX) - moved(0, STEP_PX)) / scale
        along = np.cos(angle) * gx + np.sin(angle) * gy
        across = np.cos(angle) * gy - np.sin(angle) * gx
        mean = [captured / 4 * (1 + 2 * v) for v in (along, across, -along, -across)]
        out.append(rng.poisson(np.clip(mean, 0.0, None)))
    return np.array(out, dtype=np.float32)


def left_over(found, scan_paths):
    """What of the lines' displacements is not found, (n, lines, 2), the common part taken off."""
    lines = found.image.shape[0]
    out = []
    for path, place in zip(scan_paths, found.places, strict=True):
        rows = np.clip(np.arange(lines) + int(np.rint(place.start[1])), 0, len(path) - 1)
        seen = place.start + (0.0 if place.path is None else place.path)
        out.append(path[rows] - seen)
    rest = np.array(out)
    return rest - rest.mean(axis=0)
