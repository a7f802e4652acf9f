"""What has been measured so far, on disk: an interrupted run goes on where it stopped."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "results" / "bench" / "measured.json"


class Store:
    """Records by name, each written as soon as it is there."""

    def __init__(self, path: Path, *, fresh: bool = False, resume: bool = False) -> None:
        """Take up an unfinished run; a finished one only to `resume`; nothing if `fresh`."""
        self.path = path
        self._content: dict[str, Any] = {"finished": False, "records": {}}
        if path.is_file() and not fresh:
            old = json.loads(path.read_text(encoding="utf-8"))
            if resume or not old["finished"]:
                self._content = old | {"finished": False}

    def get(self, name: str) -> Any:
        """Give a record; None where there is none."""
        found = self._content["records"].get(name)
        return None if found is None else found["value"]

    def put(self, name: str, value: Any) -> None:
        """Keep a record, on disk at once."""
        when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._content["records"][name] = {"at": when, "value": value}
        self._write()

    def finish(self) -> None:
        """Say that nothing is missing: the next run begins anew."""
        self._content["finished"] = True
        self._write()

    def span(self) -> tuple[str, str]:
        """Give the times of the first and of the last record."""
        times = sorted(r["at"] for r in self._content["records"].values())
        return (times[0], times[-1]) if times else ("", "")

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self._content), encoding="utf-8")
        os.replace(new, self.path)
