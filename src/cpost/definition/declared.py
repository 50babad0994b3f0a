"""What a file asks for today, by the names that a run's record has."""

from __future__ import annotations

from pathlib import Path

from cpost.definition import effective, sites
from cpost.definition.loading import load
from cpost.definition.marks import read_source
from cpost.errors import DefinitionError
from cpost.model import Declared, Format, Operator, Pipeline, Service


def declared(path: Path) -> dict[str, Declared]:
    """Read the requests and limits that a file declares.

    Returns:
        By the name of the operator or container, and by "operator__service". Of a Clara definition with what it imports
        and its parameters' defaults filled in; of other formats see `effective.amounts`.

    Raises:
        DefinitionError: the file cannot be read or used.
    """
    try:
        pipeline = load(path)
        return _of_clara(pipeline) if pipeline.format is Format.CLARA else _as_run(pipeline, path)
    except DefinitionError:
        found = _of_other_formats(path)
        if not found:
            raise
        return found


def _as_run(pipeline: Pipeline, path: Path) -> dict[str, Declared]:
    """What a file of another format declares, by the names that a run has for its containers.

    Several uses of one container are several names; what the file has and a run does not keeps its own.
    """
    stated = _of_other_formats(path)
    found: dict[str, Declared] = {}
    for operator in pipeline.operators:
        names = [(operator.name, operator)]
        names += ((pipeline.companion_name(operator.name, each.name), each) for each in operator.companions)
        for name, each in names:
            found[name] = stated.get(each.site) or Declared(each.requests, each.limits, each.origin)
    used = {each.site for operator in pipeline.operators for each in (operator, *operator.companions)}
    return found | {name: each for name, each in stated.items() if name not in used}


def _of_other_formats(path: Path) -> dict[str, Declared]:
    """Empty where it is none of them: what is wrong with the file is then what is wrong with it as Clara's."""
    try:
        found = sites.find_sites(read_source(path))
    except DefinitionError:
        return {}
    if any(site.format is sites.Format.CLARA for site in found):
        return {}
    return {site.name: Declared(*effective.amounts(site), site.origin) for site in found}


def _of_clara(pipeline: Pipeline) -> dict[str, Declared]:
    found: dict[str, Declared] = {}
    for operator in pipeline.operators:
        found[operator.name] = Declared(operator.requests, origin=operator.origin)
        for service in _servers(operator):
            found[f"{operator.name}__{service.name}"] = Declared(service.requests, origin=operator.origin)
    return found


def _servers(operator: Operator) -> list[Service]:
    """The services that get a server of their own: of those with image and command in common, the first."""
    firsts: dict[tuple[str, tuple[str, ...]], Service] = {}
    for service in operator.services:
        firsts.setdefault((service.image, service.command), service)
    return list(firsts.values())
