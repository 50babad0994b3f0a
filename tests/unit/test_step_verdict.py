"""How a step ended, from all that is known, the strongest word first."""

from __future__ import annotations

import pytest
from builders import step, totals

from cpost.measure.engine import ContainerState
from cpost.measure.outcome import verdict
from cpost.model import Outcome, Totals

LIMIT = 512 * 10**6
STEP = step(memory_limit_bytes=LIMIT, timeout_ns=90 * 10**9)


def state(*, oom: bool = False) -> ContainerState:
    return ContainerState("exited", 0, 0, oom)


def ended(
    code: int,
    *,
    flag: bool | None = False,
    kills: int | None = 0,
    peak: int | None = 1,
    stopped_as: Outcome | None = None,
    read: bool = True,
) -> tuple[Outcome, str]:
    seen: Totals | None = totals(oom_kills=kills, memory_peak_bytes=peak) if read else None
    return verdict(STEP, code, None if flag is None else state(oom=flag), seen, stopped_as=stopped_as)


@pytest.mark.parametrize("code", [0, 1, 137, 143])
@pytest.mark.parametrize("kills", [0, 1])
def test_a_stop_on_request_is_said_before_anything_else(code: int, kills: int) -> None:
    made = ended(code, flag=True, kills=kills, stopped_as=Outcome.INTERRUPTED)
    assert made == (Outcome.INTERRUPTED, "stopped on request")


def test_the_end_of_its_server_is_no_request() -> None:
    assert ended(143, stopped_as=Outcome.FAILED) == (Outcome.FAILED, "stopped, as its server was gone")


@pytest.mark.parametrize("code", [0, 1, 137, 143])
def test_a_time_out_comes_next(code: int) -> None:
    made = ended(code, flag=True, kills=1, peak=LIMIT, stopped_as=Outcome.TIMED_OUT)
    assert made == (Outcome.TIMED_OUT, "stopped after the time-out of 1 min 30 s")


@pytest.mark.parametrize(
    ("code", "flag", "kills", "peak"),
    [
        (137, True, 0, 1),
        (137, False, 1, 1),
        (137, None, None, LIMIT + 4096),
        (1, True, 0, 1),  # the parent noticed that its child was killed
        (1, False, 3, None),
        (139, False, 1, 1),
    ],
)
def test_any_one_evidence_of_a_memory_kill_is_enough(
    code: int, flag: bool | None, kills: int | None, peak: int | None
) -> None:
    assert ended(code, flag=flag, kills=kills, peak=peak) == (
        Outcome.OOM_KILLED,
        "killed for memory at the limit of 512.000 MB",
    )


@pytest.mark.parametrize(("flag", "kills", "peak"), [(False, 0, LIMIT - 1), (None, None, None), (False, None, 0)])
def test_a_plain_kill_is_not_one_for_memory(flag: bool | None, kills: int | None, peak: int | None) -> None:
    assert ended(137, flag=flag, kills=kills, peak=peak) == (Outcome.FAILED, "ended by signal 9 (exit code 137)")


@pytest.mark.parametrize("code", [1, 134, 143])
def test_a_peak_at_the_limit_alone_is_page_cache_unless_it_was_a_kill(code: int) -> None:
    assert ended(code, peak=LIMIT)[0] is Outcome.FAILED


def test_a_plain_kill_of_an_operator_whose_cache_fills_the_limit() -> None:
    """The kernel's count was read to the end, so the peak at the limit says nothing more."""
    assert ended(137, flag=False, kills=0, peak=LIMIT) == (Outcome.FAILED, "ended by signal 9 (exit code 137)")


def test_a_count_that_was_not_read_to_the_end_does_not_speak_against_a_kill_at_the_limit() -> None:
    seen = totals(oom_kills=0, memory_peak_bytes=LIMIT, source="last sample")
    assert verdict(STEP, 137, state(), seen, stopped_as=None)[0] is Outcome.OOM_KILLED


def test_where_no_limit_was_set_a_peak_says_nothing() -> None:
    seen = totals(oom_kills=0, memory_peak_bytes=10**12)
    assert verdict(step(), 137, state(), seen, stopped_as=None)[0] is Outcome.FAILED


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (1, "exit code 1"),
        (44, "exit code 44"),
        (126, "the command is not executable"),
        (127, "the command was not found"),
        (128, "exit code 128"),
        (130, "ended by signal 2 (exit code 130)"),
        (139, "ended by signal 11 (exit code 139)"),
        (143, "ended by signal 15 (exit code 143)"),
        (192, "ended by signal 64 (exit code 192)"),
        (193, "exit code 193"),  # there is no signal 65
        (255, "exit code 255"),  # exit(-1)
    ],
)
def test_signals_and_codes_are_told_apart(code: int, cause: str) -> None:
    assert ended(code) == (Outcome.FAILED, cause)


@pytest.mark.parametrize(("flag", "kills"), [(True, 0), (False, 1), (True, 2)])
def test_a_child_killed_for_memory_in_an_operator_that_ended_well(flag: bool, kills: int) -> None:
    outcome, cause = ended(0, flag=flag, kills=kills)
    assert outcome is Outcome.COMPLETED
    assert "killed for memory" in cause


@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize("flag", [False, None])
@pytest.mark.parametrize("peak", [None, 5, LIMIT])
def test_a_plain_success_has_no_cause(read: bool, flag: bool | None, peak: int | None) -> None:
    assert ended(0, read=read, flag=flag, peak=peak) == (Outcome.COMPLETED, "")


@pytest.mark.parametrize("code", [0, 3, 137, 143])
def test_a_service_that_was_stopped_at_its_time_has_done_its_work(code: int) -> None:
    assert ended(code, stopped_as=Outcome.COMPLETED) == (Outcome.COMPLETED, "")
    assert ended(code, kills=1, stopped_as=Outcome.COMPLETED) == (
        Outcome.COMPLETED,
        "a process was killed for memory, although the operator ended well",
    )
