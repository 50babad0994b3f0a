"""The page of a run as people see it: in a browser, by keyboard, on a phone, in the dark, without script, on paper."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser.chromium import Browser, browser
from browser.pages import make_crowded, make_run
from cpost.publish import report

_SHIFT = 8
FOCUSED = "document.activeElement.closest('figure')?.querySelector('figcaption > :first-child').textContent"
READ_OUT = (
    "Array.from(document.querySelectorAll('figure')[0].querySelectorAll('.at, .now'), (each) => each.textContent)"
)
TICKS = "Array.from(document.querySelectorAll('figure')[0].querySelectorAll('.times span'), (each) => each.textContent)"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run that has everything, hostile words too."""
    folder = tmp_path_factory.mktemp("run")
    make_run(folder)
    return report([folder], None)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests here."""
    with browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


def told(chromium: Browser, *methods: str) -> list[dict[str, Any]]:
    return [event["params"] for event in chromium.events if event["method"] in methods]


def test_nothing_is_wrong_and_nothing_is_asked_for(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    assert chromium.value("document.querySelectorAll('figure').length") == 29
    assert told(chromium, "Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown") == []
    assert [each["request"]["url"] for each in told(chromium, "Network.requestWillBeSent")] == [page.as_uri()]
    assert told(chromium, "Page.javascriptDialogOpening") == []


def test_a_script_that_gets_in_is_not_run(chromium: Browser, page: Path, tmp_path: Path) -> None:
    """What the policy is for, should escaping ever fail."""
    changed = tmp_path / "page.html"
    changed.write_text(page.read_text().replace("<main>", "<main><script>window.hurt = 1</script><img src='x.png'>"))
    chromium.open(changed)
    assert chromium.value("typeof window.hurt") == "undefined"
    refused = [each["entry"]["text"] for each in told(chromium, "Log.entryAdded")]
    assert len([text for text in refused if "Content Security Policy" in text]) == 2


def test_lines_are_drawn_where_their_figures_are(chromium: Browser, page: Path) -> None:
    """The highest total, 500 MB, in the middle of 3.4 s: the browser's own geometry says so."""
    chromium.open(page)
    box = chromium.value(
        "(() => { const figure = document.querySelectorAll('figure')[1], plot = figure.querySelector('.plot');"
        "const line = figure.querySelector('path.total').getBoundingClientRect(), all = plot.getBoundingClientRect();"
        "return [(all.bottom - line.top) / all.height * figure.dataset.top,"
        "(line.right - all.left) / all.width * figure.dataset.end] })()"
    )
    assert box[0] == pytest.approx(500_000, rel=0.02)
    assert box[1] == pytest.approx(3390, rel=0.01)


def test_the_keyboard_reaches_every_chart_and_reads_it_out(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    for _ in range(40):
        chromium.key("Tab")
        if chromium.value("document.activeElement.classList.contains('plot')"):
            break
    assert chromium.value(FOCUSED).startswith("CPU")
    assert chromium.value("document.activeElement.getAttribute('role')") == "slider"
    chromium.key("End")
    at_end, cpu = chromium.value(READ_OUT)
    assert at_end == "at 3.390 s"
    assert re.fullmatch(r"\d+\.\d %", cpu)
    for _ in range(10):
        chromium.key("ArrowLeft", _SHIFT)
    assert float(chromium.value(READ_OUT)[0].split()[1]) == pytest.approx(1.695, abs=0.001)
    assert chromium.value(FOCUSED).startswith("CPU")
    assert chromium.value("document.activeElement.getAttribute('aria-valuetext')").startswith("at 1.695 s: CPU ")
    # The charts of a section have one cursor: the memory's peak is in the middle.
    assert "500.0 MB" in chromium.value(READ_OUT.replace("[0]", "[1]"))
    unreachable = "all => all.filter((each) => each.tabIndex < 0).length"
    assert chromium.value(f"({unreachable})(Array.from(document.querySelectorAll('.plot, .scrolls, .key')))") == 0


def test_a_curve_is_read_out_run_by_run(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    read_out = "document.querySelector('.curve .at').textContent"
    chromium.value("document.querySelector('.curve .plot').focus()")
    assert chromium.value(read_out).startswith("320.000 MB: breaks, killed for memory")
    chromium.key("ArrowRight")
    assert chromium.value(read_out) == "640.000 MB: 2.000 s, +3.4%, holds"
    chromium.key("End")
    assert chromium.value("document.activeElement.getAttribute('aria-valuetext')") == chromium.value(read_out)
    assert chromium.value("document.activeElement.getAttribute('aria-valuenow')") == "2"
    chromium.key("Home")
    assert chromium.value("document.querySelectorAll('.curve .dot.on').length") == 1
    # Where its time is: 2 s, the level without limits; and the one that broke is above everything with a time.
    middles = chromium.value(
        "Array.from(document.querySelector('.curve').querySelectorAll('.plot .dot > :last-child, .plot .level'),"
        "(each) => { const box = each.getBoundingClientRect(); return (box.top + box.bottom) / 2 })"
    )
    without_limits, allowed, broken, holds = middles
    assert holds == pytest.approx(without_limits, abs=1)
    assert broken < allowed < without_limits


def test_a_closer_look_and_back(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    whole = chromium.value(TICKS)
    chromium.value("document.querySelector('.plot').focus()")
    for key in ("ArrowRight", "+", "+"):
        chromium.key(key)
    closer = chromium.value(TICKS)
    assert closer != whole
    assert closer[-1].startswith("0.")
    chromium.key("Escape")
    assert chromium.value(TICKS) == whole


def test_a_gap_reads_as_nothing(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    value = chromium.value(
        "(() => { const section = document.getElementById('of-gpu'), plot = section.querySelector('.plot');"
        "const box = plot.getBoundingClientRect();"
        "plot.dispatchEvent(new PointerEvent('pointermove', { clientX: box.left + box.width * 0.45 }));"
        "return section.querySelector('.key .now').textContent })()"
    )
    assert value == "-"


def test_a_line_is_hidden_and_shown(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    key, line = "document.querySelector('.key.total')", "document.querySelector('path.total')"
    shown = []
    for _ in range(2):
        chromium.value(f"{key}.click()")
        shown.append(chromium.value(f"[getComputedStyle({line}).display, {key}.getAttribute('aria-pressed')]"))
    assert shown == [["none", "false"], ["inline", "true"]]


def test_dark_and_light(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    light = chromium.value(BACKGROUND)
    chromium.open(page, dark=True)
    dark = chromium.value(BACKGROUND)
    assert light != dark
    chromium.value("document.getElementById('theme').click()")
    assert chromium.value(BACKGROUND) == light
    chromium.value("localStorage.clear()")


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_but_tables_scrolls_sideways(chromium: Browser, page: Path, width: int) -> None:
    chromium.open(page, width)
    assert chromium.value("document.documentElement.scrollWidth") == width
    assert (
        chromium.value("Math.min(...Array.from(document.querySelectorAll('.plot'), (each) => each.clientWidth))")
        > width / 3
    )


def test_it_is_all_there_without_script(chromium: Browser, page: Path, tmp_path: Path) -> None:
    chromium.open(page, script=False)
    chromium.picture(tmp_path / "without.png", 0, 3000)
    layout = chromium.call("DOMSnapshot.captureSnapshot", computedStyles=["visibility"])
    text = " ".join(layout["strings"])
    assert "recommended 100.0 %" in text
    assert (tmp_path / "without.png").stat().st_size > 50_000
    chromium.open(page)
    assert chromium.value("document.getElementById('theme').hidden") is False


@pytest.mark.parametrize("chosen", ["", "dark"])
def test_it_prints(chromium: Browser, page: Path, chosen: str) -> None:
    """Dark ink on white, whatever the screen shows, and all of it, also where no script runs."""
    chromium.open(page, dark=True)
    chromium.value(f"document.documentElement.dataset.theme = '{chosen}'")
    document = chromium.printed()
    assert document.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", document)) > 3
    on_paper(chromium)
    assert max(brightness(chromium, ".fact, .label, .who", "color")) < 400
    assert min(brightness(chromium, "body, section, .fact, .label", "backgroundColor")) > 700
    assert chromium.value("getComputedStyle(document.body).color") == "rgb(23, 32, 44)"
    assert chromium.value("getComputedStyle(document.querySelector('#theme')).display") == "none"


def brightness(chromium: Browser, selector: str, of: str) -> list[int]:
    """Of a colour of each of these elements, from 0 (black) to 765 (white)."""
    found = chromium.value(f"Array.from(document.querySelectorAll('{selector}'), (e) => getComputedStyle(e).{of})")
    return [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in found]


def on_paper(chromium: Browser) -> None:
    dark = {"name": "prefers-color-scheme", "value": "dark"}
    chromium.call("Emulation.setEmulatedMedia", media="print", features=[dark])


def test_what_is_folded_prints_without_script(chromium: Browser, page: Path) -> None:
    height = "document.querySelector('details').getBoundingClientRect().height"
    chromium.open(page)
    assert chromium.value(height) < 50
    on_paper(chromium)
    assert chromium.value("document.querySelectorAll('details[open]').length") == 0
    assert chromium.value(height) > 200


@pytest.mark.parametrize(("setting", "behaviour"), [("reduce", "auto"), ("no-preference", "smooth")])
def test_nothing_moves_for_whoever_wants_no_motion(chromium: Browser, page: Path, setting: str, behaviour: str) -> None:
    chromium.open(page)
    feature = {"name": "prefers-reduced-motion", "value": setting}
    chromium.call("Emulation.setEmulatedMedia", features=[feature])
    assert chromium.value("getComputedStyle(document.documentElement).scrollBehavior") == behaviour


# ---------------------------------------------------------------- long names, many events, several columns


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with long names, a verdict for each, and kills close to one another."""
    folder = tmp_path_factory.mktemp("crowded")
    make_crowded(folder)
    return report([folder], None)


BOXES = (
    "Array.from({}, (each) => {{ const b = each.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom] }})"
)


def boxes(chromium: Browser, elements: str) -> list[list[float]]:
    found: list[list[float]] = chromium.value(BOXES.format(elements))
    return found


@pytest.mark.parametrize("width", [390, 1280])
def test_words_of_events_and_of_levels_do_not_cover_one_another(chromium: Browser, crowded: Path, width: int) -> None:
    chromium.open(crowded, width)
    for kind in ("marks > span", "plot > .label"):
        for place in range(chromium.value("document.querySelectorAll('figure.chart').length")):
            found = boxes(chromium, f"document.querySelectorAll('figure.chart')[{place}].querySelectorAll('.{kind}')")
            for one, other in itertools.combinations(found, 2):
                across = min(one[2], other[2]) - max(one[0], other[0])
                down = min(one[3], other[3]) - max(one[1], other[1])
                assert across < 1 or down < 4, f"{kind} of chart {place}: {one} {other}"


@pytest.mark.parametrize(("width", "most"), [(700, 0.5), (1280, 0.25)])
def test_a_long_name_leaves_room_for_its_figures(chromium: Browser, crowded: Path, width: int, most: float) -> None:
    chromium.open(crowded, width)
    ((left, _, right, _),) = boxes(chromium, "[document.querySelector('.summary tbody th')]")
    ((start, _, end, _),) = boxes(chromium, "[document.querySelector('.summary').parentElement]")
    assert right - left < most * (end - start)


def test_the_whole_summary_is_seen_on_a_common_screen_and_on_paper(chromium: Browser, crowded: Path) -> None:
    wider = (
        "(() => { const e = document.querySelector('.summary').parentElement; return e.scrollWidth - e.clientWidth })()"
    )
    chromium.open(crowded, 1280)
    assert chromium.value("document.querySelector('.summary').textContent.includes('Verified')")
    assert chromium.value(wider) == 0
    chromium.open(crowded, 718)  # A4 less its margins
    on_paper(chromium)
    assert chromium.value(wider) == 0


def test_on_a_phone_what_is_recommended_comes_first_and_nothing_has_to_be_scrolled_to(
    chromium: Browser, crowded: Path
) -> None:
    chromium.open(crowded, 390)
    assert (
        chromium.value("Array.from(document.querySelectorAll('.summary td'), (e) => e.dataset.label).includes('')")
        is False
    )
    frame = "document.querySelector('.summary').parentElement"
    assert chromium.value(f"{frame}.scrollWidth - {frame}.clientWidth") == 0
    cells = boxes(chromium, "document.querySelectorAll('.summary tbody tr:first-child td')")
    advised = boxes(chromium, "document.querySelectorAll('.summary tbody tr:first-child td[data-label*=recommended]')")
    assert advised
    assert {top for _, top, _, _ in advised} == {min(top for _, top, _, _ in cells)}
    assert all(0 <= left < right <= 390 for left, _, right, _ in cells)
    label = "getComputedStyle(document.querySelector('.summary td'), '::before').content"
    assert chromium.value(label) == '"Outcome"'


def test_what_is_cut_off_casts_a_shadow(chromium: Browser, crowded: Path, tmp_path: Path) -> None:
    """The last column of points is darker than the card, until the table is scrolled to its end."""
    chromium.open(crowded, 390)
    edge = "Array.from(document.querySelectorAll('.tabled .scrolls')).find((e) => e.scrollWidth > e.clientWidth + 50)"
    shades = []
    for far in (0, 9999):
        chromium.value(f"{edge}.scrollLeft = {far}")
        ((_, top, right, bottom),) = boxes(chromium, f"[{edge}]")
        clip = {"x": right - 2, "y": (top + bottom) / 2, "width": 1, "height": 1, "scale": 1}
        shot = chromium.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"]
        shades.append(shot)
    assert shades[0] != shades[1]


def test_host_and_options_stand_beside_one_another_each_below_its_caption(chromium: Browser, page: Path) -> None:
    chromium.open(page, 1280)
    host, options = boxes(chromium, "document.querySelectorAll('#about .caption')")
    of_host, of_options = boxes(chromium, "document.querySelectorAll('#about table')")
    assert host[1] == options[1]
    assert (of_host[0], of_options[0]) == (host[0], options[0])
    assert host[3] <= of_host[1]
    assert of_host[2] < of_options[0]
