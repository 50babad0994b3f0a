"""The sampler as the rest of cpost knows it: a handle on the process that samples (see sampling.py)."""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable

from cpost.errors import HostError
from cpost.measure.cgroup import Group, Hierarchies
from cpost.measure.life import Life
from cpost.measure.sampling import Attach, Command, Finish, Finished, Message, Ready, Seen, Watch
from cpost.model import Sample, Totals

_READY_S = 30.0
_KILL_S = 5.0
_GONE = "the sampling process has ended"


class SamplingProcess:
    """The process that samples, one for all steps of a run; a context manager.

    It takes some 100 ms to come up, so it is started before there is something to sample.
    """

    def __init__(self) -> None:
        self._sampler: Sampler | None = None
        self._start()

    def __enter__(self) -> SamplingProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from cpost.measure.sampling import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # the terminal's signals are for cpost and the operator
            cwd="/",  # modules are looked for in the current folder first, which may be anybody's
        )
        self._ready = threading.Event()
        self._listener = threading.Thread(target=self._listen, name="cpost-samples", daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def serve(self, sampler: Sampler) -> None:
        """Pass on what comes from the process to this sampler from now on; start it again if it has ended."""
        self._sampler = None
        if self._process.poll() is not None:
            self.close()
            self._start()
        self._sampler = sampler
        if not self._ready.wait(_READY_S) or self._process.poll() is not None:
            raise HostError(f"{_GONE} before it began", "start cpost again; if it stays so, please report it")

    def send(self, command: Command) -> None:
        """Send a command; one that has ended tells its sampler."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(pickle.dumps(command))
            self._process.stdin.flush()
        except OSError:
            pass  # the listener sees its end

    def _listen(self) -> None:
        """In a thread: take messages until the process ends."""
        assert self._process.stdout is not None
        while True:
            try:
                message: Message = pickle.load(self._process.stdout)  # noqa: S301 - from our own child
            except (EOFError, pickle.UnpicklingError, OSError, ValueError):
                break
            if isinstance(message, Ready):
                self._ready.set()
            elif self._sampler is not None:
                self._sampler.take(message)
        self._ready.set()
        if self._sampler is not None:
            self._sampler.lost()

    def abandon(self) -> None:
        """Kill the process, so that no late answer of it is taken for another step's; the next step gets a new one."""
        self._sampler = None
        self._process.kill()
        self._process.wait(_KILL_S)

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join(1)
        if self._process.stdout is not None:
            self._process.stdout.close()


class Sampler:
    """Samples one step from its first instruction to its end.

    Args:
        process: where the sampling is done.
        hierarchies: where the counters are.
        parent: the group that cpost made for the step; None where it may not make groups.
        period_ns: time from one sample to the next.
        emit: gets batches of samples, from another thread; counters count from the baseline.

    Attributes:
        life: what is known of the step until now.
        exact: whether totals outlive the container: they are read from a group of cpost's own.
        error: why sampling broke off; empty where it did not.
        watching: set once the step's first instruction would be seen.
        started: set once the step has begun.
    """

    def __init__(
        self,
        process: SamplingProcess,
        hierarchies: Hierarchies,
        parent: Group | None,
        period_ns: int,
        emit: Callable[[list[Sample]], None],
    ) -> None:
        self._process = process
        self._watch = Watch(hierarchies, parent, period_ns)
        self._emit = emit
        self._totals: Totals | None = None
        self._begun = False
        self._finished = threading.Event()
        self.life = Life()
        self.exact = parent is not None
        self.error = ""
        self.watching = threading.Event()
        self.started = threading.Event()

    def start(self) -> None:
        """Begin to watch for the step's first instruction; call before the container starts.

        Raises:
            HostError: there is no sampling process.
        """
        self._process.serve(self)
        self._begun = True
        self._process.send(self._watch)

    def attach(self, pid: int) -> None:
        """Tell the main process's id as the engine knows it, for where there is no parent group to watch."""
        self._process.send(Attach(pid))

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop sampling if it still goes on, and wait for the totals."""
        if not self._begun:
            return
        self._begun = False
        self._process.send(Finish())
        if not self._finished.wait(timeout_s):
            self.error = self.error or "the sampling process does not answer"
            self._process.abandon()

    def totals(self) -> Totals | None:
        """The totals of the step's life; call after `stop`. None where no counter was ever read."""
        return self._totals

    # ------------------------------------------------------------ called by the process's listener

    def take(self, message: Message) -> None:
        """Take a message of the sampling process."""
        if isinstance(message, list):
            self._emit(message)
        elif isinstance(message, Seen | Finished):
            self.life, self.exact = message.life, message.exact
            self.watching.set()
            if self.life.started_ns is not None:
                self.started.set()
            if isinstance(message, Finished):
                self._totals, self.error = message.totals, message.error
                self._finished.set()

    def lost(self) -> None:
        """Take notice of the sampling process's end."""
        if not self._finished.is_set():
            self.error = _GONE
            self.watching.set()
            self._finished.set()
