"""The run folder: records read back as they were, results are whole or not there, nothing is overwritten unasked."""

from __future__ import annotations

import errno
import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import record, result, run, server_record, totals, usage
from hypothesis import given, settings
from hypothesis import strategies as st

from cpost.errors import StoreError, UsageError
from cpost.model import (
    Doubt,
    Enforced,
    OperatorRecord,
    Options,
    Outcome,
    Repeat,
    RepeatKind,
    Resources,
    Run,
    Spread,
    Spreads,
    Statistic,
    Trial,
    Usage,
    Verdict,
    Verification,
)
from cpost.store import (
    REPORT_FILE,
    RUN_FILE,
    SCHEMA_VERSION,
    SEARCH,
    SUMMARY_FILE,
    VERIFY,
    RunFolder,
    SeriesFile,
    load_run,
)

st.register_type_strategy(float, st.floats(-1e39, 1e39))  # records hold numbers
FIGURE = st.none() | st.floats(0, 1e15)
STATISTICS = st.builds(Statistic, FIGURE, FIGURE, FIGURE, FIGURE, FIGURE)
USAGES = st.builds(Usage, cpu_pct=STATISTICS, memory_bytes=STATISTICS)
OVER = st.builds(Spread, *[st.floats(0, 1e15)] * 3, st.integers(2, 1000))
SPREADS = st.builds(Spreads, **dict.fromkeys(Spreads.__dataclass_fields__, st.none() | OVER))
RECORDS = st.builds(
    OperatorRecord,
    usage=st.none() | USAGES,
    repeats=st.lists(st.builds(Repeat, usage=st.none() | USAGES), max_size=2).map(tuple),
    spreads=st.none() | SPREADS,
    doubts=st.lists(st.builds(Doubt), max_size=2).map(tuple),
)
RUNS = st.builds(
    Run,
    schema_version=st.just(SCHEMA_VERSION),
    options=st.builds(Options, max_slowdown=st.floats(0, 10)),
    operators=st.lists(RECORDS, max_size=2).map(tuple),
)

OPERATORS = ("a", "seg", "old")


def saved(folder: Path, kept: Run, summary: str = "operator\n") -> RunFolder:
    made = RunFolder(folder, OPERATORS, overwrite=True)
    made.prepare()
    made.save(kept, summary)
    made.close()
    return made


def refuse(*_: Any, **__: Any) -> Any:
    raise OSError(errno.EIO, "Input/output error")


# ---------------------------------------------------------------- records


@settings(max_examples=40)
@given(kept=RUNS)
def test_a_record_reads_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, kept: Run) -> None:
    folder = tmp_path_factory.mktemp("run")
    saved(folder, kept)
    assert load_run(folder) == load_run(folder / RUN_FILE) == kept


def test_a_record_from_before_there_were_repeats_is_read(tmp_path: Path) -> None:
    saved(tmp_path, run(record()))
    data = json.loads((tmp_path / RUN_FILE).read_text())
    for name in ("repeats", "spreads", "doubts"):
        del data["operators"][0][name]
    for name in ("repeat", "warmup"):
        del data["options"][name]
    (tmp_path / RUN_FILE).write_text(json.dumps(data))
    assert load_run(tmp_path) == run(record())


def test_a_record_is_json_that_others_can_read(tmp_path: Path) -> None:
    killed = record(result=result(Outcome.OOM_KILLED, exit_code=137, totals=totals(5, oom_kills=1)))
    saved(tmp_path, run(killed, pipeline_name="Größe"))
    data = json.loads((tmp_path / RUN_FILE).read_text("utf-8"))
    assert data["pipeline_name"] == "Größe"
    assert data["schema_version"] == SCHEMA_VERSION
    assert data["operators"][0]["result"]["outcome"] == "oom_killed"
    assert data["operators"][0]["result"]["totals"]["oom_kills"] == 1
    assert data["operators"][0]["recommendation"]["status"] == "ok"


def test_a_record_from_before_gpus_were_read_is_read(tmp_path: Path) -> None:
    kept = run(record())
    saved(tmp_path, kept)
    data = json.loads((tmp_path / RUN_FILE).read_text("utf-8"))
    del data["host"]["gpus"], data["host"]["gpu_driver"], data["options"]["no_gpu"]
    del data["operators"][0]["usage"]["gpus"]
    (tmp_path / RUN_FILE).write_text(json.dumps(data))
    assert load_run(tmp_path) == kept


def test_a_folder_s_name_that_is_no_utf_8_is_kept(tmp_path: Path) -> None:
    """What the shell passed, the file system's way (PEP 383)."""
    kept = run()
    kept = replace(kept, options=replace(kept.options, input_dir=os.fsdecode(b"/data/\xff")))
    saved(tmp_path, kept)
    assert load_run(tmp_path) == kept


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 99, 0])
def test_another_format_is_refused_with_a_remedy(tmp_path: Path, version: object) -> None:
    saved(tmp_path, run())
    data = json.loads((tmp_path / RUN_FILE).read_text())
    (tmp_path / RUN_FILE).write_text(json.dumps({**data, "schema_version": version}))
    with pytest.raises(UsageError, match="record format") as caught:
        load_run(tmp_path)
    assert caught.value.hint == "update cpost"


@pytest.mark.parametrize("data", [{"name": "x"}, {"schema_version": None}, {"schema_version": "1"}, [1], True])
def test_what_never_was_a_record_needs_no_newer_cpost(tmp_path: Path, data: object) -> None:
    (tmp_path / RUN_FILE).write_text(json.dumps(data))
    with pytest.raises(UsageError, match="it has no schema_version") as caught:
        load_run(tmp_path)
    assert caught.value.hint == "name a folder that cpost wrote (--metrics_dir)"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"null",
        b"\xff\xfe",
        b"PK\x03\x04",
        b'{"schema_version": 1}',
        b'{"schema_version": 1, "operators": 5}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_record_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / RUN_FILE).write_bytes(text)
    with pytest.raises(UsageError) as caught:
        load_run(tmp_path)
    assert str(tmp_path) in caught.value.message


TRIAL = Trial((Enforced("a", Resources(1000)),), Verdict.HOLDS, "", result())
WHOLE = run(record(verification=Verification(Verdict.HOLDS, 1, 0.1, (TRIAL,))))


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("operators.0.usage.window_ns", "x", "$.operators[0].usage.window_ns"),
        ("operators.0.usage.window_ns", 1.5, "$.operators[0].usage.window_ns"),
        ("operators.0.usage.window_ns", True, "$.operators[0].usage.window_ns"),
        ("operators.0.usage.cpu_pct.p95", "nan", "$.operators[0].usage.cpu_pct.p95"),
        ("operators.0.usage.cpu_pct.p95", math.nan, "NaN is not a number that a record may have"),
        ("operators.0.usage.cpu_pct.p95", -math.inf, "-Infinity is not a number that"),
        ("operators.0.usage.need_peak_bytes", 10**400, "a number of 401 digits"),
        ("operators.0.image", 5, "$.operators[0].image"),
        ("operators.0.result.outcome", "splendid", "$.operators[0].result.outcome"),
        ("operators.0.verification.trials.0.enforced", [], "$.operators[0].verification.trials[0]"),
        ("complete", "false", "expected bool @ $.complete"),
        ("complete", 1, "expected bool @ $.complete"),
    ],
)
def test_a_damaged_value_is_refused_at_its_place(tmp_path: Path, place: str, value: object, said: str) -> None:
    saved(tmp_path, WHOLE)
    assert load_run(tmp_path) == WHOLE
    data = json.loads((tmp_path / RUN_FILE).read_text())
    *path, last = place.split(".")
    found = data
    for name in path:
        found = found[int(name)] if name.isdigit() else found[name]
    found[last] = value
    (tmp_path / RUN_FILE).write_text(json.dumps(data))
    with pytest.raises(UsageError, match=re.escape(said)):
        load_run(tmp_path)


def test_a_number_that_no_float_can_hold_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, run(record(usage=usage(12345.5))))
    text = (tmp_path / RUN_FILE).read_text()
    assert "12345.5" in text
    (tmp_path / RUN_FILE).write_text(text.replace("12345.5", "1e999"))
    with pytest.raises(UsageError, match="1e999 is not a number"):
        load_run(tmp_path)


def test_of_several_faults_the_first_is_named(tmp_path: Path) -> None:
    saved(tmp_path, run())
    data = json.loads((tmp_path / RUN_FILE).read_text())
    (tmp_path / RUN_FILE).write_text(json.dumps({**data, "complete": 0, "host": 5, "options": 5}))
    with pytest.raises(UsageError, match=r"@ \$\.\w+, and [12] more"):
        load_run(tmp_path)


def test_a_record_from_before_limits_were_kept_is_read(tmp_path: Path) -> None:
    kept = run(record(servers=(server_record(),)))
    saved(tmp_path, kept)
    data = json.loads((tmp_path / RUN_FILE).read_text())
    del data["operators"][0]["declared_limits"], data["operators"][0]["servers"][0]["declared_limits"]
    (tmp_path / RUN_FILE).write_text(json.dumps(data))
    assert load_run(tmp_path) == kept


@pytest.mark.parametrize("damage", [("outcome", "splendid"), ("exit_code", "many"), ("log_tail", 7)])
def test_a_record_with_a_field_of_another_kind_is_refused(tmp_path: Path, damage: tuple[str, object]) -> None:
    saved(tmp_path, run(record()))
    data = json.loads((tmp_path / RUN_FILE).read_text())
    data["operators"][0]["result"][damage[0]] = damage[1]
    (tmp_path / RUN_FILE).write_text(json.dumps(data))
    with pytest.raises(UsageError, match="not a run's record"):
        load_run(tmp_path)


@pytest.mark.parametrize("made", [False, True])
def test_a_missing_record_is_refused(tmp_path: Path, made: bool) -> None:
    folder = tmp_path / "metrics"
    if made:
        folder.mkdir()
    with pytest.raises(UsageError, match="metrics: not a run's record") as caught:
        load_run(folder)
    assert caught.value.hint == "name a folder that cpost wrote (--metrics_dir)"


def test_a_record_that_cannot_be_read_is_no_wrong_call(tmp_path: Path) -> None:
    (tmp_path / RUN_FILE).mkdir()
    with pytest.raises(StoreError, match="cannot read"):
        load_run(tmp_path)


# ---------------------------------------------------------------- the folder


@pytest.mark.parametrize(
    "name", [RUN_FILE, SUMMARY_FILE, REPORT_FILE, "a_final_result.csv", "a_repeat12.csv", "seg_warmup1.csv"]
)
def test_an_earlier_result_is_not_overwritten_unasked(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("old")
    with pytest.raises(UsageError, match=name) as caught:
        RunFolder(tmp_path, OPERATORS, overwrite=False)
    assert "--overwrite" in caught.value.hint
    assert (tmp_path / name).read_text() == "old"


def test_asked_to_it_goes_when_the_new_one_comes_and_nothing_else(tmp_path: Path) -> None:
    for name in (
        RUN_FILE,
        SUMMARY_FILE,
        REPORT_FILE,
        "a_final_result.csv",
        "a_repeat7.csv",
        "a_warmup2.csv",
        "notes.txt",
    ):
        (tmp_path / name).write_text("old")
    folder = RunFolder(tmp_path, OPERATORS, overwrite=True)
    assert (tmp_path / RUN_FILE).read_text() == "old"  # the run may still be refused
    folder.prepare()
    folder.close()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_files_of_others_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("mine")
    folder = RunFolder(tmp_path, OPERATORS, overwrite=False)
    folder.prepare()
    folder.save(run(), "s\n")
    folder.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.csv", RUN_FILE, SUMMARY_FILE]


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    saved(tmp_path / "a/b", run())
    assert load_run(tmp_path / "a/b") == run()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        RunFolder(tmp_path / "file", OPERATORS, overwrite=True)
    with pytest.raises(StoreError, match="cannot write"):
        RunFolder(tmp_path / "file/below", OPERATORS, overwrite=True)


@pytest.mark.parametrize("failing", ["os.fsync", "pathlib.Path.replace"])
def test_a_write_that_fails_leaves_the_old_record_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    old = run(pipeline_name="old")
    folder = saved(tmp_path, old, "old\n")
    monkeypatch.setattr(failing, refuse)
    with pytest.raises(StoreError, match="Input/output error"):
        folder.save(run(pipeline_name="new"), "new\n")
    monkeypatch.undo()
    folder.close()
    assert load_run(tmp_path) == old
    assert (tmp_path / SUMMARY_FILE).read_text() == "old\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [RUN_FILE, SUMMARY_FILE]


def test_the_reserve_has_no_name_and_is_given_back_before_the_record_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held() -> int:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return sum(str(link.readlink()).startswith(f"{tmp_path}/") for link in links)

    folder = RunFolder(tmp_path, OPERATORS, overwrite=False)
    folder.prepare()
    assert list(tmp_path.iterdir()) == []
    assert held() == 1
    while_writing: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda _: while_writing.append(held()))
    folder.save(run(), "s\n")
    assert while_writing == [1, 1]  # the file itself
    assert held() == 1
    folder.close()
    assert held() == 0


def test_two_runs_do_not_write_to_one_folder(tmp_path: Path) -> None:
    first = RunFolder(tmp_path, OPERATORS, overwrite=True)
    with pytest.raises(UsageError, match="another cpost is writing"):
        RunFolder(tmp_path, OPERATORS, overwrite=True)
    first.close()
    RunFolder(tmp_path, OPERATORS, overwrite=True).close()


# ---------------------------------------------------------------- series on a full disk


def disk_of(room: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on only so many bytes fit, with a short write first as Linux does it; calling it makes room."""
    real_write, left = os.write, [room]

    def write(descriptor: int, data: bytes) -> int:
        if left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real_write(descriptor, data[: left[0]])
        left[0] -= written
        return written

    monkeypatch.setattr(os, "write", write)
    return lambda: left.append(left.pop() + 10**6)


@pytest.mark.parametrize("room", [0, 1, 9, 10, 11, 29])
def test_a_full_disk_leaves_whole_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    file = SeriesFile(tmp_path / "s.csv", "header\n")
    file.write("row 1 ...\n" * 2)
    disk_of(room, monkeypatch)
    with pytest.raises(StoreError, match="disk full at") as caught:
        file.write("row 2 ...\n" * 3)
    file.close()
    assert str(tmp_path / "s.csv") in caught.value.message
    assert (tmp_path / "s.csv").read_text() == "header\n" + "row 1 ...\n" * 2


def test_once_there_is_room_again_rows_go_on_where_they_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = SeriesFile(tmp_path / "s.csv", "header\n")
    make_room = disk_of(5, monkeypatch)
    with pytest.raises(StoreError):
        file.write("row 1 ...\n")
    make_room()
    file.write("row 2 ...\n")
    file.close()
    assert (tmp_path / "s.csv").read_bytes() == b"header\nrow 2 ...\n"


def test_short_writes_are_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real_write(descriptor, data[:3]))
    file = SeriesFile(tmp_path / "s.csv", "größe\n")
    file.write("1,2\n" * 100)
    file.close()
    assert (tmp_path / "s.csv").read_text("utf-8") == "größe\n" + "1,2\n" * 100


def test_a_link_in_the_place_of_a_series_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "s.csv").symlink_to("kept")
    with pytest.raises(StoreError):
        SeriesFile(tmp_path / "s.csv", "header\n")
    assert (tmp_path / "kept").read_text() == "kept"


def test_a_series_goes_to_its_operator_s_file(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, OPERATORS, overwrite=False)
    folder.open_series("seg", "header\n").close()
    assert folder.series_path("seg") == tmp_path / "seg_final_result.csv"
    assert folder.series_path("seg").read_text() == "header\n"


# ---------------------------------------------------------------- series of several runs


def test_an_earlier_repeat_s_series_makes_room_for_the_next(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, OPERATORS, overwrite=False)
    for kind, number, name in (
        (RepeatKind.WARMUP, 1, "seg_warmup1.csv"),
        (RepeatKind.MEASURED, 1, "seg_repeat1.csv"),
        (RepeatKind.MEASURED, 12, "seg_repeat12.csv"),
    ):
        folder.open_series("seg", f"{name}\n").close()
        assert folder.move_series("seg", kind, number) == tmp_path / name
        assert (tmp_path / name).read_text() == f"{name}\n"
        assert not folder.series_path("seg").exists()


def test_a_series_that_cannot_be_moved_is_said(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, OPERATORS, overwrite=False)
    with pytest.raises(StoreError, match=r"cannot write .*seg_repeat1\.csv"):
        folder.move_series("seg", RepeatKind.MEASURED, 1)


NAMES = st.from_regex(r"\A[a-z0-9_-]{1,3}((_repeat|_warmup)[0-9]{0,2}|_final_result){0,2}\Z")


@given(names=st.lists(NAMES, min_size=2, max_size=2, unique=True), numbers=st.tuples(*[st.integers(1, 12)] * 2))
def test_no_operator_s_name_leads_to_another_one_s_file(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], numbers: tuple[int, int]
) -> None:
    """Operators may be called anything, "a_repeat1" too."""
    folder = RunFolder(tmp_path_factory.mktemp("run"), names, overwrite=False)
    written = []
    for name, number in zip(names, numbers, strict=True):
        for kind in RepeatKind:
            folder.open_series(name, "").close()
            written.append(folder.move_series(name, kind, number).name)
        written.append(folder.series_path(name).name)
        folder.open_series(name, "").close()
    assert len({*written, RUN_FILE, SUMMARY_FILE}) == len(written) + 2
    assert {path.name for path in folder._results()} == set(written)
    folder.close()


def test_a_folder_made_for_results_that_never_came_goes(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a/b/c", OPERATORS, overwrite=False)
    folder.prepare()
    folder.close()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    RunFolder(tmp_path / "mine", OPERATORS, overwrite=False).close()
    assert (tmp_path / "mine").is_dir()


def test_a_folder_that_is_not_there_is_told_apart_from_one_without_a_record(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"not a run's record: run\.json is not there"):
        load_run(tmp_path)
    with pytest.raises(UsageError, match="not a run's record: there is no such folder"):
        load_run(tmp_path / "none")


@pytest.mark.parametrize(
    "name", ["a_repeat.csv", "a_repeat0.csv", "a_repeat01.csv", "b_repeat1.csv", "a_repeat1.csv.gz", "a_repeat1_x.csv"]
)
def test_other_names_are_no_results(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    folder = RunFolder(tmp_path, OPERATORS, overwrite=True)
    folder.prepare()
    folder.close()
    assert (tmp_path / name).read_text() == "mine"


# ---------------------------------------------------------------- runs under limits


def trial(folder: RunFolder, number: int, text: str, name: str = "a", word: str = VERIFY) -> None:
    series = folder.open_trial(word, number, name, text)
    assert series.path.name == f"{name}_{word}{number}.csv"
    series.close()


def series_of(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("*.csv*")}


@pytest.fixture
def proven(tmp_path: Path) -> RunFolder:
    """A folder with three runs under limits of an earlier verification, and two new ones that have no verdict yet."""
    first = RunFolder(tmp_path, OPERATORS, overwrite=True)
    for number in (1, 2, 3):
        trial(first, number, f"old {number}")
    trial(first, 1, "searched", word=SEARCH)
    trial(first, 1, "beside", name="a_b")
    first.close()
    again = RunFolder(tmp_path, OPERATORS, overwrite=False, update=True)
    trial(again, 1, "new 1")
    trial(again, 2, "new 2")
    return again


OTHERS = {"a_search1.csv": "searched", "a_b_verify1.csv": "beside"}


def test_series_that_are_told_of_stay_until_there_is_a_new_verdict(proven: RunFolder) -> None:
    old = {f"a_verify{number}.csv": f"old {number}" for number in (1, 2, 3)}
    asides = {"a_verify1.csv.new": "new 1", "a_verify2.csv.new": "new 2"}
    assert series_of(proven.path) == {**old, **asides, **OTHERS}
    proven.settle_trials(VERIFY, ["a"], 0)
    assert series_of(proven.path) == {**old, **OTHERS}


@pytest.mark.parametrize("last", [1, 2])
def test_new_series_take_the_place_of_all_earlier_ones(proven: RunFolder, last: int) -> None:
    proven.settle_trials(VERIFY, ["a"], last)
    new = {f"a_verify{number}.csv": f"new {number}" for number in range(1, last + 1)}
    assert series_of(proven.path) == {**new, **OTHERS}


def test_a_new_result_has_its_series_in_place_at_once(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, OPERATORS, overwrite=True)
    trial(folder, 1, "new 1")
    trial(folder, 2, "ended early")
    folder.settle_trials(VERIFY, ["a"], 1)
    assert series_of(tmp_path) == {"a_verify1.csv": "new 1", "a_verify2.csv": "ended early"}


def test_what_a_killed_verification_left_goes_with_the_next_run(proven: RunFolder) -> None:
    proven.close()
    made = RunFolder(proven.path, (*OPERATORS, "a_b"), overwrite=True)
    made.prepare()
    made.close()
    assert series_of(proven.path) == {}
