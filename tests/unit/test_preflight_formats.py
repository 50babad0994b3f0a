"""What has to hold before anything starts."""

from __future__ import annotations

import pytest
from builders import operator, pipeline

from cpost.errors import UsageError
from cpost.model import Format, Options
from cpost.preflight import by_format, check_runnable

STAYS = pipeline(operator("web", long_running=True), operator("job"))


@pytest.mark.parametrize(
    ("format_", "policy"), [(Format.CLARA, "peak"), (Format.KUBERNETES, "p95"), (Format.ARGO, "p95")]
)
def test_the_format_decides_on_the_policy_unless_the_user_does(format_: Format, policy: str) -> None:
    made = pipeline(operator(), format=format_)
    assert by_format(Options(policy=""), made).policy == policy
    assert by_format(Options(policy="p99"), made).policy == "p99"


def test_what_stays_needs_a_duration() -> None:
    with pytest.raises(UsageError, match="web would run for ever") as caught:
        check_runnable(STAYS, Options())
    assert "--duration" in caught.value.hint
    check_runnable(STAYS, Options(duration_ns=1))
    with pytest.raises(UsageError, match="does not end by itself"):
        check_runnable(pipeline(operator()), Options(duration_ns=1))


def test_what_cannot_run_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="operator a cannot be run here: no"):
        check_runnable(pipeline(operator(unsupported=("no",))), Options())
