"""Copies of folders as they are, that end with cpost and leave nothing half done."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from cpost.interrupts import Interrupts
from cpost.measure import cleanup, marked

_LOOK_S = 0.1  # a signal is seen within this time
_BLOCK_BYTES = 512  # of `st_blocks`, whatever the file system


class Copier:
    """Copies folders with owners, links and holes.

    Args:
        interrupts: break a copy off.
        name: the run's; whoever cleans up after a killed cpost finds what is still copying by it.
    """

    def __init__(self, interrupts: Interrupts, name: str = "") -> None:
        self._interrupts = interrupts
        self._name = name

    def refusal(self, source: Path, beside: Path) -> str:
        """Why a folder cannot be copied whole, or had better not be; empty = it can.

        Args:
            beside: an existing folder on the disk that takes the copy.

        Raises:
            Interrupted: a signal came.
        """
        try:
            room = shutil.disk_usage(beside).free // 2
            for status in self._within(source):
                if not _keeps_owner(status):
                    return "it holds files of another user"
                room -= status.st_blocks * _BLOCK_BYTES
                if room < 0:
                    return "it would take more than half of the free disk"
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def _within(self, folder: Path) -> Iterator[os.stat_result]:
        yield folder.lstat()
        for parent, folders, files in os.walk(folder, onerror=_fail):
            for name in (*folders, *files):
                self._interrupts.check()
                yield Path(parent, name).lstat()

    def copy(self, source: Path, to: Path) -> str:
        """Copy a folder to a place where nothing is; returns what went wrong, and then nothing is there.

        Raises:
            Interrupted: a signal came.
        """
        self._interrupts.check()
        problem = "it was broken off"
        try:
            problem = self._copied(source, to)
        except OSError as error:
            problem = error.strerror or str(error)
        finally:
            if problem:
                cleanup.remove_tree(to)
        return problem

    def _copied(self, source: Path, to: Path) -> str:
        command = ["cp", "-a", "--", str(source), str(to)]
        environment = {**os.environ, marked.VARIABLE: self._name} if self._name else None
        # The terminal's signals are for cpost: it says what they mean.
        with subprocess.Popen(  # noqa: S603
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,
        ) as copying:
            try:
                said = self._awaited(copying)
            finally:
                copying.kill()
        return "" if copying.returncode == 0 else (said.strip().splitlines() or ["cp failed"])[0]

    def _awaited(self, copying: subprocess.Popen[str]) -> str:
        """What it said, at its end."""
        while True:
            self._interrupts.check()
            try:
                return copying.communicate(timeout=_LOOK_S)[1]
            except subprocess.TimeoutExpired:
                continue


def _fail(error: OSError) -> None:
    raise error


def _keeps_owner(status: os.stat_result) -> bool:
    """Whether a copy of this user's has the same owner and group."""
    if os.geteuid() == 0:
        return True
    return status.st_uid == os.geteuid() and status.st_gid in {os.getegid(), *os.getgroups()}
