"""Each test here stands for one that runs elsewhere; the slow place is under way from the first of them on.

Not before: unit tests look at this process's children.
"""

from __future__ import annotations

import pytest

from elsewhere import test_podman, test_v2
from elsewhere.place import Place

PLACES = (test_podman.PLACE, test_v2.PLACE)
AT_ONCE = (test_v2.PLACE,)  # it has a kernel of its own: the others do not get into its way

_wanted = pytest.StashKey[dict[Place, list[str]]]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "test" in metafunc.fixturenames:
        metafunc.parametrize("test", metafunc.module.PLACE.tests())


def pytest_collection_finish(session: pytest.Session) -> None:
    wanted: dict[Place, list[str]] = {}
    for item in session.items:
        if isinstance(item, pytest.Function) and getattr(item.module, "PLACE", None) in PLACES:
            wanted.setdefault(item.module.PLACE, []).append(item.callspec.params["test"])
    session.config.stash[_wanted] = wanted


def pytest_unconfigure() -> None:
    for place in PLACES:
        place.end()


@pytest.fixture(scope="session", autouse=True)
def under_way(pytestconfig: pytest.Config) -> None:
    """Begin with the slow places."""
    for place in AT_ONCE:
        if place in pytestconfig.stash[_wanted]:
            place.start(pytestconfig.stash[_wanted][place])


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """The test module's place, where its tests are under way."""
    found: Place = request.module.PLACE
    if not found.started:
        found.start(request.config.stash[_wanted][found])
    return found
