"""Tests with the marker `v2`, once more on a kernel with control groups v2 and an engine of its own (see tests/vm)."""

from __future__ import annotations

import pytest

from elsewhere.place import TREE, Place

PLACE = Place("v2", str(TREE / "tests/vm/run"), "-t", "1500", "-w", "{folder}")


@pytest.mark.timeout(1600)
def test_on_v2(place: Place, test: str) -> None:
    place.check(test)
