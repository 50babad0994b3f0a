"""A place where marked integration tests run once more, in a pytest of their own, each told of in the outer one."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]
_PYTEST = (sys.executable, "-m", "pytest")
_ENDS_WITH_US = ("setpriv", "--pdeathsig", "TERM")
_END_S = 60
_TAIL = 4000


class Place:
    """Runs the integration tests with one marker under a command that leads elsewhere.

    Args:
        marker: which tests run there.
        runner: the command; it runs the command that follows it, and passes on its exit code. "{folder}" in it is a
            folder where the inner pytest can write and this process can read.
    """

    def __init__(self, marker: str, *runner: str) -> None:
        self.marker = marker
        self._runner = runner
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._told: dict[str, str] | None = None

    def tests(self) -> list[str]:
        """Ids of the tests that run there: file and name."""
        listing = (*_PYTEST, "--collect-only", "-q", "-m", self.marker, "tests/integration")
        done = subprocess.run(listing, cwd=TREE, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        found = [line.removeprefix("tests/integration/") for line in done.stdout.splitlines() if "::" in line]
        assert found, f"no test has the marker {self.marker}"
        return found

    def start(self, tests: list[str]) -> None:
        """Begin to run these tests."""
        self._folder = Path(tempfile.mkdtemp(prefix="elsewhere-"))
        command = [*_ENDS_WITH_US, *(part.format(folder=self._folder) for part in self._runner)]
        command += [
            *_PYTEST,
            "-v",
            "--timeout=600",
            f"--junitxml={self._report}",
            *(f"tests/integration/{test}" for test in tests),
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=TREE, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def check(self, test: str) -> None:
        """Wait until all are through; fail with the inner test's words unless it passed."""
        if self._told is None:
            self._told = self._outcomes()
        path, _, name = test.partition("::")
        key = f"tests.integration.{path.removesuffix('.py')} {name}"
        if key not in self._told:
            pytest.fail(f"was not run to its end\n{self._log.read_text(errors='replace')[-_TAIL:]}", pytrace=False)
        if self._told[key].startswith("skipped"):
            pytest.skip(self._told[key])
        if self._told[key]:
            pytest.fail(self._told[key], pytrace=False)

    def end(self) -> None:
        """Stop what still runs and remove the folder."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def started(self) -> bool:
        return self._process is not None

    @property
    def _report(self) -> Path:
        assert self._folder is not None
        return self._folder / "report.xml"

    @property
    def _log(self) -> Path:
        assert self._folder is not None
        return self._folder / "log"

    def _outcomes(self) -> dict[str, str]:
        """Class and name of each test with what went wrong; nothing where it passed."""
        assert self._process is not None
        self._process.wait()
        if not self._report.exists():
            return {}
        cases = ET.parse(self._report).iter("testcase")
        return {f"{case.get('classname')} {case.get('name')}": _trouble(case) for case in cases}


def _trouble(case: ET.Element) -> str:
    told = [f"{part.tag}: {part.get('message')}\n{part.text or ''}" for part in case if part.get("message") is not None]
    return "\n".join(told)
