"""Inputs from which fuzzing starts, and the words that it puts into them."""

from __future__ import annotations

import hashlib
import io
import json
import struct

import numpy as np

from stemdisp import __version__, config, corrections, tables
from stemdisp.report.files import config_toml

SPLIT = b"\n%%%%\n"  # between the files that one input stands for
SETTINGS: dict[str, object] = {"input": {"kind": "auto"}, "files": {}}  # of an earlier run

TOML = (
    *(
        r'''[ ] [[ ]] { } = " """" ' # true false nan inf -inf 1e400 0x10 1979-05-27T07:32:00Z '''
        r"07:32:00 \u0000 \u001b \ud800 9223372036854775808 99999999999999999999999999 1_000 "
        r"-0.0 \u001b[2J \u202e \n *.hspy a::b none auto .cif"
    ).split(),
    "\n",
    "\u202e",
    "\ufeff",
    "9" * 4400,
    "[" * 1200,
)
JSON = (
    *(
        r'null true NaN Infinity -1 1e999 [] {} "" [[[[[[[[ "\ud800" , 999999999999999999999 0 '
        r'1.5 "x" \u0000 :'
    ).split(),
    "[null, null]",
    "9" * 400,
)
CSV = (
    *(
        r', " nan inf -1 1e308 1e-320 ; ratio occupancy occupancy_err 1 0 0.5 True '
        r"999999999999999999999999999999 1979-01-01 N quality"
    ).split(),
    "\n",
    "\r",
    "",
    "\x00",
    "\ufeff",
)
CIF = (
    *(
        r"""' " ? . 0.5(2) nan inf 1e300 _cell_length_a _space_group_IT_number """
        r"_symmetry_equiv_pos_as_xyz x,y,z -x,1/2+y,z 227 save_ global_ # _atom_site_fract_x "
        r"_atom_site_occupancy 180"
    ).split(),
    "loop_\n",
    "data_y\n",
    ";\n",
    "P 1",
    "R -3 m",
    "P n -3 m",
)
UNITS = (
    *(r"nm 1/nm mrad n_m [ ] /px null 1e309 -0.1").split(),
    "\xc5",
    "\u03bcm",
    "[0.1, ",
)
PATHS = (
    *(r"/ .. :: . * [ ] ? ~ con aux. fields.csv planes.csv - $(x) `x` \ :").split(),
    "\n",
    "\u202e",
    "e\u0301",
    "\xe9",
    " ",
    "9" * 300,
    "\u0130",
    "\xdf",
)
MARKS = (
    *(r"../ /").split(),
    "report.html\n",
    "mine.txt\n",
    "fields.csv\n",
    "\n",
    "\x00",
    "planes.csv\n",
    "\u2028",
)
KEYS = tuple(spec.key.rpartition(".")[2] for spec in config.describe())
SECTIONS = tuple(dict.fromkeys(f"[{spec.key.partition('.')[0]}]\n" for spec in config.describe()))


def _npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros((4, 4), "<f4"))
    return stream.getvalue()


def _mrc() -> bytes:
    head = bytearray(1024)
    struct.pack_into("<4i", head, 0, 4, 4, 1, 1)
    head[208:216] = b"MAP DA\0\0"
    return bytes(head) + bytes(32)


def header_seeds() -> list[bytes]:
    dm3 = struct.pack(">3i", 3, 100, 1) + bytes(20)
    dm4 = struct.pack(">iqi", 4, 100, 1) + bytes(20)
    return [_npy(), _mrc(), dm3, dm4, b"II\x97\x01" + bytes(40), b"text", b"PK\3\4"]


def batch_seeds() -> list[bytes]:
    depth = {"N": 6, "ci": [5, None]}
    summary = {
        "stemdisp": __version__,
        "configuration": SETTINGS,
        "input": {"path": ["data.npy"], "sha256": hashlib.sha256(b"data").hexdigest()},
        "pixel_size_A": [0.14, 0.14],
        "decay": {"delta0_A": 0.5, "delta0_err_A": 0.1, "xi_planes": 2.0, "xi_ci_planes": [1, 3]},
        "depth": {"displacement": depth, "vacancy": depth, "difference": {"N": 0, "ci": [-2, 1]}},
        "bulk_offset_A": {"delta": 0.01, "delta_err": 0.004},
        "warnings": [{"code": "drift", "message": "much"}],
    }
    names = list(tables.specs("planes"))
    lines = [
        ",".join(names),
        ",".join(["1"] * len(names)),
        ",".join(["2"] + [""] * (len(names) - 1)),
    ]
    marker = b"planes.csv\nsummary.json\n"
    planes_csv = ("\n".join(lines) + "\n").encode()
    bare = summary | {"decay": None, "depth": None}
    return [
        json.dumps(each).encode() + SPLIT + planes_csv + SPLIT + marker for each in (summary, bare)
    ]


def zspy_seeds() -> list[bytes]:
    array = {"zarr_format": 2, "shape": [4, 4], "chunks": [4, 4], "dtype": "<f4", "order": "C"}
    array |= {"compressor": None, "fill_value": 0, "filters": None}
    axis = {"name": "x", "scale": 0.1, "size": 4, "units": "nm", "navigate": False}
    group = b'{"zarr_format": 2}'
    attrs = b'{"learning_results": {}, "ragged": false}'
    whole = [group, b"", attrs, json.dumps(axis).encode(), json.dumps(array).encode(), bytes(64)]
    packed = array | {"compressor": {"id": "blosc", "cname": "lz4"}}
    piece = struct.pack("<4B3I", 2, 1, 0, 4, 64, 64, 80) + bytes(64)
    copied = json.dumps({"metadata": {".zgroup": {"zarr_format": 2}}}).encode()
    other = [group, copied, attrs, json.dumps(axis).encode(), json.dumps(packed).encode(), piece]
    return [SPLIT.join(whole), SPLIT.join(other)]


def cif_seeds() -> list[bytes]:
    head = "data_x\n_cell_length_a 4.0\n_cell_length_b 4.0\n_cell_length_c 4.0\n"
    head += "_cell_angle_alpha 90\n_cell_angle_beta 90\n_cell_angle_gamma 90\n"
    loop = "loop_\n_atom_site_label\n_atom_site_type_symbol\n_atom_site_fract_x\n"
    loop += "_atom_site_fract_y\n_atom_site_fract_z\n_atom_site_occupancy\n"
    atoms = "K1 K 0 0 0 1\nTa1 Ta 0.5 0.5 0.5 1\nO1 O 0.5 0.5 0 1\n"
    number = "_space_group_IT_number 221\n"
    name = "_symmetry_space_group_name_H-M 'P m -3 m'\n"
    ops = "loop_\n_space_group_symop_operation_xyz\n'x,y,z'\n'-x,-y,z'\n"
    return [(head + more + loop + atoms).encode() for more in (number, name, ops)]


def config_seeds() -> list[bytes]:
    rest = '[input]\npath = ["a.hspy", "b"]\nkind = "stack"\npixel_size = 0.1\n[crystal]\n'
    rest += 'structure = "x.cif"\ncage = "Ta"\nborn_charges = {K = 1.0, O = -2.0}\n[interface]\n'
    rest += "present = false\n[specimen]\nthickness_nm = 10.0\n[analysis]\nseed = 3\n"
    return [config_toml(config.Config()).encode(), rest.encode(), b"[interface]\nat = [[1, 2.5]]\n"]


def corrections_seeds() -> list[bytes]:
    made = corrections.Corrections((), corrections.ImageId((640, 480), "0f" * 32, "a.hspy"))
    made = made.remove(1.0, 2.0).add("K", 3, 4.5).move((5, 6), (7, 8)).relabel(9, 10, "Ta")
    return [made.move_interface([(1, 2), (30, 4)]).to_toml().encode(), b"format = 1\n"]


def table_seeds() -> list[bytes]:
    names = list(tables.specs("columns"))
    extra = [name for name in ("intensity_ratio", "intensity_ratio_err") if name not in names]
    lines = [",".join(names + extra)]
    for species in ("K", "O"):
        cells = [species if name == "species" else "1" for name in names + extra]
        lines.append(",".join(cells))
    return ["\n".join(lines).encode(), b"species,quality,N\nK,0,1\n"]
