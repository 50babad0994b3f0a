"""Who runs beside whom: services that others need, over any graph."""

from __future__ import annotations

from builders import operator
from hypothesis import given
from hypothesis import strategies as st

from cpost.definition.flow import circle, companions, with_payload
from cpost.definition.naming import Site, names
from cpost.model import Input, Operator, Volume


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Operator], set[str]]:
    """Operators that follow some of those before them, and which of them serve."""
    found: list[Operator] = []
    for number in range(draw(st.integers(1, 8))):
        known = [each.name for each in found]
        after = draw(st.lists(st.sampled_from(known), unique=True, max_size=3)) if known else []
        found.append(operator(f"o{number}", after=tuple(after)))
    return found, draw(st.sets(st.sampled_from([each.name for each in found])))


@given(graphs())
def test_everybody_runs_with_all_that_it_stands_on(graph: tuple[list[Operator], set[str]]) -> None:
    before, serving = graph
    by_name = {each.name: each for each in before}

    def behind(name: str) -> set[str]:
        return {name for other in by_name[name].after for name in ({other} | behind(other))}

    after = companions(before, serving)
    alone = {each.name for each in after}
    beside = {each.name for one in after for each in one.companions}
    assert alone | beside == set(by_name)
    assert not alone & beside
    assert beside <= serving
    for each in after:
        assert {one.name for one in each.companions} == behind(each.name) & serving
        assert set(each.after) <= alone
        started: set[str] = set()
        for one in each.companions:  # those that it needs come first
            assert behind(one.name) & serving <= started
            started.add(one.name)


def test_what_cannot_run_beside_it_keeps_it_from_running() -> None:
    (found,) = companions([operator("a", unsupported=("no",)), operator("b", after=("a",))], {"a"})
    assert found.unsupported == ("its server a: no",)


def test_what_a_server_writes_cannot_be_read() -> None:
    read = operator("b", inputs=(Input("/in", "a"), Input("/payload")))
    (found,) = companions([operator("a"), read], {"a"})
    assert found.inputs == (Input("/payload"),)
    assert found.upstream == ()
    assert [each.name for each in found.companions] == ["a"]
    assert found.unsupported == ("it reads what a writes, which stays up beside it",)


def test_circles_are_found() -> None:
    assert circle({"a": ["b"], "b": ["c"], "c": []}) == []
    found = circle({"a": ["b"], "b": ["c"], "c": ["b"]})
    assert found[0] == found[-1]
    assert set(found) == {"b", "c"}


def test_the_payload_is_at_input_unless_something_else_is() -> None:
    assert with_payload(operator()).inputs == (Input("/input"),)
    taken = operator(volumes=(Volume("v", "/input"),))
    assert with_payload(taken) == taken


def test_names_of_containers() -> None:
    sites = [
        Site("Job", "a", "main"), Site("Job", "b", "main"), Site("Pod", "b", "main"), Site("Job", "a", "x y"),
        Site("Workflow", "gen", "z"), Site("Workflow", "gen", "q"), Site("Pod", "p", "q"),
    ]  # fmt: skip
    assert names([site.levels() for site in sites]) == [
        "a.main",
        "job.b.main",
        "pod.b.main",
        "x-y",
        "z",
        "gen.q",
        "p.q",
    ]


def test_names_of_what_only_a_template_or_a_namespace_tells_apart() -> None:
    sites = [
        Site("Workflow", "w", "a"), Site("Workflow", "w", "a", "main"),
        Site("Pod", "p", "c"), Site("Pod", "p", "c", namespace="x"), Site("Pod", "p", "c", namespace="y"),
    ]  # fmt: skip
    assert names([site.levels() for site in sites]) == [
        "workflow.w.a", "workflow.w.main.a", "pod.p.c", "x.pod.p.c", "y.pod.p.c",
    ]  # fmt: skip
