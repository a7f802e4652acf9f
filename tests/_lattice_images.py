"""Images of KTaO3 [1-10] whose every column is known, made independently of the package."""

import numpy as np
import pandas as pd

PIXEL_A = 0.12
VOLUME = {"Ta": 1.0, "K": 0.55, "O": 0.25}  # signal * A^2 up to 2 pi sigma^2
SIGMA_A = {"Ta": 0.45, "K": 0.42, "O": 0.40}
SITES = {"K": (0.0, 0.0), "Ta": (0.0, 0.5), "O": (0.5, 0.5)}
U_A, V_A = 2.8203, 3.9885


def lattice(rng, *, size=(224, 256), pixel=PIXEL_A, disorder_A=0.05, turn_deg=35.3, margin_A=1.6):
    """Truth table: columns further than `margin_A` from the border, displaced at random."""
    pixel = np.broadcast_to(pixel, 2)
    turn = np.deg2rad(turn_deg)
    u = U_A * np.array([np.cos(turn), np.sin(turn)])
    v = V_A * np.array([-np.sin(turn), np.cos(turn)])
    span = np.array(size)[::-1] * pixel
    origin = span / 2 + rng.uniform(-1, 1, 2)
    n = int(span.max() / U_A) + 2
    i, j = (a.ravel() for a in np.meshgrid(np.arange(-n, n), np.arange(-n, n)))
    parts = []
    for species, (a, b) in SITES.items():
        site = origin + (i + a)[:, None] * u + (j + b)[:, None] * v
        site = site[np.all((site > margin_A) & (site < span - pixel - margin_A), axis=1)]
        sigma = SIGMA_A[species]
        parts.append(
            pd.DataFrame(
                {
                    "species": species,
                    "site_x": site[:, 0] / pixel[0],
                    "site_y": site[:, 1] / pixel[1],
                    "intensity": VOLUME[species] * 2 * np.pi * sigma**2,
                    "sigma_A": sigma,
                }
            )
        )
    truth = pd.concat(parts, ignore_index=True)
    truth = truth.sample(frac=1.0, random_state=1).reset_index(drop=True)
    moved = rng.normal(0, disorder_A, (len(truth), 2)) / pixel
    return truth.assign(x_px=truth["site_x"] + moved[:, 0], y_px=truth["site_y"] + moved[:, 1])


def draw(truth, *, size=(224, 256), pixel=PIXEL_A, background=0.1):
    """Sum of Gaussians at pixel centres, no window."""
    sx, sy = np.broadcast_to(pixel, 2)
    s = truth["sigma_A"].to_numpy()[:, None]
    height = truth["intensity"].to_numpy()[:, None] / (2 * np.pi * s**2)
    ex = np.exp(-0.5 * ((np.arange(size[1]) - truth["x_px"].to_numpy()[:, None]) * sx / s) ** 2)
    ey = np.exp(-0.5 * ((np.arange(size[0]) - truth["y_px"].to_numpy()[:, None]) * sy / s) ** 2)
    return background + (height * ey).T @ ex


def integrated_noise(rng, size, deviation):
    """Noise of a DPC vector, white with `deviation` per component and pixel, integrated.

    Cut from a field twice as large, so that it is not periodic. Its power is
    (deviation / k)^2 with k in rad/px.
    """
    ny, nx = 2 * size[0], 2 * size[1]
    ky = 2 * np.pi * np.fft.fftfreq(ny)[:, None]
    kx = 2 * np.pi * np.fft.rfftfreq(nx)[None, :]
    k2 = kx**2 + ky**2
    k2[0, 0] = 1.0  # kx = ky = 0 there
    fx, fy = (np.fft.rfft2(rng.normal(0, deviation, (ny, nx))) for _ in range(2))
    return np.fft.irfft2((kx * fx + ky * fy) / (1j * k2), s=(ny, nx))[: size[0], : size[1]]


def pulls(truth, fitted, *, pixel=PIXEL_A, size=(224, 256), interior_A=4.0):
    """(estimate - truth) / error of x, y and intensity for columns away from the border."""
    sx, sy = np.broadcast_to(pixel, 2)
    x, y = truth["x_px"] * sx, truth["y_px"] * sy
    out = pd.DataFrame(
        {
            "species": truth["species"],
            "x": (fitted["x_A"] - x) / fitted["x_err_A"],
            "y": (fitted["y_A"] - y) / fitted["y_err_A"],
            "intensity": (fitted["intensity"] - truth["intensity"]) / fitted["intensity_err"],
        }
    )
    inside = (x > interior_A) & (x < size[1] * sx - interior_A)
    return out[inside & (y > interior_A) & (y < size[0] * sy - interior_A)]


def seeds(truth):
    """Lattice sites: what a finder gives."""
    return truth[["species"]].assign(x_px=truth["site_x"], y_px=truth["site_y"])


# Deviation per pixel (idpc: of each component of the DPC vector; poisson: counts at signal 1).
NOISE = {"idpc": 0.02, "white": 0.05, "poisson": 60.0}


def noisy(rng, image, kind, scale=1.0):
    """Image with noise of one kind, `scale` times that of NOISE."""
    if kind == "idpc":
        return image + integrated_noise(rng, image.shape, scale * NOISE["idpc"])
    if kind == "white":
        return image + rng.normal(0, scale * NOISE["white"], image.shape)
    return rng.poisson(image * NOISE["poisson"]) / NOISE["poisson"]


def fit(image, table, noise, **options):
    """Refine at the pixel size of these images."""
    from stemdisp.refine import refine_columns

    return refine_columns(image, table, pixel_size=PIXEL_A, noise=noise, **options)


def error_pm(fitted, truth, *, pixel=PIXEL_A):
    """Distance of every fitted column from its true place."""
    sx, sy = np.broadcast_to(pixel, 2)
    x, y = fitted["x_px"] - truth["x_px"], fitted["y_px"] - truth["y_px"]
    return np.hypot(sx * x, sy * y) * 100
