"""Who owns what: names and labels read back, and an owner is dead only where that is proven."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpost.measure.owner import LABEL_RUN, Owner, new_run_id

OWNERS = st.builds(
    Owner,
    boot=st.text("0123456789abcdef", min_size=12, max_size=12),
    pid_namespace=st.integers(0, 2**64),
    pid=st.integers(1, 2**22),
    start_ticks=st.integers(0, 2**63),
)
RUN_IDS = st.from_regex(r"\A[0-9]{8}T[0-9]{6}x[0-9a-f]{4}\Z")
LIVING = Owner.current()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends when its input does."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        yield process
        process.kill()


def owner_of(pid: int) -> Owner:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return replace(LIVING, pid=pid, start_ticks=int(stat.rpartition(")")[2].split()[19]))


# ---------------------------------------------------------------- names and labels


@given(OWNERS, RUN_IDS, st.sampled_from(["", "_0", "_12", ".slice", "_0.slice", "_probe"]))
def test_a_name_tells_its_run_and_owner(owner: Owner, run_id: str, more: str) -> None:
    assert Owner.from_name(owner.name(run_id) + more) == (run_id, owner)


@given(OWNERS, RUN_IDS)
def test_labels_tell_their_owner(owner: Owner, run_id: str) -> None:
    labels = owner.labels(run_id)
    assert labels[LABEL_RUN] == run_id
    assert all(isinstance(value, str) for value in labels.values())
    assert Owner.from_labels({**labels, "theirs": "x"}) == owner


@given(OWNERS, st.data())
def test_a_label_that_is_missing_or_odd_makes_them_foreign(owner: Owner, data: st.DataObject) -> None:
    labels = owner.labels("r")
    numbers = [key for key in labels if key not in (LABEL_RUN, "cpost.boot")]
    del labels[data.draw(st.sampled_from(numbers))]
    assert Owner.from_labels(labels) is None
    labels = {**owner.labels("r"), data.draw(st.sampled_from(numbers)): data.draw(st.sampled_from(["", "x", "1.5"]))}
    assert Owner.from_labels(labels) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "cpost",
        "cpost_",
        "cpost_demo",
        "cpost_20260101T000000xab12",
        "xcpost_r_b01n1p1s1",
        "cpost_r_b01n1p1s1x",
        "cpost_r_b01n1p1",
        "cpost_r_bZZn1p1s1",
        "cpost_r_b01n1p-1s1",
        "cpost_r_b01n1p1s1 ",
        "../cpost_r_b01n1p1s1",
    ],
)
def test_foreign_names_have_no_owner(name: str) -> None:
    assert Owner.from_name(name) is None


@given(st.text() | st.from_regex(r"cpost_.*", fullmatch=True))
def test_no_name_whatsoever_breaks_it(name: str) -> None:
    named = Owner.from_name(name)
    assert named is None or isinstance(named[1], Owner)


def test_names_suit_a_slice_where_a_dash_would_be_a_level() -> None:
    assert "-" not in LIVING.name(new_run_id())


def test_run_ids_differ_and_suit_names() -> None:
    ids = {new_run_id() for _ in range(50)}
    assert len(ids) > 45
    assert all(each.isalnum() for each in ids)


# ---------------------------------------------------------------- life and death


def test_this_process_is_alive() -> None:
    assert LIVING.pid == os.getpid()
    assert not LIVING.is_dead()


def test_a_running_child_is_alive_until_it_has_ended(child: subprocess.Popen[bytes]) -> None:
    owner = owner_of(child.pid)
    assert not owner.is_dead()
    child.kill()
    child.wait()
    assert owner.is_dead()


def test_a_zombie_is_dead(child: subprocess.Popen[bytes]) -> None:
    owner = owner_of(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, but nobody has collected it
    assert Path(f"/proc/{child.pid}").exists()
    assert owner.is_dead()


def test_a_reused_number_is_another_process() -> None:
    assert replace(LIVING, start_ticks=LIVING.start_ticks + 1).is_dead()


@pytest.mark.parametrize("elsewhere", [{"boot": "000000000000"}, {"pid_namespace": 1}])
def test_of_another_boot_or_namespace_nothing_is_proven(elsewhere: dict[str, object]) -> None:
    gone = replace(LIVING, pid=2**22 + 1, start_ticks=1)
    assert gone.is_dead()
    assert not replace(gone, **elsewhere).is_dead()  # type: ignore[arg-type]


def test_a_command_s_name_may_hold_anything() -> None:
    comm = Path("/proc/self/comm")
    before = comm.read_text()
    comm.write_text(") Z 1 (x")
    try:
        assert not LIVING.is_dead()
    finally:
        comm.write_text(before.strip())


def test_a_process_that_proc_hides_is_not_called_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(_pid: int) -> int:
        raise PermissionError

    mine = Owner.current()
    monkeypatch.setattr("cpost.measure.owner._start_ticks", hidden)
    assert not mine.is_dead()
