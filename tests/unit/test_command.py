"""How a command's end is told from what has come until then."""

from __future__ import annotations

import queue
import resource
import signal
from types import SimpleNamespace
from typing import Any

import pytest
from builders import step

from cpost.interrupts import Interrupts
from cpost.measure import command
from cpost.model import Outcome


@pytest.mark.parametrize("signum", [None, signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_over_before_anybody_looked_for_a_signal_was_interrupted(signum: int | None) -> None:
    """Ctrl-C reaches it and cpost at once, and it may be gone within a millisecond."""
    interrupts, events = Interrupts(), queue.SimpleQueue[Any]()
    if signum is not None:
        interrupts.deliver(signum)
    events.put(command._Ended(0, resource.getrusage(resource.RUSAGE_SELF)))
    bench: Any = SimpleNamespace(interrupts=interrupts, launcher=None)
    watcher: Any = SimpleNamespace(events=events)
    nothing: Any = None
    measurement = command._Measurement(step(), bench, nothing, watcher)
    measurement._until_end()
    assert measurement._stopped_as is (None if signum is None else Outcome.INTERRUPTED)
