"""A stand-in for the pipeline and the report: a field's file says what its analysis gives."""

from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import pandas as pd

import stemdisp
from stemdisp._provenance import settings_of, sha256_of
from stemdisp.errors import DataError
from stemdisp.report.files import write_csv


def run(config: Any, *, progress: bool = False) -> Any:
    """Return a result whose displacement is the number in the file."""
    (path,) = config.input.path
    text = Path(path.partition("::")[0]).read_text()
    if text == "bad":
        raise DataError(f"{path}: too\nsmall")
    if text == "bug":
        raise KeyError("k")
    if text == "stop":
        raise KeyboardInterrupt
    return types.SimpleNamespace(config=config, delta=float(text))


def write(result: Any, folder: Path, *, progress: bool = False) -> None:
    """Write the two files that a batch reads, and one that it does not."""
    path, delta = result.config.input.path, result.delta
    summary = {
        "stemdisp": stemdisp.__version__,
        "input": {"path": list(path), "sha256": sha256_of(path)},
        "configuration": settings_of(result.config),
        "pixel_size_A": [0.1, 0.4],
        "decay": {"delta0_A": delta + 0.01, "xi_planes": 2.0, "xi_ci_planes": [1.8, None]},
        "depth": {"vacancy": {"N": 5, "ci": [4.0, 7.0]}, "difference": {"N": -1, "ci": None}},
        "bulk_offset_A": {"delta": 0.02, "delta_err": 0.001},
        "warnings": [{"code": "misfit"}, {"code": "tilt-offset"}],
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    planes = pd.DataFrame({"N": [1, 2], "delta_A": [delta, delta / 2], "delta_err_A": 0.01})
    write_csv(planes, "planes", folder / "planes.csv")
    (folder / "report.html").write_text(f"{delta}")


def modules() -> dict[str, types.ModuleType]:
    """Return both as modules."""
    pipeline, report = types.ModuleType("pipeline"), types.ModuleType("report")
    pipeline.run, pipeline.check_settings = run, lambda config: None
    report.write = write
    return {"pipeline": pipeline, "report": report}


def install() -> None:
    """Put them in the place of the real ones, for good: in a process of their own."""
    for name, module in modules().items():
        sys.modules[f"stemdisp.{name}"] = module
        setattr(stemdisp, name, module)


def tree(folder: Path) -> dict[str, bytes]:
    """Read all files but locks; the seconds that a run took are left out."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.endswith(".lock"):
            content = path.read_bytes()
            if path.name == "summary.json":
                summary = json.loads(content)
                summary.pop("timings_s", None)
                content = json.dumps(summary).encode()
            if path.name == "report.html":
                content = re.sub(rb"<h3>Time</h3>.*?</div>", b"", content, flags=re.DOTALL)
            files[path.relative_to(folder).as_posix()] = content
    return files
