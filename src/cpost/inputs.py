"""Whether an operator finds its inputs in the page cache: runs that are compared have to find them alike.

Inputs are whatever it, or a server of its own, has mounted read-only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from cpost.measure.page_cache import cached, forget
from cpost.model import Step

_COLD_SHARE = 0.5


def cold_inputs(step: Step) -> tuple[str, ...]:
    """The names of its inputs of which less than half is in the page cache now."""
    found = ((name, cached(source)) for name, source in _inputs(step))
    return tuple(name for name, seen in found if seen and seen.cached_bytes < _COLD_SHARE * seen.bytes)


def chill(step: Step, cold: Collection[str]) -> int | None:
    """Put these of its inputs out of the page cache.

    Returns:
        Bytes of its inputs that are in it all the same, or because they are not among these; None where the kernel does
        not tell, or they hold too many files to put all of them out.
    """
    # All of it before anything is asked: what the kernel does not tell of one input must not leave the others warm.
    whole = [forget(source) for name, source in _inputs(step) if name in cold]
    left = [cached(source) for _, source in _inputs(step)]
    return None if None in left or not all(whole) else sum(each.cached_bytes for each in left if each)


def _inputs(step: Step) -> Iterator[tuple[str, Path]]:
    """Each by the place where its container sees it."""
    yield from ((mount.target, Path(mount.source)) for mount in step.mounts if mount.read_only)
    for server in step.servers:
        if not server.shared:
            yield from ((f"{server.name}:{name}", source) for name, source in _inputs(server.step))
