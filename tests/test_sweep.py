"""Random images: all columns and planes are right, refused or warned about; the judge can fail."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import sweep
from benchmarks.specimens import CRYSTALS, VIEWS, draw_case, make_picture
from stemdisp.crystal import project
from stemdisp.interface import find_interface
from stemdisp.lattice import find_lattice

SAFE = ("right", "warned", "refused")


@pytest.mark.parametrize("seed", range(7000, 7020))
def test_a_random_image_is_never_wrong_in_silence(seed):
    verdict = sweep.judge(seed)
    assert verdict.outcome in SAFE, verdict.detail
    if verdict.significance > 2 * sweep.USABLE:
        assert verdict.outcome != "refused", verdict.detail


@pytest.mark.slow
def test_two_hundred_images_meet_the_goals():
    verdicts = sweep.run(range(8000, 8200))
    usable = verdicts[verdicts["significance"] >= sweep.USABLE]
    assert usable["species"].mean() >= 0.99  # 99.5 % within what 150 images can tell
    assert (usable["outcome"] == "right").mean() >= 0.97
    assert (~verdicts["outcome"].isin(SAFE)).mean() <= 0.01
    assert len(usable) > 100


@pytest.mark.parametrize("structure", CRYSTALS)
@pytest.mark.parametrize("view", VIEWS, ids=lambda v: str(v.zone_axis))
def test_the_typed_geometry_is_that_of_the_package(structure, view):
    a, b, a_A, c_A = CRYSTALS[structure]
    projection = project(structure, view.zone_axis, displaced=a)
    typed = sorted((view.u * a_A, c_A))
    assert sorted((projection.u_A, projection.v_A)) == pytest.approx(typed, rel=2e-3)
    names = {"A": a, "B": b, "O": "O"}
    typed_sites = {(names[name[0]], *sorted((u, v))) for name, u, v in view.columns}
    sites = {(s.species, *sorted((s.u, s.v))) for s in projection.sites}
    assert sites == typed_sites
    for plane, steps in view.faces.items():
        found = sorted(abs(k) for k in projection.layer_step(plane))
        assert found == sorted(abs(k) for k in steps)


@pytest.fixture(scope="module")
def flat():
    """The first usable image with one flat interface, analysed."""
    for seed in range(7000, 7100):
        case = draw_case(seed)
        if case.scene == "flat" and case.counts >= 100 and not case.defects:
            break
    picture = make_picture(case)
    projection = project(case.structure, case.view.zone_axis, displaced=case.displaced)
    lattice = find_lattice(picture.image, projection)
    lattice, interface = find_interface(
        picture.image,
        lattice,
        projection=projection,
        plane=case.plane,
        cage_species=case.cage,
    )
    return picture, projection.sites, lattice, interface


def test_the_judge_says_right(flat):
    assert sweep.compare(*flat)[0] == "right"


def test_the_judge_sees_swapped_species(flat):
    picture, sites, lattice, interface = flat
    b = next(s for s in sites if s.species == picture.case.cage)
    swapped = lattice.reindexed(np.eye(2), np.array([b.u, b.v]))
    assert sweep.compare(picture, sites, swapped, interface)[0] == "wrong columns"


@pytest.mark.parametrize("by", [-1, 1])
def test_the_judge_sees_a_plane_too_many(flat, by):
    picture, sites, lattice, interface = flat
    moved = replace(interface, top_layer=interface.top_layer + by)
    outcome, detail = sweep.compare(picture, sites, lattice, moved)
    assert outcome == "wrong planes"
    assert f"median off by {by}" in detail
    assert sweep.compare(picture, sites, lattice, None)[0] == "interface missed"


def test_an_image_without_interface_shows_an_imagined_one(flat):
    picture, sites, lattice, interface = flat
    bare = replace(picture, case=replace(picture.case, scene="none"))
    assert sweep.compare(bare, sites, lattice, interface)[0] == "interface imagined"


def test_the_page_counts_every_image():
    verdicts = sweep.run(range(7000, 7004), workers=1)
    lines = sweep.summary(verdicts).splitlines()
    everything = next(line for line in lines if line.startswith("| all"))
    cells = [c.strip() for c in everything.split("|")[2:7]]
    assert int(cells[0]) == 4 == sum(map(int, cells[1:5]))
