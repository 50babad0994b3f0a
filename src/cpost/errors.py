"""What can go wrong, each with the exit code that the shell sees.

    CpostError                one line that says what is wrong, one that says what to do
    ├── DefinitionError   2   the pipeline definition; carries every problem found
    ├── UsageError        2   options or folders that do not fit together
    ├── HostError         5   the engine, the kernel's counters, the host
    │   └── EngineError   5   one call to the engine failed; says which
    │       └── EngineLost 5  the engine stopped answering in the middle of something
    ├── StoreError        5   a result could not be written or read
    └── Interrupted  128+n    the user or the system asked cpost to stop (signal n)

A bug is not in this tree: it keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of the command line, as documented in the README."""

    OK = 0
    OPERATOR_FAILED = 1
    USAGE = 2
    GATE_FAILED = 3
    TIMED_OUT = 4
    ENVIRONMENT = 5


class CpostError(Exception):
    """Anything a user or a host can cause.

    Args:
        message: what is wrong, one line.
        hint: what to do about it, one line; may be empty where the message says it all.
    """

    exit_code: int = ExitCode.ENVIRONMENT

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One fault in a definition file; line and column count from 1, 0 where there is no place."""

    file: str
    line: int
    column: int
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.message}"


class DefinitionError(CpostError):
    """The definition cannot be used; `problems` holds every independent fault, in the file's order."""

    exit_code = ExitCode.USAGE

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        super().__init__(f"{first}{more}", first.hint)


class UsageError(CpostError):
    """Options, folders or features that do not fit together."""

    exit_code = ExitCode.USAGE


class HostError(CpostError):
    """The engine, the kernel or the host cannot do what is asked."""


class EngineError(HostError):
    """A call to the engine failed.

    Args:
        message: what is wrong, naming the call.
        hint: what to do.
        status: the engine's HTTP status, None where there was no answer.
        reason: the engine's own words.
    """

    def __init__(self, message: str, hint: str = "", *, status: int | None = None, reason: str = "") -> None:
        super().__init__(message, hint)
        self.status = status
        self.reason = reason


class EngineLost(EngineError):
    """The connection broke or a call ran into its time-out: the engine may be gone."""


class StoreError(CpostError):
    """A result could not be written or read."""


class Interrupted(CpostError):
    """A signal asked cpost to stop; the exit code is the shell's 128 + signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by signal {signum}")
        self.signum = signum
        self.exit_code = 128 + signum
