"""The page of a run: what stands on it, and that nothing else does."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from builders import MB, REFUSED, advice, record, repeat, result, run, usage

from browser.pages import HOSTILE, make_run, write_series
from cpost.model import (
    Enforced,
    Format,
    MemoryChoice,
    Options,
    Outcome,
    RepeatKind,
    Resources,
    Run,
    Search,
    Statistic,
    Totals,
    Trial,
    Verdict,
    Verification,
)
from cpost.report.charts import MEGABYTES, PERCENT, Chart, Level, Line, Mark, clock
from cpost.report.details import operator_facts, operator_tables
from cpost.report.overview import summary
from cpost.report.page import is_page, render
from cpost.report.sections import Source
from cpost.report.view import Cell
from cpost.units import MIB

HOUR = 360_000
VOID = {"meta", "link", "br", "img", "input"}


class Parsed(HTMLParser):
    """Elements with their attributes, the text outside of style and script, and what is in those."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self._open: list[str] = []
        self.feed(html)
        assert not self._open, "every element is closed"

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in self.inside:
            self.inside[self._open[-1]].append(data)
        elif data.strip():
            self.texts.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return "\n".join(self.texts)

    @property
    def plots(self) -> list[str]:
        """What each chart says of itself."""
        return [each["aria-label"] for each in self.all("div") if each.get("class") == "plot"]


def page_of(made: Run, folder: Path) -> Parsed:
    return Parsed(render([Source("here", made, folder)]))


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Parsed:
    folder = tmp_path_factory.mktemp("run")
    return page_of(make_run(folder), folder)


# ---------------------------------------------------------------- nothing gets in, nothing goes out


def test_what_is_hostile_stands_there_as_text(everything: Parsed) -> None:
    shown = HOSTILE.replace("\u202e", "\\u202e").replace("\x1b", "\\x1b")
    assert everything.text.count(shown) >= 8
    assert not everything.all("img")
    assert len(everything.all("script")) == 1
    assert not [name for _, attributes in everything.elements for name in attributes if name.startswith("on")]


def test_one_script_may_run_and_no_address_is_asked(everything: Parsed) -> None:
    (policy,) = [meta["content"] for meta in everything.all("meta") if "http-equiv" in meta]
    (script,) = everything.inside["script"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ")
    assert re.findall("script-src ([^;]*)", policy) == [f"'sha256-{digest}'"]
    linked = [
        each[name] for _, each in everything.elements for name in ("src", "href", "action", "data") if name in each
    ]
    assert {link for link in linked if not link.startswith("#")} == {"data:,"}
    assert not re.findall(r"url\(|@import|https?:|//\w", "".join(everything.inside["style"]))
    assert not re.findall(r"https?:|fetch|XMLHttp|import\b|WebSocket|sendBeacon", script)


def test_links_within_the_page_lead_somewhere(everything: Parsed) -> None:
    ids = [each["id"] for _, each in everything.elements if "id" in each]
    assert len(ids) == len(set(ids))
    assert {each["href"][1:] for each in everything.all("a")} <= set(ids)


def test_a_page_is_known_by_its_head(tmp_path: Path) -> None:
    assert is_page(render([Source("", run(), tmp_path)])[:2000])
    assert not is_page("<!DOCTYPE html><html><head><title>cpost</title>")


# ---------------------------------------------------------------- what stands on it


def test_declared_and_recommended_stand_side_by_side() -> None:
    grown = record("grown", declared=Resources(1000, 128 * MB), recommendation=advice(2000, 256 * MB))
    capped = record("capped", declared=Resources(250), declared_limits=Resources(500, 64 * MB))
    table = summary([("", run(grown, capped, record("free"), record("bad", recommendation=REFUSED)))])
    titles = [f"{column.group} {column.title}".strip() for column in table.columns]
    rows = {row[0].text: dict(zip(titles, row, strict=True)) for row in table.rows}
    wanted = rows["grown"]["Memory, MB recommended"]
    assert (wanted.text, wanted.style, wanted.small) == ("256", "raise", "from 128")
    assert rows["grown"]["Memory, MB declared"].text == "128"
    assert rows["free"]["CPU declared"] == Cell("-")
    assert rows["capped"]["CPU declared"] == Cell("0.25", small="limit 0.5")
    assert rows["capped"]["Memory, MB declared"] == Cell("-", small="limit 64")
    assert rows["bad"]["CPU recommended"].text == "none"
    assert operator_facts(grown)[-1].small == "declared: cpu 1, memory 128"
    assert operator_facts(capped)[-1].small == "declared: cpu 0.25; limits: cpu 0.5, memory 64"


def test_amounts_of_other_formats_keep_the_number_that_the_file_has(tmp_path: Path) -> None:
    sized = replace(advice(), requests=Resources(250, 144 * MIB))
    made = record("a", declared=Resources(10, 64 * MIB), declared_limits=Resources(20, 96 * MIB), recommendation=sized)
    (row,) = summary([("", run(made))]).rows
    assert Cell("64Mi", small="limit 96Mi") in row
    assert Cell("144Mi", "raise", "from 64Mi") in row
    fact = operator_facts(made)[-1]
    assert (fact.value, fact.small) == (
        "cpu 0.25, memory 144Mi",
        "declared: cpu 0.01, memory 64Mi; limits: cpu 0.02, memory 96Mi",
    )
    write_series(tmp_path / "a.csv", 300)
    text = page_of(run(replace(made, series_file="a.csv", result=result(wall_ns=3 * 10**9))), tmp_path).text
    assert "recommended 144Mi" in text
    assert "151" not in text


def test_cpu_beside_other_work_is_marked_wherever_it_stands() -> None:
    busy = usage(31.0, others_cpu_share=0.9)
    made = record("a", usage=busy, result=result(totals=Totals("kernel", 10**6)))
    table = summary([("", run(made))])
    titles = [f"{column.group} {column.title}".strip() for column in table.columns]
    cells = {title: cell.text for title, cell in zip(titles, table.rows[0], strict=True)}
    assert (cells["CPU average %"], cells["CPU highest %"], cells["Memory, MB peak"]) == (">= 31.0", ">= 31.0", "1.0")
    assert [fact.value for fact in operator_facts(made)[1:3]] == [">= 31.0 %", ">= 31.0 %"]
    (figures,) = operator_tables(made, Options())
    shown = {row[0].text: row[1].text for row in figures.rows}
    assert (shown["CPU, p95"], shown["CPU time"]) == (">= 31.000 %", "1.000 s")


def test_warnings_of_runs_under_limits_are_on_the_page(tmp_path: Path) -> None:
    trial = Trial((Enforced("a", Resources(1000)),), Verdict.SLOW, "took longer", result(warnings=("it was busy",)))
    proof = Verification(Verdict.SLOW, 10**9, 0.1, (trial,))
    assert "run 1: it was busy" in page_of(run(record(verification=proof)), tmp_path).text


@pytest.mark.parametrize(
    ("ended", "verdict", "complete", "state"),
    [
        (0, Verdict.HOLDS, True, "complete"),
        (1, Verdict.HOLDS, True, "complete, 1 ended badly"),
        (0, Verdict.SLOW, True, "complete, 1 did not hold"),
        (1, Verdict.BROKEN, False, "partial, 1 ended badly, 1 did not hold"),
        (0, Verdict.HOLDS, False, "partial"),
    ],
)
def test_the_badge_says_what_became_of_all(
    ended: int, verdict: Verdict, complete: bool, state: str, tmp_path: Path
) -> None:
    trials = (Trial((Enforced("a", Resources(1000)),), verdict, "", result()),)
    proven = record("a", verification=Verification(verdict, None, 0.1, trials))
    other = record("b", result=result(Outcome.FAILED if ended else Outcome.COMPLETED))
    page = page_of(run(proven, other, complete=complete), tmp_path)
    assert f" {state} " in page.text.replace("\n", " ")
    badge = next(attributes for tag, attributes in page.elements if attributes.get("class", "").startswith("state"))
    assert badge["class"] == ("state good" if state == "complete" else "state bad")


def test_how_long_operators_ran_is_no_time_between_runs(tmp_path: Path) -> None:
    """Hours lay between the run and its verification."""
    trial = Trial((Enforced("a", Resources(1000)),), Verdict.HOLDS, "", result(wall_ns=6 * 10**9))
    smaller = replace(trial, result=result(wall_ns=2 * 10**9))
    proven = record(
        "a",
        result=result(wall_ns=5 * 10**9),
        verification=Verification(Verdict.HOLDS, None, 0.1, (trial,)),
        search=Search(None, 0.1, MemoryChoice((smaller,)), None),
    )
    twice = record("b", repeats=tuple(repeat(n, 2, result=result(wall_ns=10**9)) for n in (1, 2)))
    text = page_of(run(proven, twice, ended_at="2026-01-01T09:00:00.000+00:00"), tmp_path).text
    assert re.search(r"Operators ran for\s+15[.]0 s\s+in 5 runs", text)
    assert re.search(r"Requests to change\s+-\s+none is both declared and recommended", text)


def test_a_need_that_is_a_bound_is_marked_wherever_it_stands() -> None:
    seen = result(wall_ns=10**10, totals=Totals("last sample", 1, tail_ns=9 * 10**9))
    cut = record("cut", result=seen, usage=usage(need_peak_bytes=100 * MB))
    table = summary([("", run(cut))])
    titles = [f"{column.group} {column.title}".strip() for column in table.columns]
    cells = {title: cell.text for title, cell in zip(titles, table.rows[0], strict=True)}
    assert [cells[title] for title in ("CPU highest %", "Memory, MB need", "Memory, MB peak")] == [
        ">= 100.0",
        ">= 100.0",
        ">= 1.0",
    ]
    assert [fact.value for fact in operator_facts(cut)[1:5]] == [">= 100.0 %", ">= 100.0 %", ">= 100.0 MB", ">= 1.0 MB"]
    assert not [title for title in titles if title.startswith("GPU")]


def test_where_a_server_had_no_load_its_whole_life_stands_in(tmp_path: Path) -> None:
    table = summary([("", make_run(tmp_path))])
    place = [column.title for column in table.columns].index("average %")
    shown = {row[0].text: row[place].small for row in table.rows}
    assert (shown["reader"], shown["triton"], shown["db"]) == ("", "", "whole life")


def test_several_runs_of_an_operator_are_neighbours() -> None:
    table = summary([("one", run(record("a"), record("b"))), ("two", run(record("b"), record("a")))])
    assert [(row[0].text, row[1].text) for row in table.rows] == [
        ("a", "one"),
        ("a", "two"),
        ("b", "one"),
        ("b", "two"),
    ]


def test_all_that_a_run_has_is_on_its_page(everything: Parsed) -> None:
    labels = everything.plots
    assert [re.split(" over |[.]", label)[0] for label in labels] == [
        *("CPU", "Memory", "Throttling"),  # reader
        *("CPU", "Memory charged", "Memory need", "Throttling"),  # its repeats
        *("CPU", "Memory", "Throttling"),  # its server
        *("CPU", "Memory", "Throttling", "GPU 0 busy", "GPU 0 memory", "GPU 0 power", "GPU 0 SM clock"),
        *("CPU", "Memory", "Throttling"),  # proven
        *("CPU", "Memory charged", "Memory need", "Throttling"),  # its runs under limits
        *("Time by memory limit", "Time by cores"),  # what was searched
        *("CPU", "Memory", "Throttling"),  # the shared server
    ]
    assert "total at most 500.0 MB" in labels[1]
    assert "memory limit 600.0 MB" in labels[1]
    assert "OOM kill at 1.80 s" in labels[0]
    assert "ready at 1.00 s" in labels[7]
    for words in ("start", "idle", "load", "reader ran", "12", "Spread", "2 repeats are too few", "--repeat 5"):
        assert words in everything.text
    assert ">= 94.0 %" in everything.text


def test_what_became_of_a_recommendation_stands_beside_it() -> None:
    tried = record("tried", recommendation=replace(advice(), verified=Verdict.SLOW))
    table = summary([("", run(tried, record("untried")))])
    column = [each.title for each in table.columns].index("Verified")
    assert [row[column].text for row in table.rows] == ["Too slow", "-"]
    assert "Verified" not in [each.title for each in summary([("", run(record()))]).columns]


def test_runs_under_limits_are_on_the_page(everything: Parsed) -> None:
    assert "+3.4 % time" in everything.text
    for words in (
        "Run under what was recommended, for at most 2.200 s: 10% longer than the 2.000 s without limits",
        "cpu 1, memory 512.000 MB, shared memory 64.000 MB",
        "The smallest memory that passed: 640.000 MB",
        "The fewest cores that are fast enough: 2; cores times time is least with 1",
        "no limits",
        "run 2",
    ):
        assert words in everything.text


def test_who_was_shorter_than_a_window_has_no_line_of_its_cpu_and_why_is_said(tmp_path: Path) -> None:
    write_series(tmp_path / "a.csv", 15)
    brief = page_of(run(record(series_file="a.csv", result=result(wall_ns=150 * 10**6))), tmp_path)
    assert [label.partition(" ")[0] for label in brief.plots] == ["Memory", "Throttling"]
    assert "there is no line of its CPU: it ended before the first window of 200 ms was over" in brief.text
    blank = page_of(run(record(series_file="a.csv", result=result(wall_ns=250 * 10**6))), tmp_path)
    assert "there is no line of its CPU: no CPU rate was read" in blank.text
    write_series(tmp_path / "a.csv", 30)
    assert "no line of its CPU" not in page_of(run(record(series_file="a.csv")), tmp_path).text


def test_the_need_is_a_level_of_its_own(tmp_path: Path) -> None:
    write_series(tmp_path / "a.csv", 30)
    parsed = page_of(run(record(series_file="a.csv", usage=usage(need_peak_bytes=333 * MB))), tmp_path)
    assert "need peak 333.0 MB" in parsed.plots[1]
    assert "need peak 333.0 MB" in parsed.texts


def test_kills_that_no_row_tells_of_are_on_the_page(tmp_path: Path) -> None:
    write_series(tmp_path / "a.csv", 30)
    ended = result(wall_ns=300 * 10**6, totals=Totals("kernel", 1, oom_kills=3))
    parsed = page_of(run(record(series_file="a.csv", result=ended)), tmp_path)
    assert {"OOM kill", "2 unseen OOM kills"} <= set(parsed.texts)


def test_headings_are_a_tree_and_every_part_has_one(everything: Parsed) -> None:
    levels = [int(tag[1]) for tag, _ in everything.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(later - before for before, later in itertools.pairwise(levels)) == 1
    headed = [
        next(tag for tag, _ in everything.elements[at + 1 :] if re.fullmatch("h[1-6]|table|figure|dl", tag))
        for at, (tag, _) in enumerate(everything.elements)
        if tag == "section"
    ]
    assert not [tag for tag in headed if not tag.startswith("h")]


def test_nothing_speaks_up_by_itself(everything: Parsed) -> None:
    """A reader's cursor changes dozens of figures at once."""
    assert not everything.all("output")
    assert not [each for _, each in everything.elements if each.get("aria-live", "off") != "off"]


def test_what_was_asked_for_stands_on_the_page(tmp_path: Path) -> None:
    options = Options(
        no_gpu=True,
        models_dir="models",
        triton_image="triton:2",
        triton_args=("--a=1", "--b"),
        triton_scope="pipeline",
        duration_ns=90 * 10**9,
        pids_limit=1234,
    )
    proven = record(verification=Verification(Verdict.HOLDS, None, 0.25, ()))
    texts = page_of(run(proven, options=options, pipeline_format=Format.ARGO), tmp_path).texts
    shown = dict(itertools.pairwise(texts))
    assert shown["GPUs"] == "left out (--no_gpu)"
    assert shown["Triton"] == "triton:2, one for all of them"
    assert shown["Triton's arguments"] == "--a=1 --b"
    assert shown["run for"] == "1 min 30 s"
    assert shown["verified"] == "yes, at most 25% longer"
    assert shown["format of the definition"] == "argo"
    assert shown["most processes and threads"] == "1,234"
    assert "Triton" not in page_of(run(record()), tmp_path).texts


def test_what_is_not_there_is_said(everything: Parsed) -> None:
    assert "its series nothing_final_result.csv is not there" in everything.text
    assert "its series '../../secret.csv' lies outside of the run's folder and is not read" in everything.text
    assert not re.findall(r"\bNone\b|\bnan\b|\binf\b", everything.text)


def test_stretches_of_a_server_follow_one_another(everything: Parsed) -> None:
    spans = [each for each in everything.all("span") if "data-from" in each]
    assert [(each["title"], each["data-from"], each["data-to"]) for each in spans[:3]] == [
        ("start", "0", "1000"),
        ("idle", "1000", "2000"),
        ("load", "2000", "5000"),
    ]


@pytest.mark.parametrize(
    "made",
    [
        run(),
        run(record(usage=None, result=result(Outcome.FAILED), recommendation=REFUSED)),
        run(record(usage=usage(None, None))),
        run(record(usage=replace(usage(None, None), cpu_pct=Statistic()), result=result(totals=Totals("", 0)))),
        run(record(series_file="a.csv", repeats=(repeat(result=result(Outcome.FAILED), usage=None), repeat(2)))),
        run(complete=True, created_at="", ended_at="soon"),
    ],
)
def test_a_record_with_next_to_nothing_has_a_page(made: Run, tmp_path: Path) -> None:
    parsed = page_of(made, tmp_path)
    assert not parsed.all("figure")
    assert not re.findall(r"\bNone\b|\bnan\b", parsed.text)


def test_runs_over_one_another(tmp_path: Path) -> None:
    sources = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        sources.append(Source(name, make_run(tmp_path / name), tmp_path / name))
    parsed = Parsed(render(sources))
    assert len(parsed.plots) == 22
    assert [label for label in parsed.plots if label.startswith("GPU 0 memory")]
    assert parsed.text.count("\none\n") > 12
    ids = {each["id"] for _, each in parsed.elements if "id" in each}
    assert {each["href"][1:] for each in parsed.all("a")} <= ids


def test_many_repeats_are_drawn_as_far_as_there_is_room(tmp_path: Path) -> None:
    write_series(tmp_path / "a.csv", 30)
    repeats = [repeat(n, 30, series_file="a.csv", usage=usage(100 + n % 9, MB * (n % 7))) for n in range(1, 31)]
    parsed = page_of(
        run(record(repeats=(repeat(1, 1, kind=RepeatKind.WARMUP, series_file="a.csv"), *repeats))), tmp_path
    )
    keys = [each for each in parsed.all("button") if "data-line" in each]
    assert len(keys) == 2 * 8 + 2 * 8
    assert "8 of 31 runs are drawn; the tables are about all of them" in parsed.text
    assert {"repeat 6 of 30", "repeat 8 of 30", "repeat 30 of 30"} <= set(parsed.texts)


# ---------------------------------------------------------------- an hour


def test_an_hour_at_the_default_period_keeps_its_peak_and_is_small(tmp_path: Path) -> None:
    columns = "elapsed_s,cpu_percent,memory_bytes,memory_interval_peak_bytes,reclaimable_bytes,throttled_us"
    rows = [
        f"{n / 100},{n * 7919 % 2000 / 10},{10**9 + n * 104729 % 10**8},{2 * 10**9 - n},{n % 10**7},{n}\n"
        for n in range(HOUR)
    ]
    rows[200_001] = f"{2000.01},6399.9,{77 * 10**9},{78 * 10**9},0,200001\n"
    (tmp_path / "a.csv").write_text(columns + "\n" + "".join(rows))
    html = render([Source("", run(record(series_file="a.csv")), tmp_path)])
    assert len(html.encode()) < 1_000_000
    parsed = Parsed(html)
    charts = {figure["data-unit"]: figure for figure in parsed.all("figure")}
    assert int(charts["%"]["data-top"]) > 63_999
    labels = parsed.plots
    assert "CPU at most 6,399.9 %" in labels[0]
    assert "total at most 77,000.0 MB" in labels[1]
    drawn = [drawn_points(each["d"]) for each in parsed.all("path") if "line cpu" in each.get("class", "")]
    assert (2_000_010, 63_999) in drawn[0]
    assert max(at for at, _ in drawn[0]) > 3_590_000


def drawn_points(path: str) -> list[tuple[int, int]]:
    """What the path draws, as the page's own script reads it."""
    points, at, value = [], 0, 0
    for command, rest in re.findall("([MlvhV])([^MlvhV]*)", path):
        numbers = [int(number) for number in re.findall(r"-?\d+", rest)]
        if command == "M":
            at, value = numbers
        elif command == "v":
            value += numbers[0]
            points.append((at, value))
        elif command == "l":
            for along, up in zip(numbers[::2], numbers[1::2], strict=True):
                at, value = at + along, value + up
                points.append((at, value))
    return points


# ---------------------------------------------------------------- charts


def chart(*values: int, levels: tuple[Level, ...] = (), marks: tuple[Mark, ...] = (), end_ms: int = 1000) -> Chart:
    piece = tuple((at * 10, value) for at, value in enumerate(values))
    return Chart("A", PERCENT, (Line("a", "cpu", (piece,)),), end_ms, "", levels, marks)


def test_paths_are_written_in_steps() -> None:
    pieces = (((0, 5), (10, 2), (20, 9)), ((50, 1),))
    assert Line("", "", pieces).path == "M0 5l10-3 10 7M50 1h0"
    assert Line("", "", pieces, area=True).path == "M0 0v5l10-3 10 7V0M50 0v1h0V0"


def test_a_level_far_above_is_named_and_not_drawn() -> None:
    made = chart(1000, 900, levels=(Level("near", "", 1500), Level("far", "", 9000), Level("unknown", "", None)))
    assert [level.label for level in made.drawn_levels] == ["near 150.0 %"]
    assert made.levels_above == ("far 900.0 %",)
    assert made.top == 1770


def test_labels_do_not_cover_one_another() -> None:
    levels = tuple(Level(name, "", value) for name, value in zip("abcde", (1000, 1010, 990, 500, 505), strict=True))
    placed = chart(1000, levels=levels).drawn_levels
    assert [level.label[0] for level in placed] == ["b", "a", "c", "e", "d"]
    tops = [level.percent for level in placed]
    assert tops[:3] == pytest.approx([100 - 100 * 1010 / 1192 - 9, tops[0] + 9, tops[0] + 18], abs=0.1)
    assert tops[3] == pytest.approx(100 - 100 * 505 / 1192 - 9, abs=0.1)
    low = chart(1000, levels=tuple(Level(name, "", 5) for name in "abc")).drawn_levels
    assert [level.percent for level in low] == pytest.approx([73, 82, 91])
    marks = chart(1, marks=(Mark(990, "exit"), Mark(0, "start"), Mark(950, "OOM kill", bad=True)))
    assert [(m.label, m.lane, m.other_side) for m in marks.placed_marks] == [
        ("start", 0, False),
        ("OOM kill", 0, True),
        ("exit", 1, True),
    ]
    facing = chart(1, marks=(Mark(490, "a" * 9), Mark(510, "b" * 9)))
    assert [(m.lane, m.other_side) for m in facing.placed_marks] == [(0, False), (1, True)]


def test_what_happens_again_and_again_is_said_once() -> None:
    kills = tuple(Mark(900 + n, "OOM kill", bad=True) for n in range(0, 60, 10))
    made = chart(1, marks=(*kills, Mark(100, "OOM kill", bad=True), Mark(970, "OOM kill", bad=True, of="run 2")))
    assert [mark.label for mark in made.placed_marks] == ["OOM kill", "6 OOM kills", "run 2: OOM kill"]
    assert len({mark.lane for mark in made.placed_marks[1:]}) == 2
    assert made.placed_marks[1].percent == 90


def test_ticks_are_round() -> None:
    assert [tick.label for tick in chart(1000).value_ticks] == ["0", "50", "100"]
    assert [tick.label for tick in chart(1, end_ms=3_600_000).time_ticks][:3] == ["0:00", "10:00", "20:00"]
    assert [tick.label for tick in chart(1, end_ms=30).time_ticks] == [f"0.{n:03} s" for n in range(0, 31, 5)]
    assert chart(0).top > 0


@pytest.mark.parametrize(
    ("at_ms", "step_ms", "text"),
    [
        (50, 10, "0.05 s"),
        (200, 100, "0.2 s"),
        (45_000, 5000, "45 s"),
        (200_000, 15_000, "3:20"),
        (3_900_000, 600_000, "1:05:00"),
    ],
)
def test_times_on_the_axis(at_ms: int, step_ms: int, text: str) -> None:
    assert clock(at_ms, step_ms) == text


def test_units_name_themselves() -> None:
    assert MEGABYTES.text(1_169_224) == "1,169.2 MB"
