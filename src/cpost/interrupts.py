"""Signals that ask cpost to stop, seen at safe places.

The handler only takes note (and says so at once); the work asks `signum` where it can stop, and `breaking` marks the
stretches that may be broken off anywhere, such as a long pull or a question to the user.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from cpost.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """What signals have come so far.

    Args:
        announce: called in the handler with the signal's number and how many have come.

    Attributes:
        signum: the first signal's number; None = none came.
        count: how many came; from the second on, grace is skipped.
    """

    def __init__(self, announce: Callable[[int, int], None] = lambda _signum, _count: None) -> None:
        self._announce = announce
        self._breaking = False
        self.signum: int | None = None
        self.count = 0

    def deliver(self, signum: int, _frame: FrameType | None = None) -> None:
        """Take note of a signal; raises `Interrupted` inside `breaking`."""
        self.count += 1
        self.signum = self.signum or signum
        self._announce(signum, self.count)
        if self._breaking:
            raise Interrupted(self.signum)

    @contextmanager
    def installed(self) -> Iterator[Interrupts]:
        """Handle the signals within this block; call in the main thread."""
        # Whoever started cpost with nohup wants it to outlive the terminal.
        wanted = [s for s in SIGNALS if s != signal.SIGHUP or signal.getsignal(s) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self.deliver) for number in wanted}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Raise `Interrupted` if a signal has come."""
        if self.signum is not None:
            raise Interrupted(self.signum)

    @contextmanager
    def breaking(self) -> Iterator[None]:
        """Let a signal break off what runs in this block at once.

        Raises:
            Interrupted: a signal came, whatever the libraries in the block made of it on the way.
        """
        self.check()
        self._breaking = True
        try:
            yield
        except Exception as error:
            if self.signum is not None:
                raise Interrupted(self.signum) from error
            raise
        finally:
            self._breaking = False
        self.check()
