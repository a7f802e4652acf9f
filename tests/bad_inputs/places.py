"""Places to write to that are not there, not free, not ours, full, or not to be written."""

from __future__ import annotations

import shutil
from pathlib import Path

from bad_inputs import Around, Call, case
from bad_inputs.formats import noise, write, write_hspy
from bad_inputs.server import may_mount, permissions_apply
from bad_inputs.warm import crystal

ELSEWHERE = r"name another|name a directory|free some|move it away"


def _place(name: str, fill: object, cause: str, remedy: str = ELSEWHERE, **more: object) -> None:
    """Register an output that is refused before the data are looked at."""

    @case(f"output: {name}", 2, cause, remedy, **more)
    def make(folder: Path) -> Call:
        return Call((write("npy", folder, noise()),), output=fill(folder))


def _file(folder: Path) -> Path:
    (folder / "file").write_text("precious")
    return folder / "file"


def _foreign(name: str):
    def fill(folder: Path) -> Path:
        (folder / "mine" / name).parent.mkdir(parents=True)
        (folder / "mine" / name).write_text("precious")
        return folder / "mine"

    return fill


def _with_notes(folder: Path) -> Path:
    (folder / "out" / "notes.md").write_text("precious")
    return folder / "out"


def _with_link(folder: Path) -> Path:
    (folder / "far").mkdir()
    (folder / "out" / "far").symlink_to(folder / "far", target_is_directory=True)
    return folder / "out"


def _batch(folder: Path) -> Path:
    (folder / "many").mkdir()
    (folder / "many" / ".stemdisp").write_text("fields.csv\nplanes.csv\n")
    (folder / "many" / "fields.csv").write_text("field\n")
    return folder / "many"


def _loop(folder: Path) -> Path:
    (folder / "loop").symlink_to("loop")
    return folder / "loop"


def _listed_outside(folder: Path) -> Path:
    """Give a list of files that names one elsewhere, which must not make it ours."""
    (folder / "out" / ".stemdisp").write_text("../image.npy\nreport.html\n")
    return folder / "out"


_place("a file", _file, "is a file")
_place("below a file", lambda folder: _file(folder) / "below", "cannot be|is a file")
_place("the root directory", lambda folder: Path("/"), "root directory", names_file=False)
_place("a directory of other files", _foreign("thesis.txt"), "holds 'thesis.txt'")
_place("a directory with a hidden file", _foreign(".profile"), "holds '.profile'")
_place("a directory with a file far below", _foreign("a/b/c.txt"), r"holds 'a/b/c\.txt'")
_place("old results with notes", _with_notes, r"holds 'notes\.md'")
_place("old results with a link", _with_link, "holds 'far'")
_place("old results with a list that lies", _listed_outside, "holds ")
_place("the results of a batch", _batch, "results of many fields")
_place("the folder of the data", lambda folder: folder, "holds ", names_file=False)
_place("a link to itself", _loop, "link|cannot be|is a file")
_place("a name too long", lambda folder: folder / ("a" * 300), "cannot be|too long", "name a")
_place("nothing", lambda folder: "", "--output is empty", names_file=False)
_place(
    "another run is writing there",
    lambda folder: folder / "out",
    "another run is writing",
    around=Around(hold_lock=True),
)

if permissions_apply():

    def _closed(folder: Path) -> Path:
        (folder / "closed").mkdir()
        shutil.move(folder / "out", folder / "closed" / "out")
        (folder / "closed").chmod(0o555)
        return folder / "closed" / "out"

    def _unreadable(folder: Path) -> Path:
        (folder / "out").chmod(0)
        return folder / "out"

    _place(
        "no permission beside it", _closed, "[Pp]ermission denied", around=Around(unprivileged=True)
    )
    _place(
        "no permission in it", _unreadable, "[Pp]ermission denied", around=Around(unprivileged=True)
    )


# ---- full disks: everything is computed, and cannot be kept ----------------------------


def _full(name: str, cause: str, around: Around, *, status: int = 3, slow: bool = False) -> None:
    @case(f"output: {name}", status, cause, ELSEWHERE, around=around, slow=slow, names_file=False)
    def make(folder: Path) -> Call:
        image = write_hspy(folder / "image.hspy", crystal())
        if not around.disk:
            return Call((image,))
        (folder / "disk").mkdir()
        return Call((image,), output=folder / "disk" / "out")


_full("no file may be large", "File too large", Around(largest_file=20_000))
for _k in (1, 2, 4, 6):
    _full(f"the disk is full at write {_k}", "No space left", Around(fail_write=_k), slow=_k != 2)
if may_mount():
    _full("a disk of 48 kB", "No space left", Around(disk="full"))
    _full("a disk that is read-only", "[Rr]ead-only", Around(disk="read-only"), status=2)


# ---- what has to work ------------------------------------------------------------------


def _works(name: str, fill: object, *, slow: bool = True, **more: object) -> None:
    @case(f"output: {name}", 0, slow=slow, **more)
    def make(folder: Path) -> Call:
        return Call((write_hspy(folder / "image.hspy", crystal()),), output=fill(folder))


def _through_link(folder: Path) -> Path:
    (folder / "link").symlink_to("out", target_is_directory=True)
    return folder / "link"


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


_works("old results", lambda folder: folder / "out", slow=False)
_works("a link to old results", _through_link)
_works("an empty directory", _empty)
_works("deep below what is not there", lambda folder: folder / "a" / "b" / "c")
_works("a name of quotes and other alphabets", lambda folder: folder / 'it\'s "α" $(id)\t界')
_works(
    "old results beside a file manager's", lambda f: ((f / "out/.DS_Store").touch(), f / "out")[1]
)


@case(
    "output: the working directory is gone",
    2,
    "No such file",
    ELSEWHERE,
    names_file=False,
    around=Around(nowhere=True),
)
def _(folder: Path) -> Call:
    path = write("npy", folder, noise())
    return Call((path,), output="somewhere")
