"""Recommendations -> the text of the user's own file with these values in it, and what was done for each operator.

Nothing but the values meant may change: what the new text means is compared with what the old one meant, and so is what
applies to each container, for others may take over from one that changes. Where a container's values cannot be written
without changing something else, that container is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from cpost.definition.choice import Choice, choose
from cpost.definition.effective import applied
from cpost.definition.marks import Source, anchored, is_json, parsed, value_of
from cpost.definition.sites import Format, Site, find_sites
from cpost.definition.splice import Edit, Unsafe, edited, edits_for, fulfils, intended
from cpost.errors import DefinitionError
from cpost.model import Advice, Amendment, Fate, Recommendation, Resources, Verdict

_SHARED = "other parts of the file take it from there (an anchor), and would change too"
_AROUND = "it cannot be written without changing what is around it"
# Behind which key of a container its resources read best.
_AFTER = {
    Format.CLARA: ("container",),
    Format.KUBERNETES: ("image", "name"),
    Format.ARGO: ("image", "name"),
    Format.COMPOSE: ("image", "build", "extends"),
}


@dataclass(frozen=True, slots=True)
class Advised:
    """A recommendation for the container that goes by the first of `names` that the file has.

    In a Clara definition only the first name counts: what a service is called may be an operator's name as well.
    """

    names: tuple[str, ...]
    recommendation: Recommendation


@dataclass(frozen=True, slots=True)
class Written:
    """The new text of a file, equal to the old one where nothing is to be changed."""

    text: str
    amendments: tuple[Amendment, ...]


@dataclass(slots=True, eq=False)
class _Draft:
    site: Site
    choice: Choice = field(default_factory=Choice)
    left: list[str] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)

    def leave(self, reason: str) -> None:
        self.left.append(reason)
        self.choice, self.edits = Choice(), []


def write_back(source: Source, advised: Sequence[Advised]) -> Written:
    """Put recommendations into a file's text.

    Args:
        source: the file, taken apart.
        advised: one for each container that was measured; several for one container (uses of an Argo template) are
            taken together, the most that any asks for.

    Raises:
        DefinitionError: no container is in the file.
    """
    sites = find_sites(source)
    by_site: dict[str, tuple[Site, list[Advised]]] = {}
    others: list[Amendment] = []
    for each in advised:
        site = _site_of(each, sites)
        if each.recommendation.status is Advice.REFUSED:
            reason = each.recommendation.reasons[0] if each.recommendation.reasons else ""
            others.append(Amendment(each.names[0], Fate.REFUSED, reason=reason))
        elif site is None:
            others.append(Amendment(each.names[0], Fate.ABSENT))
        if site is not None:
            by_site.setdefault(site.name, (site, []))[1].append(each)
    drafts = [draft for site, uses in by_site.values() if (draft := _draft(source, site, uses))]
    text = _Splicer(source, sites).splice(drafts)
    return Written(text, (*(each for draft in drafts for each in _amendments(draft)), *others))


def _site_of(advised: Advised, sites: Sequence[Site]) -> Site | None:
    """The container by its name, else an Argo template by a task that alone of all tasks of that name runs it."""
    for place, name in enumerate(advised.names):
        named = {site.name: site for site in sites if place == 0 or site.format is not Format.CLARA}
        used = [site for site in sites if name in site.uses]
        if name in named or len(used) == 1:
            return named.get(name) or used[0]
    return None


def _draft(source: Source, site: Site, uses: Sequence[Advised]) -> _Draft | None:
    """What is to be done at a site; None where nothing is recommended for it."""
    given = [use.recommendation for use in uses if use.recommendation.status is Advice.OK]
    if not given:
        return None
    draft = _Draft(site)
    if site.blocked:
        draft.leave(site.blocked)
    elif len(given) < len(uses):
        draft.leave("one of its uses has no recommendation, so the most that it needs is not known")
    elif any(each.verified is Verdict.BROKEN for each in given):
        draft.leave("what is recommended did not hold when it was tried")
    else:
        draft.choice = choose(site, _most(given))
        draft.left += draft.choice.left
        try:
            draft.edits = edits_for(source, site.container, draft.choice.wants, _AFTER[site.format])
        except Unsafe as reason:
            draft.leave(str(reason))
    return draft


def _most(recommendations: Sequence[Recommendation]) -> Recommendation:
    first, *others = recommendations
    for other in others:
        first = replace(
            first,
            requests=_larger(first.requests, other.requests),
            limits=_larger(first.limits, other.limits),
            dev_shm_bytes=max((first.dev_shm_bytes or 0, other.dev_shm_bytes or 0)) or None,
        )
    return first


def _larger(one: Resources, other: Resources) -> Resources:
    return Resources(
        _max(one.cpu_millicores, other.cpu_millicores),
        _max(one.memory_bytes, other.memory_bytes),
        _max(one.gpu_count, other.gpu_count),
    )


def _max(one: int | None, other: int | None) -> int | None:
    """The larger; None where one is not stated."""
    return None if one is None or other is None else max(one, other)


def _amendments(draft: _Draft) -> list[Amendment]:
    found = [Amendment(draft.site.name, Fate.LEFT, reason=reason) for reason in draft.left]
    found += (Amendment(draft.site.name, Fate.NO_PLACE, reason=reason) for reason in draft.choice.homeless)
    if draft.choice.changes:
        return [Amendment(draft.site.name, Fate.CHANGED, draft.choice.changes), *found]
    return found or [Amendment(draft.site.name, Fate.UNCHANGED)]


# ---------------------------------------------------------------- splice and compare


class _Splicer:
    """Tries drafts on a file's text."""

    def __init__(self, source: Source, sites: Sequence[Site]) -> None:
        self._source = source
        self._json = is_json(source.text)
        self._sites = sites
        self._applied = [applied(site) for site in sites]

    def splice(self, drafts: Sequence[_Draft]) -> str:
        """The text with all drafts, or with those that change nothing else; the others are marked as left."""
        # From the end: who takes something over an anchor stands behind it, and may have its own by then.
        changing = reversed([draft for draft in drafts if draft.edits])
        accepted = self._accept([], sorted(changing, key=self._is_handed_on))
        while taken_over := self._taken_over(accepted):
            for draft, names in taken_over.items():
                draft.leave(f"it is extended by {', '.join(names)}, and what applies there would change too")
            accepted = self._accept([], [draft for draft in accepted if draft not in taken_over])
        return edited(self._source.text, _edits(accepted))

    def _accept(self, accepted: list[_Draft], drafts: list[_Draft]) -> list[_Draft]:
        """The accepted ones and as many of the others as go with them; halving finds a few bad ones of many soon."""
        fault = self._fault([*accepted, *drafts]) if drafts else ""
        if not fault:
            return [*accepted, *drafts]
        if len(drafts) == 1:
            drafts[0].leave(fault)
            return accepted
        half = len(drafts) // 2
        return self._accept(self._accept(accepted, drafts[:half]), drafts[half:])

    def _is_handed_on(self, draft: _Draft) -> bool:
        """Whether an edit is inside something that an alias refers to."""
        found = (node for root in self._source.documents for node in anchored(root))
        spans = [(node.start, node.end) for node in found if node.anchor in self._source.aliased]
        return any(start <= edit.start <= end for edit in draft.edits for start, end in spans)

    def _fault(self, drafts: Sequence[_Draft]) -> str:
        """What the text with these drafts would change that is not wanted; empty = nothing."""
        source = self._source
        text = edited(source.text, _edits(drafts))
        wanted = [value_of(root) for root in source.documents]
        for draft in drafts:
            intended(wanted[draft.site.document], draft.site.path, draft.choice.wants)
        try:
            found = [value_of(root) for root in parsed(replace(source, text=text)).documents]
        except DefinitionError:
            return _AROUND
        if not fulfils(found, wanted) or (self._json and not is_json(text)):
            return _SHARED if source.aliased else _AROUND
        return ""

    def _taken_over(self, drafts: Sequence[_Draft]) -> dict[_Draft, list[str]]:
        """The drafts that change what applies to other containers, by way of `extends`, with the names of these."""
        if not any(site.fallbacks for site in self._sites):
            return {}
        by_container = {draft.site.container: draft for draft in drafts}
        new = find_sites(parsed(replace(self._source, text=edited(self._source.text, _edits(drafts)))))
        found: dict[_Draft, list[str]] = {}
        for site, before, after in zip(self._sites, self._applied, map(applied, new), strict=True):
            own = by_container.get(site.container)
            wanted = before | (own.choice.texts if own else {})
            for path in (path for path in after if after[path] != wanted.get(path)):
                above = (by_container.get(each) for each in site.fallbacks)
                source = next(draft for draft in above if draft and path in draft.choice.texts)
                found.setdefault(source, []).append(site.name)
        return {draft: list(dict.fromkeys(names)) for draft, names in found.items()}


def _edits(drafts: Iterable[_Draft]) -> Iterator[Edit]:
    return (edit for draft in drafts for edit in draft.edits)
