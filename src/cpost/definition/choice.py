"""Which values of a container are to change for a recommendation, and which are better left alone.

A request is never put above a limit. Where the policy sets a limit the limit follows. Where it sets none, the limit
stays, for a lower one was never tried; only a request that equals its limit today takes it along when it grows: in
Kubernetes that decides on the pod's quality of service.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from cpost.definition import compose_places, quantities
from cpost.definition.effective import read_amount
from cpost.definition.marks import Mapping
from cpost.definition.quantities import parse_compose_memory
from cpost.definition.sites import QUANTITIES, Format, KeyPath, Quantity, Site
from cpost.definition.splice import New, Unsafe, Wants
from cpost.model import Change, Recommendation, Resources
from cpost.units import MB, MIB, MILLICORES_PER_CORE

_SHM = ("shm_size",)
_UNASKED_SHM_BYTES = 64 * MIB
_SHM_FOLDER = "/dev/shm"  # noqa: S108 (the container's)


_PRINT: dict[tuple[Format, str], Callable[[int], New]] = {
    (Format.CLARA, "cpu"): lambda cores: New(str(max(1, -(-cores // MILLICORES_PER_CORE))), "number"),
    (Format.CLARA, "memory"): lambda size: New(str(-(-size // MB)), "number"),
    (Format.CLARA, "gpu"): lambda count: New(str(count), "number"),
    (Format.COMPOSE, "cpu"): lambda cores: New(quantities.compose_cpus(cores), "text"),
    (Format.COMPOSE, "memory"): lambda size: New(quantities.compose_memory(size)),
    **{
        (each, name): printed
        for each in (Format.KUBERNETES, Format.ARGO)
        for name, printed in (
            ("cpu", lambda cores: New(quantities.kubernetes_cpu(cores))),
            ("memory", lambda size: New(quantities.kubernetes_memory(size))),
        )
    },
}


@dataclass(slots=True)
class Choice:
    """What to write.

    Attributes:
        texts: what is to stand at each place, as `wants` has it.
        left: a reason for each resource that is not written.
        homeless: likewise for what the format has no key for.
    """

    wants: Wants = field(default_factory=dict)
    texts: dict[KeyPath, str] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()
    left: tuple[str, ...] = ()
    homeless: tuple[str, ...] = ()

    def write(self, container: Mapping, path: KeyPath, new: New) -> None:
        """Want a value at `path`."""
        below = self.wants
        for key in path[:-1]:
            step = below.setdefault(key, {})
            assert isinstance(step, dict)
            below = step
        below[path[-1]] = new
        self.texts[path] = new.text
        self.changes += (Change(".".join(path), container.text(*path), new.text),)


def choose(site: Site, recommendation: Recommendation) -> Choice:
    """What to write into a container for a recommendation (not a refused one)."""
    choice = Choice()
    for resource, quantity in QUANTITIES[site.format].items():
        request = _amount(recommendation.requests, resource)
        if request is None:
            continue
        try:
            decided = _decide(site, resource, quantity, request, _amount(recommendation.limits, resource))
            for path, new in decided:
                choice.write(site.container, path, new)
        except Unsafe as reason:
            choice.left += (str(reason),)
        except compose_places.NoPlace as reason:
            choice.homeless += (str(reason),)
    if recommendation.dev_shm_bytes is not None:
        _choose_shm(choice, site, recommendation.dev_shm_bytes)
    return choice


def _amount(resources: Resources, resource: str) -> int | None:
    return {"cpu": resources.cpu_millicores, "memory": resources.memory_bytes, "gpu": resources.gpu_count}[resource]


def _decide(
    site: Site, resource: str, quantity: Quantity, request: int, limit: int | None
) -> list[tuple[KeyPath, New]]:
    """The values of one resource that are not yet as they should be; raises Unsafe where none may be written."""
    printed = _PRINT[site.format, resource]
    today = _ceiling(site, resource, quantity)
    tied = _tied(site, quantity)
    new_request, new_limit = quantity.parse(printed(request).text), None
    if quantity.limits and limit is not None:
        new_limit = max(new_request, quantity.parse(printed(limit).text))
        new_request = new_request if tied is None else new_limit
    elif tied is not None and new_request > tied:
        new_limit = new_request
    ceiling = today if new_limit is None else new_limit
    if ceiling is not None and new_request > ceiling:
        raise Unsafe(
            f"{resource}: a request of {printed(request).text} is above the limit of {printed(ceiling).text}, and the "
            "policy sets no limit: raise it first"
        )
    amounts = dict.fromkeys(_places(site, quantity.requests, covered=ceiling is not None), new_request)
    if new_limit is not None:
        amounts |= dict.fromkeys(_places(site, quantity.limits, covered=False), new_limit)
    found = [(path, printed(amount)) for path, amount in amounts.items() if _differs(site, path, amount, quantity)]
    if site.format is Format.COMPOSE:
        found += compose_places.beside(site, resource, today, new_limit)
    return found


def _ceiling(site: Site, resource: str, quantity: Quantity) -> int | None:
    """The lowest limit that applies today; None = there is none."""
    limits = _lowest(site, site.holders, quantity)
    quota = compose_places.quota(site) if site.format is Format.COMPOSE and resource == "cpu" else None
    return min((each for each in (limits, quota) if each is not None), default=None)


def _tied(site: Site, quantity: Quantity) -> int | None:
    """The limit that the container's own request equals today; in Kubernetes a limit alone is the request, too."""
    limit = _lowest(site, (site.container,), quantity)
    stated = _stated((site.container,), quantity.requests, quantity.parse)
    implied = limit if site.format in (Format.KUBERNETES, Format.ARGO) else None
    return limit if limit == max(stated, default=implied) else None


def _lowest(site: Site, holders: Sequence[Mapping], quantity: Quantity) -> int | None:
    lowest = min(_stated(holders, quantity.limits, quantity.parse), default=None)
    return None if lowest == 0 and site.format is Format.COMPOSE else lowest  # there 0 means unlimited


def _stated(holders: Sequence[Mapping], paths: Iterable[KeyPath], parse: Callable[[str], int]) -> list[int]:
    found = (read_amount(holders, path, parse) for path in paths)
    return [amount for amount in found if amount is not None]


def _differs(site: Site, path: KeyPath, amount: int, quantity: Quantity) -> bool:
    """Whether the container itself does not say so: what it takes over today may be another amount tomorrow."""
    return read_amount((site.container,), path, quantity.parse) != amount


def _places(site: Site, paths: tuple[KeyPath, ...], *, covered: bool) -> tuple[KeyPath, ...]:
    """Where an amount goes.

    Args:
        covered: a limit holds the amount as well, so that it need not be stated where there is no place for it.
    """
    return compose_places.places(site, paths, covered=covered) if site.format is Format.COMPOSE else paths[:1]


def _choose_shm(choice: Choice, site: Site, size_bytes: int) -> None:
    """More room in /dev/shm where it needs more; less would save nothing, since only what lies in it takes memory."""
    if site.format is not Format.COMPOSE:
        mounted = any(each.text("mountPath") == _SHM_FOLDER for each in site.container.mappings("volumeMounts"))
        if size_bytes > _UNASKED_SHM_BYTES and not mounted:
            how = "" if site.format is Format.CLARA else ": mount an emptyDir of medium Memory there"
            choice.homeless += (f"{_SHM_FOLDER} should have {quantities.kubernetes_memory(size_bytes)}{how}",)
        return
    try:
        today = read_amount(site.holders, _SHM, parse_compose_memory)
    except Unsafe as reason:
        choice.left += (str(reason),)
        return
    if size_bytes > (today or _UNASKED_SHM_BYTES):
        choice.write(site.container, _SHM, New(quantities.compose_memory(size_bytes)))
