"""Where amounts go in a Docker Compose service, and what has to change with them.

A service states its amounts in a short form (`mem_limit`, `cpus`) or below `deploy.resources`, possibly through a
service that it extends. Compose takes both together only where they say the same, and a short key beside a block that
lacks it says something else: `cpus` beside limits of memory alone is refused. See checkConsistency of compose-go.
"""

from __future__ import annotations

from cpost.definition import quantities
from cpost.definition.effective import read_amount, text_at
from cpost.definition.quantities import parse_compose_memory
from cpost.definition.sites import KeyPath, Site
from cpost.definition.splice import New, Unsafe
from cpost.units import MILLICORES_PER_CORE

_RESOURCES = ("deploy", "resources")
# The short keys that a block of deploy.resources would have to repeat.
_SHORT_KEYS = {"limits": ("mem_limit", "cpus", "pids_limit"), "reservations": ("mem_reservation",)}
_SWAP = ("memswap_limit",)
_QUOTA, _PERIOD = ("cpu_quota",), ("cpu_period",)
_UNASKED_PERIOD_US = 100_000
_NO_LIMIT = ("0", "-1")


class NoPlace(Exception):
    """Compose has no key for an amount in the form of the service; the message says so."""


def places(site: Site, paths: tuple[KeyPath, ...], *, covered: bool) -> tuple[KeyPath, ...]:
    """Where an amount goes: wherever it stands today, else in the form that the service may have.

    Args:
        paths: where it may stand, the one below deploy.resources first.
        covered: a limit holds the amount as well, so that it need not be stated where there is no place for it.

    Raises:
        NoPlace: there is none, and no limit holds it.
    """
    long, *short = paths
    stated = tuple(path for path in paths if text_at(site, path) is not None)
    if _has(site, long[:-1]):
        return tuple(dict.fromkeys((long, *stated)))
    found = stated or (tuple(short) if _is_short(site, long[2]) else (long,))
    if not found and not covered:
        raise NoPlace(
            "a CPU reservation: there is no key for it beside mem_limit and the like, only in deploy.resources"
        )
    return found


def beside(site: Site, resource: str, today: int | None, limit: int | None) -> list[tuple[KeyPath, New]]:
    """What else has to change when a limit does: the engine lets as much be swapped out as before.

    Args:
        resource: "cpu" or "memory".
        today, limit: the limit that applies today and the one that is written, bytes or millicores; None = none.

    Raises:
        Unsafe: no limit may be written.
    """
    if limit is None:
        return []
    if resource == "cpu":
        if any(text_at(site, path) not in (None, *_NO_LIMIT) for path in (_QUOTA, _PERIOD)):
            raise Unsafe("cpu: beside cpu_quota and cpu_period the engine takes no other limit: use cpus")
        return []
    if text_at(site, _SWAP) in (None, *_NO_LIMIT):
        return []
    total = read_amount(site.holders, _SWAP, parse_compose_memory) or 0
    total = limit + max(0, total - today) if today is not None else max(limit, total)
    new = New(quantities.compose_memory(total))
    same = parse_compose_memory(new.text) == read_amount((site.container,), _SWAP, parse_compose_memory)
    return [] if same else [(_SWAP, new)]


def quota(site: Site) -> int | None:
    """The limit that `cpu_quota` sets, in millicores; None where it sets none.

    Raises:
        Unsafe: it cannot be told.
    """
    if text_at(site, _QUOTA) in (None, *_NO_LIMIT):
        return None
    time_us = read_amount(site.holders, _QUOTA, int) or 0
    return time_us * MILLICORES_PER_CORE // (read_amount(site.holders, _PERIOD, int) or _UNASKED_PERIOD_US)


def _is_short(site: Site, block: str) -> bool:
    """Whether a block of deploy.resources that is not there must not be added, or would be the only one."""
    if any(_has(site, (key,)) for key in _SHORT_KEYS[block]):
        return True
    short = (key for keys in _SHORT_KEYS.values() for key in keys)
    return not _has(site, _RESOURCES) and any(_has(site, (key,)) for key in short)


def _has(site: Site, path: KeyPath) -> bool:
    """Whether something stands there, in the service or in one that it extends."""
    *above, key = path
    found = (holder.below(*above) for holder in site.holders)
    return any(each is not None and each.get(key) is not None for each in found)
