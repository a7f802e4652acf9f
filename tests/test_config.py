import tomllib
from pathlib import Path

import pytest

from stemdisp.config import (
    Config,
    InputConfig,
    config_from_dict,
    config_to_dict,
    describe,
    load_config,
    toml_value,
    with_input,
)
from stemdisp.errors import ConfigError
from stemdisp.report.files import config_toml

PIPELINES = Path(__file__).resolve().parent.parent / "pipelines"

# The keys that users' files may hold: none may go.
CONTRACT = {
    "input": {
        "path": ["sample_data/lao_kto_111.hspy"],
        "kind": "auto",
        "pixel_size": "auto",
        "corrections": "none",
    },
    "crystal": {
        "structure": "KTaO3",
        "zone_axis": [1, -1, 0],
        "displaced": "K",
        "cage": "Ta/O",
        "born_charges": "auto",
    },
    "specimen": {"thickness_nm": "unknown"},
    "interface": {
        "present": "auto",
        "plane": [1, 1, 1],
        "count_along": [0, 0, 1],
        "film": "auto",
        "at": "auto",
    },
    "refine": {"noise": "auto"},
    "analysis": {
        "bulk_from": 10,
        "confidence": 0.95,
        "seed": 0,
        "occupancy_calibration": "auto",
        "dose_series": True,
    },
}


def test_defaults_are_those_promised():
    assert config_to_dict(Config()) == CONTRACT
    assert config_from_dict({}) == Config()
    assert config_from_dict(CONTRACT) == Config()


def test_describe_lists_every_key_once_with_its_default():
    described = {spec.key: spec for spec in describe()}
    expected = {f"{t}.{k}": v for t, keys in CONTRACT.items() for k, v in keys.items()}
    assert list(described) == list(expected)
    for key, value in expected.items():
        default = described[key].default
        assert (list(default) if isinstance(default, tuple) else default) == value
        assert described[key].doc.endswith(".") and described[key].type


def test_round_trip_of_other_values():
    given = {
        "input": {"path": "a.tif", "kind": "image", "pixel_size": 0.25},
        "specimen": {"thickness_nm": 12},
        "interface": {"present": False},
        "analysis": {"bulk_from": 5, "confidence": 0.9, "seed": 7},
    }
    config = config_from_dict(given)
    assert config.input.path == ("a.tif",)
    assert config.input.pixel_size == 0.25
    assert config.specimen.thickness_nm == 12.0
    assert config.interface.present is False
    assert config_from_dict(config_to_dict(config)) == config


def test_a_configuration_cannot_be_changed_in_place():
    with pytest.raises(AttributeError, match="immutable"):
        Config().input = InputConfig()


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"input": {"pth": "a"}}, r"\[input\] has no key 'pth'; did you mean 'path'\?$"),
        (
            {"input": {"bulk_form": 3}},
            r"\[input\] has no key 'bulk_form'; did you mean 'bulk_from' in \[analysis\]\?",
        ),
        (
            {"refine": {"film": "up"}},
            r"\[refine\] has no key 'film'; did .* 'film' in \[interface\]",
        ),
        ({"refine": {"xyzzy": 1}}, r"\[refine\] has no key 'xyzzy'; it has noise$"),
        ({"inptu": {}}, r"no table \[inptu\]; did you mean \[input\]\?"),
        ({"xyzzy": {}}, r"the tables are \[input\], \[crystal\]"),
        ({"path": "a"}, r"'path' stands outside its table; put it under \[input\]"),
        ({"input": 3}, r"input is a table; write \[input\] on a line of its own"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(tables, message):
    with pytest.raises(ConfigError, match=message):
        config_from_dict(tables)


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("input", "path", [""]),
        ("input", "path", 3),
        ("input", "kind", "images"),
        ("input", "pixel_size", "guess"),
        ("input", "pixel_size", 0),
        ("input", "pixel_size", -0.1),
        ("input", "pixel_size", float("inf")),
        ("input", "pixel_size", True),
        ("crystal", "structure", " "),
        ("crystal", "zone_axis", [0, 0, 0]),
        ("crystal", "zone_axis", [1, 0]),
        ("crystal", "zone_axis", [1.5, 0, 0]),
        ("crystal", "displaced", "k"),
        ("crystal", "cage", "Ta-O"),
        ("crystal", "cage", "Ta/Ta"),
        ("crystal", "cage", "K/O"),
        ("specimen", "thickness_nm", "thick"),
        ("specimen", "thickness_nm", float("nan")),
        ("interface", "present", "no"),
        ("interface", "present", 1),
        ("interface", "plane", [0, 0, 0]),
        ("interface", "at", "middle"),
        ("interface", "at", [[1.0, 2.0, 3.0]]),
        ("interface", "film", "top"),
        ("refine", "noise", "pink"),
        ("analysis", "bulk_from", 1),
        ("analysis", "bulk_from", 2.5),
        ("analysis", "confidence", 0.5),
        ("analysis", "confidence", 1.0),
        ("analysis", "seed", -1),
        ("analysis", "seed", True),
    ],
)
def test_values_that_are_not_allowed_are_named(table, key, value):
    with pytest.raises(ConfigError, match=key) as caught:
        config_from_dict({table: {key: value}})
    assert "\n" not in str(caught.value)
    assert "$" not in str(caught.value)


@pytest.mark.parametrize("confidence", [0.51, 0.999])
def test_values_just_inside_the_limits_pass(confidence):
    analysis = {"confidence": confidence, "bulk_from": 2, "seed": 0}
    assert config_from_dict({"analysis": analysis}).analysis.confidence == confidence


def test_a_plane_that_is_not_edge_on_is_refused_unless_there_is_no_interface():
    tables = {"crystal": {"zone_axis": [0, 0, 1]}}
    with pytest.raises(ConfigError, match=r"plane = \[1, 1, 1\] is not seen edge-on along"):
        config_from_dict(tables)
    assert config_from_dict({**tables, "interface": {"present": False}}).crystal.zone_axis[2] == 1
    assert config_from_dict({"crystal": {"zone_axis": [1, 1, -2]}})  # the null view


def test_counting_within_the_plane_is_refused():
    with pytest.raises(ConfigError, match="choose a direction that crosses it"):
        config_from_dict({"interface": {"count_along": [1, 1, -2]}})


def test_errors_of_a_file_name_the_file_and_the_line(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text("[input]\nkind = \n")
    with pytest.raises(ConfigError, match=r"bad\.toml: is not valid TOML: .*line 2.*; correct it"):
        load_config(path)
    path.write_text("[input]\npth = 'a'\n")
    with pytest.raises(ConfigError, match=r"bad\.toml: \[input\] has no key 'pth'"):
        load_config(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"bad\.toml: is not text"):
        load_config(path)
    with pytest.raises(ConfigError, match="no such configuration file"):
        load_config(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="is a directory; name a file in it"):
        load_config(tmp_path)


def test_relative_paths_start_at_the_working_directory_then_at_the_file(tmp_path, monkeypatch):
    project, work = tmp_path / "project", tmp_path / "work"
    for folder in (project / "pipelines", project / "data", work):
        folder.mkdir(parents=True)
    config = project / "pipelines" / "a.toml"
    config.write_text("[input]\npath = ['data/x.tif', 'y.tif', 'absent.tif', 'y.tif::iDPC']\n")
    (project / "data" / "x.tif").touch()
    (project / "pipelines" / "y.tif").touch()
    monkeypatch.chdir(work)
    x, y, absent, named = load_config(config).input.path
    assert Path(x) == project / "data" / "x.tif"
    assert Path(y) == project / "pipelines" / "y.tif"
    assert absent == "absent.tif"
    assert named == f"{project / 'pipelines' / 'y.tif'}::iDPC"
    (work / "y.tif").touch()
    assert load_config(config).input.path[1] == "y.tif"


def test_with_input_changes_nothing_else():
    changed = with_input(Config(), ("b.tif",))
    assert changed.input.path == ("b.tif",)
    assert config_to_dict(changed) | {"input": CONTRACT["input"]} == CONTRACT
    assert Config().input.path == ("sample_data/lao_kto_111.hspy",)


@pytest.mark.parametrize("value", [True, False, 3, 0.95, 'a\\b"c', ["x", 'y"'], [1, -1, 0]])
def test_toml_value_is_read_back(value):
    assert tomllib.loads(f"key = {toml_value(value)}")["key"] == value


@pytest.mark.parametrize("path", sorted(PIPELINES.glob("*.toml")), ids=lambda p: p.stem)
def test_the_pipelines_are_valid(path):
    assert load_config(path)


def test_the_default_pipeline_spells_out_the_defaults():
    written = tomllib.loads((PIPELINES / "lao_kto_111.toml").read_text(encoding="utf-8"))
    assert written == CONTRACT


@pytest.mark.parametrize("charges", ["{K = nan}", "{potassium = 1.0}", "{K = inf, O = -2.0}"])
def test_charges_must_be_numbers_of_species(tmp_path, charges):
    path = tmp_path / "a.toml"
    path.write_text(f"[crystal]\nborn_charges = {charges}\n")
    with pytest.raises(ConfigError, match="born_charges"):
        load_config(path)


def test_charges_and_a_curve_survive_the_way_to_the_report(tmp_path):
    path = tmp_path / "a.toml"
    (tmp_path / "curve.csv").write_text("ratio,occupancy\n0,0\n1,1\n")
    path.write_text(
        "[crystal]\nborn_charges = {K = 1.0, O = -2.0}\n"
        '[analysis]\noccupancy_calibration = "curve.csv"\n'
    )
    config = load_config(path)
    # found beside the configuration
    assert config.analysis.occupancy_calibration == str(tmp_path / "curve.csv")
    assert config_from_dict(tomllib.loads(config_toml(config))) == config


def test_a_file_name_that_is_no_text_can_be_written():
    config = with_input(Config(), ("a\udcff.npy",))
    read = tomllib.loads(config_toml(config))
    assert read["input"]["path"] == ["a\\udcff.npy"]
