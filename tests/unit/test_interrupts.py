"""Signals are noted, announced and seen at safe places; nothing else of the process's handlers changes."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from cpost.errors import Interrupted
from cpost.interrupts import SIGNALS, Interrupts

INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


@pytest.fixture(autouse=True)
def handlers_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    after = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == before


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_announced_at_once(number: int) -> None:
    announced: list[tuple[int, int]] = []
    with Interrupts(lambda *call: announced.append(call)).installed() as interrupts:
        interrupts.check()
        send(number)
        assert announced == [(number, 1)]
        assert (interrupts.signum, interrupts.count) == (number, 1)
        with pytest.raises(Interrupted) as caught:
            interrupts.check()
    assert caught.value.signum == number
    assert caught.value.exit_code == 128 + number


def test_the_first_signal_names_the_end_the_rest_only_count() -> None:
    announced: list[tuple[int, int]] = []
    with Interrupts(lambda *call: announced.append(call)).installed() as interrupts:
        for number in (TERM, INT, INT):
            send(number)
    assert (interrupts.signum, interrupts.count) == (TERM, 3)
    assert announced == [(TERM, 1), (INT, 2), (INT, 3)]


def test_without_a_signal_nothing_is_raised() -> None:
    interrupts = Interrupts()
    interrupts.check()
    with interrupts.breaking():
        pass
    assert (interrupts.signum, interrupts.count) == (None, 0)


def test_a_breaking_stretch_is_broken_off_at_once() -> None:
    reached = []

    def pull(interrupts: Interrupts) -> None:
        with interrupts.breaking():
            reached.append("begin")
            send(INT)
            reached.append("end")

    with Interrupts().installed() as interrupts, pytest.raises(Interrupted):
        pull(interrupts)
    assert reached == ["begin"]


def test_a_breaking_stretch_does_not_begin_after_a_signal() -> None:
    with Interrupts().installed() as interrupts:
        send(INT)
        with pytest.raises(Interrupted), interrupts.breaking():
            pytest.fail("begun")


def test_after_a_breaking_stretch_signals_are_only_noted_again() -> None:
    with Interrupts().installed() as interrupts:
        with interrupts.breaking():
            pass
        send(INT)
        assert interrupts.count == 1


def test_a_breaking_stretch_that_failed_is_over_too() -> None:
    with Interrupts().installed() as interrupts:
        with pytest.raises(ValueError, match="pull"), interrupts.breaking():
            raise ValueError("pull")
        send(INT)
        assert interrupts.count == 1


def test_the_handlers_come_back_after_an_error() -> None:
    with pytest.raises(ValueError, match="x"), Interrupts().installed():
        raise ValueError("x")


def test_what_was_ignored_stays_ignored() -> None:
    """`nohup cpost ...` asks to outlive the terminal."""
    before = signal.signal(HUP, signal.SIG_IGN)
    try:
        with Interrupts().installed() as interrupts:
            send(HUP)
            assert interrupts.signum is None
        assert signal.getsignal(HUP) is signal.SIG_IGN
    finally:
        signal.signal(HUP, before)


def test_a_library_that_takes_the_break_for_a_failure_of_its_own_does_not_hide_it() -> None:
    interrupts = Interrupts()

    def connect() -> None:
        try:
            interrupts.deliver(signal.SIGTERM)
        except Exception as error:
            raise RuntimeError("cannot fetch the version") from error

    with pytest.raises(Interrupted) as caught, interrupts.breaking():
        connect()
    assert caught.value.exit_code == 143


def test_a_library_that_swallows_the_break_does_not_hide_it() -> None:
    interrupts = Interrupts()
    with pytest.raises(Interrupted), interrupts.breaking(), contextlib.suppress(Exception):
        interrupts.deliver(signal.SIGINT)


def test_a_failure_without_a_signal_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError), Interrupts().breaking():
        raise RuntimeError("no engine")
