"""What applies to a container of a file: what it states itself, else what it takes over.

A container takes over from what is its fallback (`Site.fallbacks`): the defaults of an Argo workflow, the services that
a Compose service extends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cpost.definition.findings import quoted
from cpost.definition.marks import Mapping, Node, Scalar, Sequence, resolved
from cpost.definition.sites import GPU_QUANTITY, QUANTITIES, Format, KeyPath, Site, is_variable
from cpost.definition.splice import Unsafe
from cpost.model import ALL_GPUS, Resources, Rule

_RESERVED = ("deploy", "resources", "reservations")
_COMPOSE_ONLY: tuple[KeyPath, ...] = (("memswap_limit",), ("shm_size",))


def applied(site: Site) -> dict[KeyPath, str]:
    """The text of each amount that applies to a container, by where it stands below whatever states it."""
    paths = [path for each in QUANTITIES[site.format].values() for path in (*each.requests, *each.limits)]
    paths += _COMPOSE_ONLY if site.format is Format.COMPOSE else ()
    texts = ((path, text_at(site, path)) for path in paths)
    return {path: text for path, text in texts if text is not None}


def text_at(site: Site, path: KeyPath) -> str | None:
    """The text that applies at one path; None where nobody states it."""
    texts = (holder.text(*path) for holder in site.holders)
    return next((text for text in texts if text is not None), None)


def read_amount(holders: Iterable[Mapping], path: KeyPath, parse: Callable[[str], int]) -> int | None:
    """The amount at a path below the first holder that states it.

    Returns:
        What `parse` makes of it; None where nothing stands there.

    Raises:
        Unsafe: something stands there that cannot be told.
    """
    amounts = (_read(holder, path, parse) for holder in holders)
    return next((amount for amount in amounts if amount is not None), None)


def _read(container: Mapping, path: KeyPath, parse: Callable[[str], int]) -> int | None:
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


# ---------------------------------------------------------------- all amounts, for those who only read


def amounts(site: Site) -> tuple[Resources, Resources]:
    """Requests and limits that apply to a container.

    An amount is None where the file states none or holds a variable. In Kubernetes a limit without a request is the
    request, too.
    """
    cpu, memory = QUANTITIES[site.format]["cpu"], QUANTITIES[site.format]["memory"]
    gpus = _gpus(site)
    limits = Resources(_stated(site, cpu.limits, cpu.parse), _stated(site, memory.limits, memory.parse), gpus)
    requests = Resources(_stated(site, cpu.requests, cpu.parse), _stated(site, memory.requests, memory.parse), gpus)
    if site.format is Format.CLARA:
        return requests, Resources()
    if site.format is Format.COMPOSE:  # there 0 means unlimited
        return requests, Resources(limits.cpu_millicores or None, limits.memory_bytes or None, gpus)
    cores, size = requests.cpu_millicores, requests.memory_bytes
    requests = Resources(
        cores if cores is not None else limits.cpu_millicores, size if size is not None else limits.memory_bytes, gpus
    )
    return requests, limits


def places(site: Site) -> dict[Rule, int]:
    """Where in the text each amount stands that the container itself states, by the rule that it is held to."""
    cpu, memory = QUANTITIES[site.format]["cpu"], QUANTITIES[site.format]["memory"]
    gpu = QUANTITIES[site.format].get("gpu", GPU_QUANTITY)
    falling_back = site.format in (Format.KUBERNETES, Format.ARGO)  # there a limit alone is the request, too
    paths = {
        Rule.CPU_REQUEST: (*cpu.requests, *(cpu.limits if falling_back else ())),
        Rule.MEMORY_REQUEST: (*memory.requests, *(memory.limits if falling_back else ())),
        Rule.GPU_REQUEST: (*gpu.limits, *gpu.requests),
        Rule.CPU_LIMIT: cpu.limits,
        Rule.MEMORY_LIMIT: memory.limits,
    }
    found = ((rule, next(filter(None, (_scalar(site, path) for path in among)), None)) for rule, among in paths.items())
    return {rule: node.start for rule, node in found if node is not None}


def _scalar(site: Site, path: KeyPath) -> Scalar | None:
    above = site.container.below(*path[:-1])
    node = above.get(path[-1]) if above is not None else None
    return node if isinstance(node, Scalar) else None


def _stated(site: Site, paths: tuple[KeyPath, ...], parse: Callable[[str], int]) -> int | None:
    texts = (holder.text(*path) for holder in site.holders for path in paths)
    text = next((text for text in texts if text is not None), None)
    try:
        return None if text is None or is_variable(text) else parse(text)
    except ValueError:
        return None


def _gpus(site: Site) -> int | None:
    if site.format is Format.CLARA:
        gpu = QUANTITIES[Format.CLARA]["gpu"]
        return _stated(site, gpu.requests, gpu.parse)
    if site.format is not Format.COMPOSE:
        return _stated(site, GPU_QUANTITY.limits + GPU_QUANTITY.requests, GPU_QUANTITY.parse)
    reserved = site.container.below(*_RESERVED)
    devices = (device for device in (reserved.mappings("devices") if reserved else ()) if _is_gpu(device))
    counts = [_device_count(device) for device in devices]
    if ALL_GPUS in counts or site.container.text("gpus") == "all":
        return ALL_GPUS
    counts += [_device_count(device) for device in site.container.mappings("gpus")]
    return sum(counts) if counts else None


def _is_gpu(device: Mapping) -> bool:
    found = device.get("capabilities")
    words = (resolved(item) for item in found.items) if isinstance(found, Sequence) else ()
    return any(isinstance(word, Scalar) and word.value in ("gpu", "nvidia") for word in words)


def _device_count(device: Mapping) -> int:
    """How many GPUs an entry of a Compose file asks for; without a number it is all of them."""
    ids, count = device.get("device_ids"), device.text("count")
    if isinstance(ids, Sequence):
        return len(ids.items)
    return int(count) if count and count.isdecimal() else ALL_GPUS
