"""Which files a pattern means, and what their results are called."""

import itertools
import os
import sys

import pytest

from stemdisp._patterns import expand, field_names, in_order, is_pattern
from stemdisp.config import load_config
from stemdisp.errors import ConfigError

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="needs links")


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Return a function that makes files below the working directory."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        return tmp_path

    return make


def test_a_pattern_is_no_file_that_is_there(files):
    files("a[1].emd", "b.emd")
    assert [is_pattern(n) for n in ("*.emd", "a?.emd", "[ab].emd", "*.emd::iDPC")] == [True] * 4
    assert not any(map(is_pattern, ("a[1].emd", "b.emd", "b.emd::iDPC*", "absent.emd")))


def test_every_matching_file_once_in_natural_order(files):
    root = files("d/f10.emd", "d/f2.emd", "d/.f3.emd", "d/f1.tif", "d/deep/f4.emd", "e/f0.emd")
    (root / "d" / "folder.emd").mkdir()
    assert expand(["d/*.emd"], leave_out="out") == ["d/f2.emd", "d/f10.emd"]
    assert expand(["d/**/f*.emd"], leave_out="out") == ["d/deep/f4.emd", "d/f2.emd", "d/f10.emd"]
    two = expand(["e/*", "d/f?.*", "d/f2*"], leave_out="out")
    assert two == ["d/f1.tif", "d/f2.emd", "e/f0.emd"]
    assert expand(["d/f?.emd::iDPC"], leave_out="out") == ["d/f2.emd::iDPC"]


@needs_links
def test_a_file_under_two_names_is_one_field(files):
    root = files("d/a.emd")
    (root / "d" / "b.emd").symlink_to(root / "d" / "a.emd")
    (root / "d" / "loop").symlink_to(root / "d")
    assert expand(["d/**/*.emd"], leave_out="out") == ["d/a.emd"]


@needs_links
def test_the_output_is_no_input(files):
    root = files("d/a.emd", "d/out/a/b.emd", "elsewhere/c.emd", "d/outer/e.emd")
    (root / "d" / "link").symlink_to(root / "d" / "out")
    (root / "d" / "out" / "c.emd").symlink_to(root / "elsewhere" / "c.emd")
    assert expand(["d/**/*.emd"], leave_out="d/out") == ["d/a.emd", "d/outer/e.emd"]
    # without the exclusion they would be found
    assert len(expand(["d/**/*.emd"], leave_out="none")) == 4
    with pytest.raises(ConfigError, match=r"'d/out/\*/\*.emd' matches only files in the output"):
        expand(["d/out/*/*.emd"], leave_out=root / "d" / "out")


def test_what_cannot_be_meant_is_refused(files):
    files("a.emd", "b.emd")
    with pytest.raises(ConfigError, match=r"'\*.tif' matches no file"):
        expand(["*.tif"], leave_out="out")
    with pytest.raises(ConfigError, match=r"'\*.tif' matches no file"):
        expand(["*.emd", "*.tif"], leave_out="out")
    with pytest.raises(ConfigError, match=r"'\?.emd' is a pattern .* but 'b.emd' is a file"):
        expand(["?.emd", "b.emd"], leave_out="out")


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["d/a.emd", "d/b.emd"], ["a", "b"]),
        (["d/a.emd", "d/a.tif", "d/b.emd"], ["a.emd", "a.tif", "b"]),
        (["x/a.emd", "y/a.emd", "y/b.emd"], ["x-a", "y-a", "b"]),
        (["x/1/a.emd", "y/1/a.emd"], ["x-1-a", "y-1-a"]),
        (["x/a.emd", "x/a.tif", "y/a.emd"], ["x-a.emd", "x-a.tif", "y-a.emd"]),
        (["/x/a.emd", "../x/b.emd"], ["a", "b"]),
        (["my scan (2).emd", ".hidden.emd", "...emd"], ["my_scan__2_", "hidden", "field"]),
        (["-x.emd", "=1+1.emd", "@x.emd"], ["x", "_1_1", "_x"]),
        (["fields.csv.emd", "PLANES.CSV.emd", "con.emd"], ["fields.csv_", "PLANES.CSV_", "con_"]),
        (["Å.emd", "a.b.emd", "a..emd"], ["Å", "a.b", "a"]),
        (["a.emd::iDPC", "b.emd::iDPC"], ["a", "b"]),
    ],
)
def test_names_come_from_the_files(paths, names):
    assert field_names(paths) == names


HARD = [
    "a.emd",
    "A.emd",
    "x/a.emd",
    "x-a.emd",
    "x/a.tif",
    "a.emd.emd",
    "x y/a.emd",
    "x_y/a.emd",
    "../a.emd",
    "a.emd::iDPC",
    "a.emd::HAADF",
    "é.emd",
    "e\N{COMBINING ACUTE ACCENT}.emd",
    "m" * 240 + "1.emd",
    "m" * 240 + "2.emd",
    "é" * 120 + ".emd",
    "\udcff.emd",
    "\udcfe.emd",
    "a\nb.emd",
    "con.emd",
]


def test_names_differ_on_every_system_and_are_directories(tmp_path):
    names = field_names(HARD)
    assert len({name.casefold() for name in names}) == len(HARD)
    for name in names:
        assert len(os.fsencode(f".{name}.new-{'0' * 32}")) <= 255
        assert not name.startswith((".", "-")) and name.isprintable()
        (tmp_path / name).mkdir()
    assert len(list(tmp_path.iterdir())) == len(HARD)


def test_names_depend_on_the_set_of_paths_only():
    expected = dict(zip(HARD, field_names(HARD), strict=True))
    for k in range(len(HARD)):
        turned = [*HARD[k:], *HARD[:k]][::-1]
        assert dict(zip(turned, field_names(turned), strict=True)) == expected


def test_order_does_not_depend_on_the_order_given():
    paths = ["b/f1", "a/f10", "a/f9", "a/F9b", "a1/x", "a/2/y", "a/f09"]
    first = in_order(paths)
    assert first == ["a/2/y", "a/f09", "a/f9", "a/F9b", "a/f10", "a1/x", "b/f1"]
    assert all(in_order(p) == first for p in itertools.islice(itertools.permutations(paths), 200))


def test_a_pattern_in_the_configuration_starts_where_it_finds_a_file(files):
    root = files("data/f1.emd", "p[1]/a.toml", "p[1]/own/g1.emd")
    for pattern, found in (("data/*.emd", ["f1.emd"]), ("own/*.emd", ["g1.emd"])):
        (root / "p[1]" / "a.toml").write_text(f'[input]\npath = "{pattern}"\n')
        for cwd in (root, root / "p[1]"):
            os.chdir(cwd)
            (path,) = load_config(root / "p[1]" / "a.toml").input.path
            assert [os.path.basename(p) for p in expand([path], leave_out="out")] == found
    (root / "p[1]" / "a.toml").write_text('[input]\npath = "absent/*.emd"\n')
    assert load_config(root / "p[1]" / "a.toml").input.path == ("absent/*.emd",)
