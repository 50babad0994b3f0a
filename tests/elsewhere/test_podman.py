"""Tests with the marker `podman`, once more against a Podman of its own (see tests/podman)."""

from __future__ import annotations

import pytest

from elsewhere.place import TREE, Place

PLACE = Place("podman", str(TREE / "tests/podman/run"))


@pytest.mark.timeout(900)
def test_on_podman(place: Place, test: str) -> None:
    place.check(test)
