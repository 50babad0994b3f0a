"""`cpost apply`: a run's record and a file in, a diff or a file out, a line for each operator, the exit code."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from builders import REFUSED, advice, record, result, run, usage

from cpost import amend_session
from cpost.cli import main
from cpost.console import Console
from cpost.errors import StoreError, UsageError
from cpost.model import Run, ServerKind, ServerRecord, Verdict
from cpost.report.difference import unified
from cpost.store import json_text

COMPOSE = """\
services:
  a:
    image: x  # one
    mem_limit: 1g
"""
AFTER = """\
services:
  a:
    image: x  # one
    cpus: "1.00"
    mem_reservation: 245M
    mem_limit: 245M
"""


def server(kind: ServerKind, name: str) -> ServerRecord:
    stated = {"image": "i", "models": (), "declared": advice().requests, "result": result(), "usage": usage()}
    return ServerRecord(name=name, kind=kind, recommendation=advice(2000, 512 * 10**6), **stated)


@pytest.fixture
def place(tmp_path: Path):
    """A folder with a Compose file; writes the record of a run beside it."""

    class Place:
        file = tmp_path / "compose.yaml"
        folder = tmp_path / "metrics"

        def __init__(self) -> None:
            self.folder.mkdir()
            self.file.write_text(COMPOSE)
            self.ran(run(record("a"), complete=True))

        def ran(self, made: Run) -> None:
            (self.folder / "run.json").write_text(json_text(made))

    return Place()


@pytest.fixture
def apply(place, monkeypatch, capfd):
    def call(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cpost", "apply", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capfd.readouterr()

    return call


def test_without_more_it_prints_a_diff_that_patch_takes(place, apply, tmp_path):
    code, out, err = apply(place.folder, place.file)
    assert code == 0
    assert place.file.read_text() == COMPOSE
    assert err == "a: cpus - -> 1.00, mem_reservation - -> 245M, mem_limit 1g -> 245M\n"
    subprocess.run(["patch", "-p0", "-d", "/"], input=out, text=True, check=True, capture_output=True)
    assert place.file.read_text() == AFTER


def test_in_place(place, apply):
    place.file.chmod(0o640)
    os.chown(place.file, 1234, 1234)
    code, out, _ = apply(place.folder, place.file, "--in_place")
    found = place.file.stat()
    assert (code, out, place.file.read_text()) == (0, "", AFTER)
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, 1234, 1234)
    assert sorted(each.name for each in place.file.parent.iterdir()) == ["compose.yaml", "metrics"]
    code, out, err = apply(place.folder, place.file, "--in_place", "--diff")
    assert (code, out, err) == (0, "", "a: unchanged\n")
    assert place.file.stat().st_ino == found.st_ino


def test_in_place_keeps_access_control_lists(place, apply):
    # As the kernel has them: version 2; entries of kind, permissions and id, here one for user 1234.
    entries = [(1, 6, -1), (2, 4, 1234), (4, 4, -1), (0x10, 4, -1), (0x20, 0, -1)]
    listed = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    os.setxattr(place.file, "system.posix_acl_access", listed)
    mode = place.file.stat().st_mode
    assert apply(place.folder, place.file, "--in_place")[0] == 0
    assert os.getxattr(place.file, "system.posix_acl_access") == listed
    assert place.file.stat().st_mode == mode
    assert place.file.read_text() == AFTER


def test_in_place_through_a_symbolic_link(place, apply, tmp_path):
    link = tmp_path / "link.yaml"
    link.symlink_to(place.file.name)
    code, out, _ = apply(place.folder, link, "--in-place", "--diff")
    assert code == 0
    assert "+    cpus:" in out
    assert link.is_symlink()
    assert place.file.read_text() == AFTER


def test_output_is_a_new_file(place, apply, tmp_path):
    code, out, _ = apply(place.folder / "run.json", place.file, "--output", tmp_path / "new.yaml")
    assert (code, out, (tmp_path / "new.yaml").read_text(), place.file.read_text()) == (0, "", AFTER, COMPOSE)
    place.file.chmod(0o600)
    apply(place.folder, place.file, "--output", tmp_path / "secret.yaml")
    assert stat.S_IMODE((tmp_path / "secret.yaml").stat().st_mode) == 0o600
    code, _, err = apply(place.folder, place.file, "--output", place.file)
    assert code == 2
    assert "is there already" in err
    assert place.file.read_text() == COMPOSE


def test_what_is_left_makes_the_exit_code_one(place, apply):
    place.file.write_text(COMPOSE.replace("1g", "${LIMIT}"))
    place.ran(run(record("a"), record("b"), record("c", recommendation=REFUSED), complete=True))
    code, _, err = apply(place.folder, place.file)
    assert code == 1
    assert err.splitlines() == [
        "a: cpus - -> 1.00",
        'a: left: mem_limit is a variable, "${LIMIT}": change it where that gets its value',
        "b: not in the file",
        "c: no recommendation: the operator failed",
    ]


def test_a_refusal_alone_is_no_failure(place, apply):
    place.ran(run(record("a", recommendation=REFUSED), complete=True))
    assert apply(place.folder, place.file)[:2] == (0, "")


def test_what_was_tried_and_did_not_hold(place, apply):
    place.file.write_text(COMPOSE + "  b:\n    mem_limit: 245M\n    mem_reservation: 245M\n    cpus: 1\n")
    broken, slow = (replace(advice(), verified=verdict) for verdict in (Verdict.BROKEN, Verdict.SLOW))
    place.ran(run(record("a", recommendation=broken), record("b", recommendation=slow), complete=True))
    code, out, err = apply(place.folder, place.file)
    assert (code, out) == (1, "")
    assert err.splitlines() == [
        "cpost: warning: b was slower under what is recommended when it was tried",
        "a: left: what is recommended did not hold when it was tried",
        "b: unchanged",
    ]


def test_servers(place, apply):
    place.file.write_text("operators:\n- name: a\n  services:\n  - name: s\n    container: {image: x}\n")
    servers = (server(ServerKind.SERVICE, "s"), server(ServerKind.TRITON, "triton"))
    shared = (server(ServerKind.TRITON, "triton"),)
    place.ran(run(record("a", servers=servers), servers=shared))
    code, out, err = apply(place.folder, place.file)
    assert code == 0
    assert "+    requests:\n+      cpu: 2\n+      memory: 512\n" in out
    assert err.splitlines() == [
        "cpost: warning: the run did not come to its end: operators that it did not run are missing",
        "a: requests.cpu - -> 1, requests.memory - -> 256",
        "a__s: requests.cpu - -> 2, requests.memory - -> 512",
        "a__triton: no place in the file: cpost starts this Triton for models of operators",
        "pipeline__triton: no place in the file: cpost starts this Triton for models of operators",
    ]


def test_what_cannot_be_read_or_used(place, apply, tmp_path):
    code, _, err = apply(tmp_path / "missing", place.file)
    assert (code, "what to do: name a folder that cpost wrote" in err) == (2, True)
    code, _, err = apply(place.folder, tmp_path / "missing")
    assert (code, "does not exist" in err) == (2, True)
    place.file.write_text("a: 1\n")
    code, _, err = apply(place.folder, place.file)
    assert (code, "cpost knows Clara pipelines, Kubernetes" in err) == (2, True)
    code, _, err = apply(place.folder, place.file, "--in_place", "--output", "x")
    assert (code, "exclude each other" in err) == (2, True)


def test_a_file_that_changes_meanwhile_is_not_overwritten(place):
    proposal = amend_session.propose(place.folder, place.file)
    place.file.write_text("other: 1\n")
    with pytest.raises(StoreError, match="was changed"):
        amend_session.write_in_place(proposal)
    assert place.file.read_text() == "other: 1\n"
    assert sorted(each.name for each in place.file.parent.iterdir()) == ["compose.yaml", "metrics"]


def test_hard_links_are_not_parted(place, tmp_path):
    (tmp_path / "other").hardlink_to(place.file)
    with pytest.raises(UsageError, match="2 hard links"):
        amend_session.write_in_place(amend_session.propose(place.folder, place.file))


@pytest.mark.parametrize("full", ["/dev/full", "/proc/new"])
def test_a_copy_that_cannot_be_written(place, full, monkeypatch):
    with pytest.raises((StoreError, UsageError)) as caught:
        amend_session.write_copy(amend_session.propose(place.folder, place.file), Path(full))
    assert "name another file" in caught.value.hint


def test_a_copy_goes_to_stdout_byte_for_byte(place):
    place.file.write_bytes(b"\xef\xbb\xbf" + COMPOSE.replace("# one", "# \u20ac").replace("\n", "\r\n").encode())
    command = [sys.executable, "-m", "cpost", "apply", place.folder, place.file, "--output", "-"]
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, check=True, env=env, cwd=place.folder)
    assert done.stdout == b"\xef\xbb\xbf" + AFTER.replace("# one", "# \u20ac").replace("\n", "\r\n").encode()
    assert [each.name for each in place.folder.iterdir()] == ["run.json"]


def test_a_copy_on_a_terminal_steers_nothing(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    Console().contents("a:\tb\x1b[2J\r\nc\n", b"")
    assert capsys.readouterr().out == "a:\tb\\x1b[2J\nc\n"


def test_one_stdout_is_for_one_text(place, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cpost", "apply", str(place.folder), str(place.file), "--diff", "--output", "-"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "--diff and --output - both print on stdout" in capsys.readouterr().err


def test_nothing_is_left_of_a_write_that_fails(place, monkeypatch):
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match="No space left"):
        amend_session.write_in_place(amend_session.propose(place.folder, place.file))
    assert sorted(each.name for each in place.file.parent.iterdir()) == ["compose.yaml", "metrics"]
    assert place.file.read_text() == COMPOSE


def test_a_terminal_without_the_characters_of_the_file(place):
    place.file.write_text(COMPOSE.replace("# one", "# é"))
    command = [sys.executable, "-m", "cpost", "apply", place.folder, place.file]
    done = subprocess.run(command, capture_output=True, check=True, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert b"     image: x  # \\xe9\n" in done.stdout


def test_the_diff_knows_missing_line_breaks():
    assert unified("a\nb", "a\nc\n", "f") == [
        "--- f\n", "+++ f\n", "@@ -1,2 +1,2 @@\n", " a\n", "-b\n", "\\ No newline at end of file\n", "+c\n",
    ]  # fmt: skip
    assert unified("a\r\n", "b\r\n", "f")[-2:] == ["-a\r\n", "+b\r\n"]
    assert unified("a", "a", "f") == []


def test_colours_and_escapes_are_for_a_terminal_only(monkeypatch, capsys):
    lines = ["--- f\n", "@@ -1 +1 @@\n", "-\x1b[2Ja\tb\r\n", "+c\n", " d\n"]
    Console().difference(lines)
    assert capsys.readouterr().out == "".join(lines)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    Console().difference(lines)
    out = capsys.readouterr().out
    assert "\x1b[31m-\\x1b[2Ja\tb\x1b[0m\n" in out
    assert "\x1b[32m+c\x1b[0m\n" in out
    assert "\x1b[36m@@" in out
    assert "\x1b[1m--- f\x1b[0m\n" in out
