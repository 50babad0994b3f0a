"""Names of images, and what an engine tells while it pulls one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpost.measure.engine_errors import printable


def split_reference(reference: str) -> tuple[str, str | None]:
    """Repository and tag (or digest) as the SDK's pull wants them."""
    if "@" in reference:
        repository, digest = reference.split("@", 1)
        return repository, digest
    head, _, tail = reference.rpartition(":")
    return (head, tail) if head and "/" not in tail else (reference, "latest")


def pull_line(event: Mapping[str, Any]) -> str:
    """One line for what an engine tells of a pull's progress."""
    parts = (event.get("id"), event.get("status"), event.get("progress"))
    return printable(" ".join(str(part) for part in parts if part))
