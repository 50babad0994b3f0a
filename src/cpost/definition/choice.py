"""Which values of a container are to change for a recommendation, and which are better left alone.

A request is never put above a limit. Where the policy sets a limit the limit follows, where it sets none the request
is left. A request that equals its limit today goes on equalling it: in Kubernetes that decides on the pod's quality of
service.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cpost.definition import quantities
from cpost.definition.findings import quoted
from cpost.definition.marks import Mapping, Node, Scalar
from cpost.definition.quantities import parse_compose_memory
from cpost.definition.sites import QUANTITIES, Format, KeyPath, Quantity, Site, is_variable
from cpost.definition.splice import New, Unsafe, Wants
from cpost.model import Change, Recommendation, Resources
from cpost.units import MB, MIB, MILLICORES_PER_CORE

_LEGACY_KEYS = ("mem_limit", "mem_reservation", "cpus")
_SHM = ("shm_size",)
_UNASKED_SHM_BYTES = 64 * MIB


def _kubernetes_memory(size: int) -> New:
    return New(quantities.kubernetes_memory(size))


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
            ("memory", _kubernetes_memory),
        )
    },
}


@dataclass(slots=True)
class Choice:
    """What to write; `left` has a reason for each resource that is not."""

    wants: Wants = field(default_factory=dict)
    changes: tuple[Change, ...] = ()
    left: tuple[str, ...] = ()

    def write(self, container: Mapping, path: KeyPath, new: New) -> None:
        """Want a value at `path`."""
        below = self.wants
        for key in path[:-1]:
            step = below.setdefault(key, {})
            assert isinstance(step, dict)
            below = step
        below[path[-1]] = new
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
    if site.format is Format.COMPOSE and recommendation.dev_shm_bytes is not None:
        _choose_shm(choice, site.container, recommendation.dev_shm_bytes)
    return choice


def _amount(resources: Resources, resource: str) -> int | None:
    return {"cpu": resources.cpu_millicores, "memory": resources.memory_bytes, "gpu": resources.gpu_count}[resource]


def _decide(
    site: Site, resource: str, quantity: Quantity, request: int, limit: int | None
) -> list[tuple[KeyPath, New]]:
    """The values of one resource that are not yet as they should be; raises Unsafe where none may be written."""
    printed = _PRINT[site.format, resource]
    requests = _stated(site.container, quantity.requests, quantity.parse)
    limits = _stated(site.container, quantity.limits, quantity.parse)
    inherited = (_stated(each, quantity.limits, quantity.parse) for each in site.fallbacks)
    ceiling = _ceiling(site, limits or next((each for each in inherited if each), {}))
    own = _ceiling(site, limits)
    tied = own is not None and own == _request(site, requests, limits)
    new_request = quantity.parse(printed(request).text)
    new_limit = None
    if quantity.limits and (limit is not None or tied):
        new_limit = max(new_request, quantity.parse(printed(limit or 0).text))
        new_request = new_limit if tied else new_request
        ceiling = new_limit
    if ceiling is not None and new_request > ceiling:
        raise Unsafe(
            f"{resource}: a request of {printed(request).text} is above the limit of {printed(ceiling).text}, and the "
            "policy sets no limit: raise it first"
        )
    amounts: dict[KeyPath, int] = {}
    for path in requests or _place(site, quantity.requests, covered=ceiling is not None):
        amounts[path] = new_request
    if new_limit is not None:
        amounts.update(dict.fromkeys(limits or _place(site, quantity.limits, covered=False), new_limit))
    today = requests | limits
    return [(path, printed(amount)) for path, amount in amounts.items() if today.get(path) != amount]


def _stated(container: Mapping, paths: Iterable[KeyPath], parse: Callable[[str], int]) -> dict[KeyPath, int]:
    found = ((path, _read(container, path, parse)) for path in paths)
    return {path: amount for path, amount in found if amount is not None}


def _read(container: Mapping, path: KeyPath, parse: Callable[[str], int]) -> int | None:
    """The amount at a path; None where nothing stands there; raises Unsafe where it cannot be told."""
    where = ".".join(path)
    node: Node | None = container
    for key in path:
        if isinstance(node, Mapping):
            node = node.get(key)
        elif node is not None:
            raise Unsafe(f"{where}: what stands above it is no mapping{_written(node)}")
    if node is None:
        return None
    if not isinstance(node, Scalar):
        raise Unsafe(f"{where} is not a single value")
    if is_variable(node.value):
        raise Unsafe(f"{where} is a variable{_written(node)}: change it where that gets its value")
    try:
        return parse(node.value)
    except ValueError:
        raise Unsafe(f"{where} cannot be understood{_written(node)}") from None


def _written(node: Node) -> str:
    return f", {quoted(node.value)}" if isinstance(node, Scalar) else ""


def _ceiling(site: Site, limits: dict[KeyPath, int]) -> int | None:
    lowest = min(limits.values(), default=None)
    return None if lowest == 0 and site.format is Format.COMPOSE else lowest  # there 0 means unlimited


def _request(site: Site, requests: dict[KeyPath, int], limits: dict[KeyPath, int]) -> int | None:
    """What is requested today; in Kubernetes a limit alone is the request, too."""
    if not requests and site.format in (Format.KUBERNETES, Format.ARGO):
        return _ceiling(site, limits)
    return max(requests.values(), default=None)


def _place(site: Site, paths: tuple[KeyPath, ...], *, covered: bool) -> tuple[KeyPath, ...]:
    """Where an amount goes that is not stated yet: in Compose among those that are, for the two forms may not differ.

    Args:
        covered: a limit holds the amount as well, so that it need not be stated where there is no place for it.
    """
    if site.format is not Format.COMPOSE or not _short(site):
        return paths[:1]
    places = tuple(path for path in paths if len(path) == 1)
    if not places and not covered:
        raise Unsafe("cpu: beside mem_limit there is no key for a CPU reservation: use deploy.resources")
    return places


def _short(site: Site) -> bool:
    """Whether a Compose service, or the nearest that it extends, has its limits in the short form."""
    for holder in (site.container, *site.fallbacks):
        if holder.below("deploy", "resources") is not None:
            return False
        if any(holder.get(key) is not None for key in _LEGACY_KEYS):
            return True
    return False


def _choose_shm(choice: Choice, container: Mapping, size_bytes: int) -> None:
    """More room in /dev/shm where it needs more; less would save nothing, since only what lies in it takes memory."""
    try:
        today = _read(container, _SHM, parse_compose_memory)
    except Unsafe as reason:
        choice.left += (str(reason),)
        return
    if size_bytes > (today or _UNASKED_SHM_BYTES):
        choice.write(container, _SHM, New(quantities.compose_memory(size_bytes)))
