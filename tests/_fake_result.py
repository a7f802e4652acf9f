"""A made-up result with known numbers: KTaO3 [1-10] under a film, turned by 4 degrees."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from stemdisp.config import Config, InterfaceConfig
from stemdisp.damage import judge_damage
from stemdisp.tables import Quality, count_quality, ordered

PIXEL_A = 0.14
A_LAT = 3.9885
U_A, V_A = A_LAT / np.sqrt(2), A_LAT
SPACING_A = A_LAT / np.sqrt(3)
SITES = (("K", 0.0, 0.0, 0.75), ("Ta", 0.0, 0.5, 1.0), ("O", 0.5, 0.5, 0.45))


@dataclass(frozen=True, eq=False)
class FakeResult:
    """The attributes of the real result that the report reads."""

    config: Any
    summary: dict
    columns: pd.DataFrame
    planes: pd.DataFrame
    line_profile: pd.DataFrame | None
    frames: pd.DataFrame | None
    image: np.ndarray
    pixel_size_A: tuple[float, float]
    residual: np.ndarray
    lattice: Any
    interface: Any
    projection: Any
    decay: Any = None
    depths: Any = None
    correlation: Any = None
    profile_line_px: np.ndarray | None = None
    dose_series: pd.DataFrame | None = None
    corrections: Any = None


def directions(rotation_deg: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors along u, v and the outward normal, in image axes (y down), film up."""
    t = np.deg2rad(rotation_deg)
    turn = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
    tilt = np.arccos(1 / np.sqrt(3))
    u = turn @ np.array([np.cos(tilt), -np.sin(tilt)])
    v = turn @ np.array([-np.sin(tilt), -np.cos(tilt)])
    return u, v, turn @ np.array([0.0, -1.0])


def _sites(size: int, interface: bool) -> tuple[pd.DataFrame, Any, np.ndarray, np.ndarray]:
    u, v, normal = directions(4.0)
    u_px, v_px = u * U_A / PIXEL_A, v * V_A / PIXEL_A
    origin = np.array([0.5 * size, 0.3 * size])
    reach = np.arange(-40, 41)
    rows = []
    for species, fu, fv, amplitude in SITES:
        i, j = (a.ravel() for a in np.meshgrid(reach + fu, reach + fv))
        rows.append(pd.DataFrame({"species": species, "i": i, "j": j, "amplitude": amplitude}))
    frame = pd.concat(rows, ignore_index=True)
    xy = origin + frame[["i"]].to_numpy() * u_px + frame[["j"]].to_numpy() * v_px
    keep = np.all((xy > 3) & (xy < size - 4), axis=1)
    if interface:
        keep &= (frame["i"] + frame["j"]).to_numpy() <= 0.5
    frame, xy = frame[keep].reset_index(drop=True), xy[keep]
    lattice = SimpleNamespace(
        origin_px=origin,
        u_px=u_px,
        v_px=v_px,
        position=lambda ij: origin + np.asarray(ij) @ np.stack([u_px, v_px]),
    )
    return frame, lattice, xy, normal


def _columns(size: int, interface: bool, rng: np.random.Generator) -> tuple:
    frame, lattice, xy, normal = _sites(size, interface)
    n = len(frame)
    layer = (frame["i"] + frame["j"]).to_numpy()
    number = 1 - np.floor(layer)
    is_k, is_o = (frame["species"] == "K").to_numpy(), (frame["species"] == "O").to_numpy()
    true = np.where(is_k & interface, 0.54 * np.exp(-(number - 1) / 2.0), 0.0)
    true_occ = 1 - interface * 0.75 * np.exp(-(((number - 1) / 3.4) ** 3))
    occupancy = np.where(is_o, np.clip(true_occ + rng.normal(0, 0.05, n), 0, 1.3), np.nan)
    u, _, _ = directions(4.0)
    xy = xy + true[:, None] * u / PIXEL_A + rng.normal(0, 0.03 / PIXEL_A, (n, 2))
    amplitude = frame.pop("amplitude").to_numpy() * np.where(is_o, np.nan_to_num(occupancy), 1.0)
    sigma = np.full(n, 0.55)
    delta = np.where(is_k, true + rng.normal(0, 0.045, n), np.nan)
    quality = np.where(number == 1, int(Quality.NEAR_FILM), 0)
    edge = np.any((xy < 8) | (xy > size - 9), axis=1)
    quality = quality | np.where(edge, int(Quality.EDGE), 0)
    quality = quality | np.where(is_o & (occupancy < 0.12), int(Quality.NOT_DETECTED), 0)
    frame = frame.assign(
        layer=layer,
        N=pd.array(number, dtype="Int64") if interface else pd.NA,
        x_px=xy[:, 0],
        y_px=xy[:, 1],
        x_A=xy[:, 0] * PIXEL_A,
        y_A=xy[:, 1] * PIXEL_A,
        x_err_A=0.03,
        y_err_A=0.03,
        intensity=amplitude * 2 * np.pi * sigma**2,
        intensity_err=0.02,
        sigma_A=sigma,
        significance=20.0,
        chi2=1.0,
        delta_A=delta,
        delta_err_A=np.where(is_k, 0.04, np.nan),
        delta_perp_A=np.where(is_k, rng.normal(0, 0.045, n), np.nan),
        delta_perp_err_A=np.where(is_k, 0.04, np.nan),
        occupancy=occupancy,
        occupancy_err=np.where(is_o, 0.05, np.nan),
        quality=quality.astype(np.int64),
    )
    if not interface:
        frame["layer"] = np.nan
    return frame, lattice, normal, amplitude


def _image(
    size: int, frame: pd.DataFrame, amplitude: np.ndarray, rng: np.random.Generator, film: Any
) -> np.ndarray:
    image = np.zeros((size, size))
    y, x = np.mgrid[:size, :size]
    blobs = zip(frame["x_px"], frame["y_px"], amplitude, strict=True)
    extra = rng.uniform(0, size, (900, 2)) if film is not None else np.empty((0, 2))
    outside = [p for p in extra if (p - film[0]) @ film[1] > 4]
    spots = [*blobs, *((px, py, 0.45) for px, py in outside)]
    s = 0.55 / PIXEL_A
    for px, py, a in spots:
        r = (slice(max(int(py) - 16, 0), int(py) + 17), slice(max(int(px) - 16, 0), int(px) + 17))
        image[r] += a * np.exp(-((x[r] - px) ** 2 + (y[r] - py) ** 2) / (2 * s**2))
    return (image + rng.normal(0, 0.04, image.shape)).astype(np.float32)


def _straight_line(point, normal, shape):
    """Points where a line through `point` across `normal` leaves the image."""
    x = np.linspace(-0.5, shape[1] - 0.5, 20)
    return np.column_stack([x, point[1] - (x - point[0]) * normal[0] / normal[1]])


def _planes(frame: pd.DataFrame) -> pd.DataFrame:
    rows = []
    last = int(frame.loc[frame["species"] == "K", "N"].max())
    for n in range(1, last):
        k = frame[(frame["species"] == "K") & (frame["N"] == n)]
        o = frame[(frame["species"] == "O") & (frame["N"] == n)]
        rows.append(
            {
                "N": n,
                "depth_nm": (n - 1) * SPACING_A / 10,
                "n_columns": len(k),
                "delta_A": k["delta_A"].mean(),
                "delta_err_A": 1.4 * 0.045 / np.sqrt(len(k)),
                "delta_noise_A": 0.045 / np.sqrt(len(k)),
                "delta_perp_A": k["delta_perp_A"].mean(),
                "delta_perp_err_A": 1.4 * 0.045 / np.sqrt(len(k)),
                "n_anions": len(o),
                "occupancy": o["occupancy"].mean(),
                "occupancy_err": 0.07 / np.sqrt(len(o)),
            }
        )
    frame = pd.DataFrame(rows)
    return frame.astype({"N": "Int64", "n_columns": "Int64", "n_anions": "Int64"})


def _profile(image: np.ndarray, origin: np.ndarray, v_px: np.ndarray, u_px: np.ndarray) -> tuple:
    from scipy.ndimage import map_coordinates

    start = origin + 0.5 * u_px + 3.5 * v_px
    end = origin + 0.5 * u_px - 10.5 * v_px
    t = np.linspace(0, 1, 700)
    line = start + t[:, None] * (end - start)
    values = map_coordinates(image.astype(float), line.T[::-1], order=1)
    s = t * 14.0 * V_A
    number = pd.array([pd.NA] * t.size, dtype="Int64")
    for n in range(1, 11):
        number[int(np.argmin(np.abs(s - (3.0 + n) * V_A)))] = n
    frame = pd.DataFrame({"s_A": s, "intensity": values, "N": number})
    return frame, np.stack([start, end])


def _cages(frame: pd.DataFrame, rng: np.random.Generator) -> Any:
    k = frame[(frame["species"] == "K") & frame["N"].ge(1)]
    mean = frame[frame["species"] == "O"].groupby("N")["occupancy"].mean()
    cages = k[["i", "j", "N", "delta_A"]].assign(
        cage_occupancy=k["N"].map(mean).to_numpy(dtype=float) + rng.normal(0, 0.025, len(k))
    )
    return SimpleNamespace(cages=cages.dropna())


def _predict(number: Any) -> tuple[np.ndarray, np.ndarray]:
    number = np.atleast_1d(np.asarray(number, dtype=float))
    return 0.538 * np.exp(-(number - 1) / 2.03) + 0.001, np.full(number.shape, 0.01)


def _summary(frame: pd.DataFrame, size: int, interface: Any) -> dict:
    return {
        "schema": 1,
        "stemdisp": "0.1.0",
        "input": {
            "path": ["sample_data/lao_kto_111.hspy"],
            "kind": "stack",
            "shape": [8, size, size],
            "n_frames": 8,
            "sha256": "0f" * 32,
        },
        "pixel_size_A": [PIXEL_A, PIXEL_A],
        "lattice": {"u_A": U_A, "v_A": V_A, "angle_deg": 90.0, "rotation_deg": 4.0, "margin": 7.5},
        "interface": interface,
        "bulk_offset_A": {
            "delta": 0.012,
            "delta_err": 0.004,
            "delta_perp": -0.006,
            "delta_perp_err": 0.004,
            "n_columns": 96,
        },
        "decay": {
            "delta0_A": 0.538,
            "delta0_err_A": 0.014,
            "delta0_ci_A": [0.51, 0.566],
            "xi_planes": 2.03,
            "xi_ci_planes": [1.87, 2.21],
            "xi_nm": 0.467,
            "xi_ci_nm": [0.431, 0.509],
            "c_A": 0.001,
            "c_err_A": 0.004,
            "model": "exponential",
            "note": "",
        },
        "depth": {
            "displacement": {"N": 6, "ci": [5, 8], "method": "sequential test", "note": ""},
            "vacancy": {"N": 6, "ci": [5, 7], "method": "sequential test", "note": ""},
            "difference": {"N": 0, "ci": [-2, 1]},
        },
        "correlation": {
            "between_planes": {
                "spearman": 0.93,
                "spearman_ci": [0.80, 0.98],
                "pearson": 0.88,
                "pearson_ci": [0.70, 0.95],
                "n_planes": 18,
            },
            "within_planes": {"r": -0.03, "p": 0.61, "ci": [-0.15, 0.09], "n_columns": 260},
        },
        "null_test": {
            "bulk_delta_chi2": 1.04,
            "bulk_delta_p": 0.38,
            "bulk_occupancy_p": 0.52,
            "n_planes": 9,
            "passed": True,
        },
        "interpretation": {
            "measured": "K/O column",
            "f": 0.61,
            "f_err": 0.05,
            "delta1_cation_only_A": 0.885,
            "delta1_whole_column_A": 0.59,
            "note": "f from multislice at 10 nm.",
        },
        "refine": {
            "noise": "idpc",
            "noise_level": 0.04,
            "chi2": {"K": 1.0, "Ta": 1.1, "O": 0.98},
            "sigma_A": {"K": 0.55, "Ta": 0.55, "O": 0.55},
            "misfit": False,
            "spectrum_slope": -1.9,
            "iterations": 9,
        },
        "registration": {
            "origin_px": [2.0, 3.0],
            "n_used": 7,
            "max_shift_A": 5.4,
            "guard": {"frames_refused": 1},
        },
        "quality": count_quality(frame),
        "warnings": [{"code": "thickness", "message": "the thickness was given, not measured"}],
        "timings_s": {"load": 0.2, "refine": 3.1},
        "versions": {"python": "3.11.7", "numpy": "2.4.6"},
    }


def _frames(rng: np.random.Generator) -> pd.DataFrame:
    n = 8
    return pd.DataFrame(
        {
            "frame": np.arange(n),
            "shift_x_A": np.cumsum(rng.normal(0.3, 0.4, n)),
            "shift_y_A": np.cumsum(rng.normal(-0.2, 0.4, n)),
            "dose_e_per_A2": 500.0,
            "used": [True] * 5 + [False] + [True] * 2,
            "correlation": rng.uniform(0.8, 0.9, n),
            "delta1_A": 0.54 + rng.normal(0, 0.03, n),
            "delta1_err_A": 0.03,
            "occupancy1": 0.35 + rng.normal(0, 0.03, n),
            "occupancy1_err": 0.03,
        }
    )


def _series(frames: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Every used frame a point, and four cumulative means."""
    used = frames[frames["used"]]
    middle = frames["dose_e_per_A2"].cumsum() - frames["dose_e_per_A2"] / 2
    rows = [("point", k, [k]) for k in used["frame"]]
    rows += [("cumulative", None, list(used["frame"][:m])) for m in (2, 4, 6, 7)]
    table = []
    for kind, point, index in rows:
        error = 0.03 / np.sqrt(len(index))
        own = frames.loc[index, ["delta1_A", "occupancy1"]].mean()
        table.append(
            {
                "kind": kind,
                "point": point,
                "first_frame": index[0],
                "last_frame": index[-1],
                "n_frames": len(index),
                "frame_middle": np.mean(index) + 0.5,
                "dose_start_e_per_A2": 500.0 * index[0],
                "dose_end_e_per_A2": 500.0 * (index[-1] + 1),
                "dose_middle_e_per_A2": middle[index].mean(),
                "delta1_A": own["delta1_A"],
                "delta1_err_A": error,
                "occupancy1": own["occupancy1"],
                "occupancy1_err": error,
                **{"N_disp": 6.0 + rng.integers(0, 2), "N_disp_low": 5.0, "N_disp_high": 8.0},
                **{"N_vac": 6.0, "N_vac_low": 6.0, "N_vac_high": 7.0},
            }
        )
    return ordered(pd.DataFrame(table), "dose_series")


@lru_cache(maxsize=4)
def make(*, interface: bool = True, size: int = 440, seed: int = 1) -> FakeResult:
    """Build the made-up result; read-only, so it is made once."""
    rng = np.random.default_rng(seed)
    columns, lattice, normal, amplitude = _columns(size, interface, rng)
    top = lattice.origin_px + normal * 0.9 * SPACING_A / PIXEL_A
    image = _image(size, columns, amplitude, rng, (top, normal) if interface else None)
    face, planes, profile, line, info = (
        None,
        pd.DataFrame({"N": pd.array([], "Int64")}),
        None,
        None,
        None,
    )
    if interface:
        face = SimpleNamespace(
            side="up",
            position_px=top,
            normal=normal,
            position_err_A=0.3,
            roughness_planes=0.4,
            terrace=lambda ij: np.zeros(len(ij), dtype=int),
            outline=lambda lattice, shape: _straight_line(top, normal, shape),
        )
        info = {
            "side": "up",
            "position_px": top.tolist(),
            "normal": normal.tolist(),
            "position_err_A": 0.3,
            "roughness_planes": 0.4,
            "n_planes": 18,
        }
        planes = _planes(columns)
        profile, line = _profile(image, lattice.origin_px, lattice.v_px, lattice.u_px)
    summary = _summary(columns, size, info)
    if not interface:
        summary |= {"decay": None, "depth": None, "correlation": None}
        summary["null_test"] = dict.fromkeys(summary["null_test"])
        summary["interpretation"] = dict.fromkeys(summary["interpretation"]) | {
            "measured": "K/O column"
        }
        summary["bulk_offset_A"] = dict.fromkeys(summary["bulk_offset_A"], float("nan"))
    frames = _frames(rng) if interface else None
    series = None if frames is None else _series(frames, np.random.default_rng(seed))
    if series is not None:
        summary["dose_series"] = judge_damage(series, doses=frames["dose_e_per_A2"])
    sites = tuple(SimpleNamespace(species=s, u=fu, v=fv) for s, fu, fv, _ in SITES)
    projection = SimpleNamespace(
        name="KTaO3 [1-10]",
        zone_axis=(1, -1, 0),
        u_uvw=(0.5, 0.5, 0.0),
        v_uvw=(0.0, 0.0, 1.0),
        sites=sites,
        species=("K", "Ta", "O"),
        period_A=np.sqrt(2) * A_LAT,
    )
    return FakeResult(
        config=Config(interface=InterfaceConfig(present="auto" if interface else False)),
        decay=SimpleNamespace(predict=_predict, xi_planes=2.03) if interface else None,
        correlation=_cages(columns, rng) if interface else None,
        summary=summary,
        columns=columns,
        planes=planes,
        line_profile=profile,
        frames=frames,
        dose_series=series,
        image=image,
        pixel_size_A=(PIXEL_A, PIXEL_A),
        residual=rng.normal(0, 0.04, image.shape).astype(np.float32),
        lattice=lattice,
        interface=face,
        projection=projection,
        profile_line_px=line,
    )


def changed(result: FakeResult, **changes: Any) -> FakeResult:
    """Return a copy with some attributes replaced; `summary` entries are merged in."""
    if "summary" in changes:
        changes["summary"] = result.summary | changes["summary"]
    return replace(result, **changes)
