"""The guard: a small process that outlives a killed cpost just long enough to remove what its run made.

It sits in a session of its own, ignores the signals of a terminal, and reads a pipe whose other end only cpost holds.
The pipe's end without a word means that cpost died; then it removes the run's containers, network, processes, control
groups and folder. It loads the Docker SDK only then, and only for a run that used an engine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cpost.measure import marked

if TYPE_CHECKING:
    from cpost.measure.engine import Engine

_RELEASED = b"released"
_ENGINE, _NO_ENGINE = "engine", "no-engine"
_RETRY_S = 2.0
_GIVE_UP_S = 300.0
_LATE_CREATE_S = 5.0  # a create that was on its way when cpost died may take effect after the first look


class Guard:
    """Watches over one run from its construction to `release`.

    Args:
        run_id: the run whose things are removed when this process dies.
        owner_name: what the run's control groups and folders are called (see `Owner.name`).
        engine: whether the run makes anything on an engine.
        folders: that the run makes elsewhere than where temporary ones are.
    """

    def __init__(self, run_id: str, owner_name: str, *, engine: bool = True, folders: Iterable[Path] = ()) -> None:
        kind = _ENGINE if engine else _NO_ENGINE
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", __name__, run_id, owner_name, kind, *map(str, folders)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            # Inside another run's command it must not be killed as one of that run's processes.
            env={name: value for name, value in os.environ.items() if name != marked.VARIABLE},
            cwd="/",  # `-m` looks for modules in the current folder first, which may be anybody's
        )

    @property
    def pid(self) -> int:
        """The guard's process id."""
        return self._process.pid

    def release(self) -> None:
        """Send the guard home: the run has cleaned up after itself."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._process.communicate(_RELEASED, timeout=5)

    def hand_over(self) -> None:
        """Let the guard remove what could not be removed here; it goes on trying for some minutes."""
        if self._process.stdin is not None:
            self._process.stdin.close()


def main(arguments: list[str]) -> None:
    """Wait for the pipe's end, then clean up unless released."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    if sys.stdin.buffer.read() == _RELEASED:
        return
    deadline = time.monotonic() + _GIVE_UP_S
    while not _clean(*arguments) and time.monotonic() < deadline:
        time.sleep(_RETRY_S)
    time.sleep(_LATE_CREATE_S)
    _clean(*arguments)


def _clean(run_id: str, owner_name: str, kind: str = _ENGINE, *folders: str) -> bool:
    from cpost.errors import CpostError
    from cpost.measure.cgroup import Hierarchies
    from cpost.measure.cleanup import remove_run
    from cpost.measure.owner import Owner

    named = Owner.from_name(owner_name)
    if named is None:
        return True
    hierarchies = None
    with contextlib.suppress(CpostError):
        hierarchies = Hierarchies.read()
    try:
        return not remove_run(_engine(kind), hierarchies, named[1], run_id, (), tuple(map(Path, folders)))
    except CpostError:
        return False  # the engine does not answer: it may be starting again


def _engine(kind: str) -> Engine | None:
    if kind == _NO_ENGINE:
        return None
    from cpost.measure.engine import Engine

    return Engine()


if __name__ == "__main__":
    main(sys.argv[1:])
    os._exit(0)  # cpost waits for this process: the interpreter's tidying up takes longer than all it has done
