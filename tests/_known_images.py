"""Images of a crystal whose truth is known, and the ways in which a microscope spoils them."""

from functools import lru_cache

import numpy as np
from scipy import ndimage

from stemdisp.crystal import project
from stemdisp.simulate import Scan, Specimen, build_columns, render, simulate_stack

# Nothing moves: sites lie where the lattice says, so every difference is an error of the finder.
IDEAL = {
    "delta0_A": 0.0,
    "offset_A": (0.0, 0.0),
    "disorder_A": 0.0,
    "occupancy": (),
    "jitter_px": (0.0, 0.0),
    "shear_px": 0.0,
}
PIXEL_A = 0.15
SITES = {"K": (0.0, 0.0), "Ta": (0.0, 0.5), "O": (0.5, 0.5)}


@lru_cache(maxsize=4)
def kto():
    """KTaO3 along [1 -1 0]."""
    return project("KTaO3", (1, -1, 0), displaced="K")


@lru_cache(maxsize=40)
def _simulated(options):
    stack, truth = simulate_stack(**dict(options))
    image = stack.inav[0].data.astype(float)
    image.flags.writeable = False
    return image, truth


def simulated(**options):
    """One frame and its truth; made once for each set of options."""
    options = {"n_frames": 1, "size": 320, "seed": 1} | options
    image, truth = _simulated(tuple(sorted(options.items())))
    return image, truth.copy()


def ideal(**options):
    """One frame in which every column lies on its site."""
    return simulated(**(IDEAL | options))


@lru_cache(maxsize=8)
def _painted(volumes, rotation_deg, size, film_A, noise):
    rng = np.random.default_rng(5)
    specimen = {k: v for k, v in IDEAL.items() if k not in ("jitter_px", "shear_px")}
    truth, atoms = build_columns(
        Specimen(**specimen, film_A=film_A, rotation_deg=rotation_deg),
        Scan(size=size, pixel_size_A=PIXEL_A),
        rng,
    )
    truth = truth.assign(intensity=truth["species"].map(dict(volumes)))
    blobs = truth[["x_px", "y_px", "intensity", "sigma_A"]].to_numpy(dtype=float)
    blobs[:, 3] = 0.45 / PIXEL_A
    blobs = np.vstack([blobs[blobs[:, 2] > 0], atoms])
    image = render(blobs, np.zeros((size, 2)), size) / PIXEL_A**2
    return image + noise * rng.normal(size=image.shape), truth


def painted(volumes, *, rotation_deg=10.0, size=288, film_A=0.0, noise=0.02):
    """Image in which the columns of each species have the given integrated intensity."""
    image, truth = _painted(tuple(sorted(volumes.items())), rotation_deg, size, film_A, noise)
    return image.copy(), truth.copy()


# ---- what a microscope does to an image: (image, truth) -> (image, truth) -------------------


def _moved(truth, xy, shape):
    ny, nx = shape
    inside = np.all((xy > 0) & (xy < np.array([nx - 1, ny - 1])), axis=1)
    return truth.assign(x_px=xy[:, 0], y_px=xy[:, 1])[inside].reset_index(drop=True)


def positions(truth):
    return truth[["x_px", "y_px"]].to_numpy(dtype=float)


def mirrored(image, truth):
    """Left becomes right."""
    xy = positions(truth)
    return image[:, ::-1], _moved(
        truth, np.c_[image.shape[1] - 1 - xy[:, 0], xy[:, 1]], image.shape
    )


def quarter_turns(image, truth, times):
    """Turn counterclockwise by `times` quarters, as np.rot90 does."""
    xy = positions(truth)
    for _ in range(times % 4):
        xy = np.c_[xy[:, 1], image.shape[1] - 1 - xy[:, 0]]
        image = np.rot90(image)
    return image, _moved(truth, xy, image.shape)


def warped(image, truth, matrix, *, crop):
    """Map content by ``r -> matrix r`` about the middle and keep the inner `crop` px."""
    forward = np.asarray(matrix, dtype=float)
    back = np.linalg.inv(forward)
    swap = np.array([[0, 1], [1, 0]])
    back_yx = swap @ back @ swap
    old = (np.array(image.shape) - 1) / 2
    new = np.full(2, (crop - 1) / 2)
    out = ndimage.affine_transform(
        image, back_yx, offset=old - back_yx @ new, output_shape=(crop, crop), order=3
    )
    xy = (positions(truth) - old[::-1]) @ forward.T + new
    return out, _moved(truth, xy, out.shape)


def bent(image, truth, strain, *, crop):
    """Strain along x and y that varies by `strain` over the field; keep the inner `crop` px.

    Content moves by ``strain / (2 L) r^2`` along each axis, r from the middle.
    """
    old, new = (image.shape[0] - 1) / 2, (crop - 1) / 2
    slope = strain / (2 * crop)
    yy, xx = np.mgrid[0:crop, 0:crop] - new
    straight = [_unbend(a, slope) + old for a in (yy, xx)]
    out = ndimage.map_coordinates(image, straight, order=3)
    r = positions(truth) - old
    return out, _moved(truth, r + slope * r**2 + new, out.shape)


def _unbend(bent_r, slope):
    """Solve ``r + slope r^2 = bent``."""
    return (np.sqrt(1 + 4 * slope * bent_r) - 1) / (2 * slope)
