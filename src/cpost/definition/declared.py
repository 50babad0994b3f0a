"""What a file asks for today, by the names that a run's record has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cpost.definition import effective, misspelt, sites
from cpost.definition.loading import load
from cpost.definition.marks import Source, read_source
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
    stated = _stated(path)
    try:
        pipeline = load(path)
    except DefinitionError:
        others = {name: each for name, (each, of) in stated.items() if of is not sites.Format.CLARA}
        if not others:  # what is wrong with the file is then what is wrong with it as Clara's
            raise
        return others
    places = {name: each for name, (each, _) in stated.items()}
    return _of_clara(pipeline, places) if pipeline.format is Format.CLARA else _as_run(pipeline, places)


def _as_run(pipeline: Pipeline, stated: dict[str, Declared]) -> dict[str, Declared]:
    """What a file of another format declares, by the names that a run has for its containers.

    Several uses of one container are several names; what the file has and a run does not keeps its own.
    """
    found: dict[str, Declared] = {}
    for operator in pipeline.operators:
        names = [(operator.name, operator)]
        names += ((pipeline.companion_name(operator.name, each.name), each) for each in operator.companions)
        for name, each in names:
            found[name] = stated.get(each.site) or Declared(each.requests, each.limits, each.origin, each.site)
    used = {each.site for operator in pipeline.operators for each in (operator, *operator.companions)}
    return found | {name: each for name, each in stated.items() if name not in used}


def _stated(path: Path) -> dict[str, tuple[Declared, sites.Format]]:
    """By the names that the file has for its containers; empty where it has none, or cannot be read."""
    try:
        source = read_source(path)
        found = sites.find_sites(source)
    except DefinitionError:
        return {}
    return {site.name: (_of_site(source, site), site.format) for site in found}


def _of_site(source: Source, site: sites.Site) -> Declared:
    requests, limits = effective.amounts(site)
    origins = {rule: source.origin(at) for rule, at in effective.places(site).items()}
    doubts = tuple((text, source.origin(at)) for text, at in misspelt.keys(site))
    return Declared(requests, limits, site.origin, site.name, origins, doubts)


def _of_clara(pipeline: Pipeline, places: dict[str, Declared]) -> dict[str, Declared]:
    """Places and doubts are the file's own; amounts may be imported, or parameters."""
    found: dict[str, Declared] = {}
    for operator in pipeline.operators:
        found[operator.name] = Declared(operator.requests, origin=operator.origin, site=operator.name)
        for service in _servers(operator):
            name = f"{operator.name}__{service.name}"
            found[name] = Declared(service.requests, origin=operator.origin, site=name)
    return {name: _placed(each, places.get(name)) for name, each in found.items()}


def _placed(declared: Declared, place: Declared | None) -> Declared:
    return declared if place is None else replace(declared, origins=place.origins, doubts=place.doubts)


def _servers(operator: Operator) -> list[Service]:
    """The services that get a server of their own: of those with image and command in common, the first."""
    firsts: dict[tuple[str, tuple[str, ...]], Service] = {}
    for service in operator.services:
        firsts.setdefault((service.image, service.command), service)
    return list(firsts.values())
