"""Bad input ends in one line that names cause and remedy: every case of the corpus."""

import tempfile
from pathlib import Path

import pytest
from bad_inputs import Case, all_cases
from bad_inputs.judge import run_case
from bad_inputs.server import Server

CASES = all_cases()
# Of the quick cases, which lie group by group, every third is among the fast tests.
QUICK = [name for name, case in CASES.items() if not case.slow]
FAST = set(QUICK[::3])


@pytest.fixture(scope="module")
def server():
    """One program that forks for every command."""
    found = Server()
    yield found
    found.close()


@pytest.fixture(scope="module")
def base():
    """A folder that every user may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="stemdisp-bad-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def _parameters():
    for name, case in CASES.items():
        marks = [] if name in FAST else [pytest.mark.slow]
        yield pytest.param(case, id=name, marks=marks)


@pytest.mark.parametrize("case", list(_parameters()))
def test_it_ends_as_it_should(case: Case, base, server):
    run_case(case, base, server)


def test_there_are_enough_cases():
    assert len(CASES) >= 500
    assert len(FAST) >= 120
