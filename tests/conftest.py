"""For all tests: in continuous integration a skip is a failure, so that nothing goes unchecked unnoticed."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

import fake_nvml

Report = pytest.TestReport | pytest.CollectReport
IN_CI = os.environ.get("CI") == "true"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Report, Report]:
    return _forbid_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Report, Report]:
    return _forbid_skip((yield))


def _forbid_skip(report: Report) -> Report:
    if IN_CI and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", f"nothing may be skipped in CI: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in for NVIDIA's library."""
    return fake_nvml.compile_into(tmp_path_factory.mktemp("nvml"))
