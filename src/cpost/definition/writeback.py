"""Recommendations -> the text of the user's own file with these values in it, and what was done for each operator.

Nothing but the values meant may change: what the new text means is compared with what the old one meant. Where a
container's values cannot be written without changing something else, that container is left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cpost.definition.choice import Choice, choose
from cpost.definition.marks import Source, anchored, parsed, value_of
from cpost.definition.sites import Format, Site, find_sites
from cpost.definition.splice import Edit, Unsafe, edited, edits_for, fulfils, intended
from cpost.errors import DefinitionError
from cpost.model import Advice, Amendment, Fate, Recommendation, Resources

_SHARED = "other parts of the file take it from there (an anchor), and would change too"
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
    text = _spliced(source, drafts)
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
    if draft.choice.changes:
        return [Amendment(draft.site.name, Fate.CHANGED, draft.choice.changes), *found]
    return found or [Amendment(draft.site.name, Fate.UNCHANGED)]


# ---------------------------------------------------------------- splice and compare


def _spliced(source: Source, drafts: Sequence[_Draft]) -> str:
    """The text with all drafts, or with those that change nothing else; the others are marked as left."""
    changing = [draft for draft in drafts if draft.edits]
    text = _attempt(source, changing)
    if text is not None:
        return text
    accepted = [draft for draft in changing if not _handed_on(source, draft)]
    best = _attempt(source, accepted) if accepted else source.text
    if best is None:
        accepted, best = [], source.text
    # From the end: who takes something over an anchor stands behind it, and may have its own by then.
    for draft in reversed([draft for draft in changing if draft not in accepted]):
        text = _attempt(source, [*accepted, draft])
        if text is None:
            draft.leave(_SHARED if source.aliased else "it cannot be written without changing what is around it")
        else:
            accepted.append(draft)
            best = text
    return best


def _handed_on(source: Source, draft: _Draft) -> bool:
    """Whether an edit is inside something that an alias refers to."""
    found = (node for root in source.documents for node in anchored(root) if node.anchor in source.aliased)
    spans = [(node.start, node.end) for node in found]
    return any(start <= edit.start <= end for edit in draft.edits for start, end in spans)


def _attempt(source: Source, drafts: Sequence[_Draft]) -> str | None:
    """The text with these drafts; None where it would not mean what it meant, apart from the values wanted."""
    text = edited(source.text, (edit for draft in drafts for edit in draft.edits))
    wanted = [value_of(root) for root in source.documents]
    for draft in drafts:
        intended(wanted[draft.site.document], draft.site.path, draft.choice.wants)
    try:
        found = [value_of(root) for root in parsed(replace(source, text=text)).documents]
    except DefinitionError:
        return None
    return text if fulfils(found, wanted) else None
