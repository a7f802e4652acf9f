"""Files of formats that nothing installed here writes, made by their published layouts."""

import json
import struct

import h5py
import numpy as np


def write_mrc(path, data, *, pixel_A=0.3, nx=None):
    """Write a minimal MRC file of 32-bit floats."""
    frames, height, width = data.shape
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, nx or width, height, frames, 2)
    struct.pack_into("<3i", header, 28, width, height, frames)
    struct.pack_into("<3f", header, 40, width * pixel_A, height * pixel_A, frames)
    header[208:212] = b"MAP "
    header[212:216] = b"\x44\x44\x00\x00"
    path.write_bytes(bytes(header) + data.astype("<f4").tobytes())
    return path


def write_ser(path, data, *, pixel_m=3e-11):
    """Write a minimal TIA series of images of 32-bit floats: (y, x) or (frames, y, x)."""
    frames = data if data.ndim == 3 else data[None]
    n, height, width = frames.shape
    dimension = struct.pack("<iddiii", n, 0.0, 1.0, 0, 0, 0)
    start = 30 + len(dimension)
    header = struct.pack("<HHHiiiiii", 0x4949, 0x0197, 0x0210, 0x4122, 0x4152, n, n, start, 1)
    calibration = struct.pack("<ddi", 0.0, pixel_m, 0) * 2
    bodies = [
        calibration + struct.pack("<hii", 7, width, height) + frame.astype("<f4").tobytes()
        for frame in frames
    ]
    tag = struct.pack("<hii", 0x4152, 0, 0)
    first = start + 8 * n
    elements = [first + k * len(bodies[0]) for k in range(n)]
    tags = [first + n * len(bodies[0]) + k * len(tag) for k in range(n)]
    offsets = struct.pack(f"<{2 * n}i", *elements, *tags)
    path.write_bytes(header + dimension + offsets + b"".join(bodies) + tag * n)
    return path


def write_emd(path, images):
    """Write an NCEM EMD file with one group per named image, axes in nm."""
    with h5py.File(path, "w") as file:
        file.attrs["version_major"], file.attrs["version_minor"] = 0, 2
        for name, data in images.items():
            group = file.create_group(f"data/{name}")
            group.attrs["emd_group_type"] = 1
            group["data"] = data.T
            for k, size in enumerate(data.T.shape, start=1):
                dim = group.create_dataset(f"dim{k}", data=np.arange(size) * 0.02 * k)
                dim.attrs["name"], dim.attrs["units"] = "xyz"[k - 1], "[n_m]"
    return path


def write_velox(path, images, *, pixel_m=(3e-11, 2e-11)):
    """Write a minimal Velox EMD file with one image (y, x, frames) per named detector.

    Complex data become the pairs of numbers that Velox makes of a DPC vector.
    """
    detectors = {f"Detector-{k}": {"DetectorName": name} for k, name in enumerate(images)}
    with h5py.File(path, "w") as file:
        version = json.dumps({"format": "Velox", "version": "1.10"}).encode()
        file.create_dataset("Version", data=[version], dtype=h5py.special_dtype(vlen=bytes))
        for k, data in enumerate(images.values()):
            metadata = {
                "BinaryResult": {
                    "DetectorIndex": str(k),
                    "PixelSize": {"width": str(pixel_m[0]), "height": str(pixel_m[1])},
                    "PixelUnitX": "m",
                    "PixelUnitY": "m",
                },
                "Acquisition": {},
                "Core": {"MetadataDefinitionVersion": "7.9"},
                "CustomProperties": {},
                "Detectors": detectors,
                "Instrument": {},
                "Optics": {},
                "Scan": {"FrameTime": "1.0"},
                "Stage": {},
            }
            text = np.zeros((4000, 1), dtype=np.uint8)
            coded = json.dumps(metadata).encode()
            text[: len(coded), 0] = np.frombuffer(coded, dtype=np.uint8)
            group = file.create_group(f"Data/Image/{k:032x}")
            frames = np.moveaxis(data[None] if data.ndim == 2 else data, 0, -1)
            if frames.dtype.kind == "c":
                pairs = np.empty(frames.shape, [("realFloat", "<f4"), ("imagFloat", "<f4")])
                pairs["realFloat"], pairs["imagFloat"] = frames.real, frames.imag
                frames = pairs
            # Velox stores each frame in a piece of its own
            group.create_dataset("Data", data=frames, chunks=(*frames.shape[:2], 1))
            group["Metadata"] = text
            group["FrameLookupTable"] = np.zeros(1, dtype=np.int64)
    return path


def write_dm3(path, images, *, pixel_nm=(0.02, 0.03)):
    """Write a DigitalMicrograph 3 file of float32 images or series, one per name.

    Layout by the published descriptions of the tag format: header and tag
    structure big-endian, the values in the order that the header names (here little-endian).
    """
    root = _dm_root(images, pixel_nm, wide=False)
    path.write_bytes(struct.pack(">iii", 3, len(root) + 4, 1) + root + bytes(8))
    return path


def write_dm4(path, images, *, pixel_nm=(0.02, 0.03)):
    """Write the same as DigitalMicrograph 4: counts are 64 bits wide, and every tag has a size."""
    root = _dm_root(images, pixel_nm, wide=True)
    path.write_bytes(struct.pack(">iqi", 4, len(root) + 4, 1) + root + bytes(8))
    return path


def _dm_root(images, pixel_nm, *, wide):
    dm = _DmTags(wide=wide)
    image_list = [
        dm.group(
            "",
            [
                dm.group("ImageData", dm.image(data, pixel_nm)),
                dm.group("ImageTags", [dm.value("Made", 3, "<i", 1)]),
                dm.text("Name", name),
            ],
        )
        for name, data in images.items()
    ]
    return struct.pack(">BB" + dm.count, 1, 0, 1) + dm.group("ImageList", image_list)


class _DmTags:
    """Tags of a DigitalMicrograph file, of version 4 if they are wide."""

    def __init__(self, *, wide):
        self.wide, self.count = wide, "q" if wide else "i"

    def image(self, data, pixel_nm):
        size = [*reversed(data.shape)]
        scales = [*pixel_nm, 1.0][: data.ndim]
        units = ["nm", "nm", ""][: data.ndim]
        axes = [
            self.group(
                "",
                [
                    self.value("Origin", 6, "<f", 0.0),
                    self.value("Scale", 6, "<f", scale),
                    self.text("Units", unit),
                ],
            )
            for scale, unit in zip(scales, units, strict=True)
        ]
        brightness = [
            self.value("Origin", 6, "<f", 0.0),
            self.value("Scale", 6, "<f", 1.0),
            self.text("Units", ""),
        ]
        calibrations = [self.group("Brightness", brightness), self.group("Dimension", axes)]
        return [
            self.group("Calibrations", calibrations),
            self.tag("Data", [20, 6, data.size], data.astype("<f4").tobytes()),
            self.value("DataType", 3, "<i", 2),
            self.group("Dimensions", [self.value("", 5, "<I", n) for n in size]),
            self.value("PixelDepth", 3, "<i", 4),
        ]

    def group(self, name, tags):
        content = struct.pack(">BB" + self.count, 1, 0, len(tags)) + b"".join(tags)
        return self._entry(20, name, content)

    def tag(self, name, info, value):
        head = struct.pack(f">{len(info) + 1}{self.count}", len(info), *info)
        return self._entry(21, name, b"%%%%" + head + value)

    def value(self, name, code, form, value):
        return self.tag(name, [code], struct.pack(form, value))

    def text(self, name, text):
        return self.tag(name, [20, 4, len(text)], text.encode("utf-16-le"))

    def _entry(self, kind, name, content):
        size = struct.pack(">q", len(content)) if self.wide else b""
        return struct.pack(">BH", kind, len(name)) + name.encode() + size + content


def write_zspy(path, data, *, names=None, stemdisp=None, chunks=None):
    """Write HyperSpy's zarr layout (format 3.3, zarr 2): pixels of 0.02 x 0.03 nm, blosc.

    HyperSpy itself writes it with zarr 2 only, which abTEM's zarr 3 leaves no room for.
    """
    names = names or ["_None_"] * data.ndim
    signal = "Experiments/__unnamed__"
    groups = {
        "": {"file_format": "ZSpy", "file_format_version": "3.3"},
        "Experiments": {},
        signal: {"package": "hyperspy", "package_version": "2.5.0"},
        f"{signal}/attributes": {"_lazy": False, "ragged": False},
        f"{signal}/learning_results": {},
        f"{signal}/original_metadata": {},
        f"{signal}/metadata": {},
        f"{signal}/metadata/General": {"title": ""},
        f"{signal}/metadata/stemdisp": {},
    }
    for k, (name, size) in enumerate(zip(names, data.shape, strict=True)):
        image = k >= data.ndim - 2
        scale = (0.03, 0.02)[k - data.ndim] if image else 1.0
        axis = {"name": name, "size": size, "scale": scale, "offset": 0.0}
        axis |= {"navigate": not image, "units": "nm" if image else "_None_"}
        groups[f"{signal}/axis-{k}"] = axis
    for folder, attributes in groups.items():
        (path / folder).mkdir(parents=True)
        (path / folder / ".zgroup").write_text('{"zarr_format": 2}')
        (path / folder / ".zattrs").write_text(json.dumps(attributes))
    _zarr_array(path / signal / "data", data, chunks or data.shape)
    for key, values in (stemdisp or {}).items():
        values = np.array(values)
        _zarr_array(path / signal / "metadata/stemdisp" / f"_list_{key}", values, values.shape)
    return path


def _zarr_array(folder, data, chunks):
    """Write one array of zarr 2; text as HyperSpy keeps lists of it."""
    from itertools import product

    import numcodecs

    codec, text = numcodecs.Blosc(cname="zstd", clevel=1), data.dtype.kind == "U"
    described = {
        "zarr_format": 2,
        "shape": data.shape,
        "chunks": chunks,
        "dtype": "|O" if text else data.dtype.str,
        "compressor": codec.get_config(),
        "filters": [{"id": "vlen-utf8"}] if text else None,
        "fill_value": 0,
        "order": "C",
        "dimension_separator": "/",
    }
    folder.mkdir()
    (folder / ".zarray").write_text(json.dumps(described))
    grid = [range(-(-n // chunk)) for n, chunk in zip(data.shape, chunks, strict=True)]
    for index in product(*grid):
        piece = np.zeros(chunks, data.dtype)
        starts = [k * chunk for k, chunk in zip(index, chunks, strict=True)]
        part = data[tuple(slice(a, a + n) for a, n in zip(starts, chunks, strict=True))]
        piece[tuple(map(slice, part.shape))] = part
        coded = numcodecs.VLenUTF8().encode(piece.astype(object)) if text else piece
        file = folder.joinpath(*map(str, index))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(codec.encode(coded))
