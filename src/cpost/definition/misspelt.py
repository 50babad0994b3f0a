"""Keys of a container that look like misspelt ones of its amounts: what stands there is declared to nobody."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping

from cpost.definition.findings import quoted
from cpost.definition.marks import Mapping as Node
from cpost.definition.sites import Format, KeyPath, Site

_NEAR = 0.6
# Beside the heads of the amounts stand many keys that are right and not known here: only what is all but one is told.
_VERY_NEAR = 0.9
_KUBERNETES_BLOCK = {"cpu", "memory", "ephemeral-storage"}
_KUBERNETES: Mapping[KeyPath, Collection[str]] = {
    ("resources",): {"requests", "limits", "claims"},
    ("resources", "requests"): _KUBERNETES_BLOCK,
    ("resources", "limits"): _KUBERNETES_BLOCK,
}
_COMPOSE_RESOURCES = ("deploy", "resources")
# What stands in the blocks of each format, by the way to the block.
_BLOCKS: Mapping[Format, Mapping[KeyPath, Collection[str]]] = {
    Format.CLARA: {("requests",): {"cpu", "memory", "gpu"}},
    Format.KUBERNETES: _KUBERNETES,
    Format.ARGO: _KUBERNETES,
    Format.COMPOSE: {
        _COMPOSE_RESOURCES: {"limits", "reservations"},
        (*_COMPOSE_RESOURCES, "limits"): {"cpus", "memory", "pids"},
        (*_COMPOSE_RESOURCES, "reservations"): {"cpus", "memory", "generic_resources", "devices"},
    },
}
_HEADS: Mapping[Format, Collection[str]] = {
    Format.CLARA: {"requests"},
    Format.KUBERNETES: {"resources"},
    Format.ARGO: {"resources"},
    Format.COMPOSE: {"deploy", "cpus", "mem_limit", "mem_reservation"},
}


def keys(site: Site) -> Iterator[tuple[str, int]]:
    """What is said of each such key, and where it stands in the text."""
    yield from _unknown(site.container, _HEADS[site.format], "", _VERY_NEAR)
    for path, known in _BLOCKS[site.format].items():
        block = site.container.below(*path)
        if block is not None:
            yield from _unknown(block, known, f" in {'.'.join(path)}", _NEAR)


def _unknown(block: Node, known: Collection[str], where: str, near: float) -> Iterator[tuple[str, int]]:
    """Names with a slash, a hyphen in front of a size, or x- are other resources and extensions."""
    for key, _ in block.entries:
        name = key.value
        if name in known or "/" in name or name.startswith(("hugepages-", "x-", "<<")):
            continue
        best = difflib.get_close_matches(name[:80], known, n=1, cutoff=near)
        if best:
            yield f'unknown key {quoted(name)}{where}: did you mean "{best[0]}"?', key.start
