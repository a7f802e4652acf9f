"""What was run: checksums of the files, and the settings as summary.json records them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stemdisp._stores import files_of
from stemdisp.config import Config, config_to_dict, with_input


def sha256_of(paths: Iterable[str]) -> str:
    """Compute the checksum of files one after the other, as one stream.

    Of a directory that is a store, the name of each file in it counts too.

    Parameters
    ----------
    paths : iterable of str
        Files or stores, or FILE::NAME; anything else adds nothing.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    OSError
        A file cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        for name, file in files_of(path.partition("::")[0]):
            digest.update(os.fsencode(name))
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def settings_of(config: Config) -> dict[str, Any]:
    """Give all that decides the result beside the data: two equal ones give equal results.

    Parameters
    ----------
    config : Config
        The configuration of a run.

    Returns
    -------
    dict
        One dictionary per table, without ``input.path``; and ``files``, the checksum of each
        file that a key names.
    """
    # the path may hold bytes that are no text
    settings: dict[str, Any] = config_to_dict(with_input(config, ("data",)))
    del settings["input"]["path"]
    named = {
        "input.corrections": config.input.corrections,
        "crystal.structure": config.crystal.structure,
        "analysis.occupancy_calibration": config.analysis.occupancy_calibration,
    }
    settings["files"] = {
        key: sha256_of([name]) for key, name in named.items() if Path(name).is_file()
    }
    return settings
