"""What the whole process reads and writes: closed, full, without a reader, in an encoding that lacks characters."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cpost.errors import StoreError
from cpost.streams import Streams
from cpost.terminal import visible

CPOST = Path(sys.executable).with_name("cpost")
PIPELINE = """\
api-version: 0.4.0
name: demo
operators:
- name: first
  container: {image: img, tag: "1", command: [sh, -c, "echo \u20ac"]}
  input: [{path: /in}]
"""


@pytest.fixture
def definition(tmp_path: Path) -> Path:
    (tmp_path / "p.yaml").write_text(PIPELINE, encoding="utf-8")
    return tmp_path / "p.yaml"


def shell(words: str, folder: Path, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run cpost with redirections, without an engine."""
    variables = {**os.environ, "DOCKER_HOST": f"unix://{folder}/none", **env}
    command = f"set -o pipefail; {CPOST} {words}"
    return subprocess.run(["bash", "-c", command], cwd=folder, env=variables, capture_output=True, check=False)


@pytest.mark.parametrize("verb", ["--help", "--version", "check --help", "plan p.yaml", "plan --json p.yaml", "doctor"])
def test_output_that_finds_no_room_is_an_error_of_every_verb(verb: str, definition: Path) -> None:
    done = shell(f"{verb} >/dev/full", definition.parent)
    assert done.returncode == 5
    said = done.stderr.decode().splitlines()
    assert said[-2] == "cpost: error: the output could not be written: No space left on device"
    assert said[-1].startswith("  what to do: free space where it goes")


def test_lost_output_is_said_and_no_more_where_a_verb_has_something_to_tell(definition: Path) -> None:
    done = shell("exec --timeout 10s -- sh -c 'exit 7' 3>&2 2>/dev/full", definition.parent)
    assert done.returncode == 7
    done = shell(f"check {definition.parent}/m >/dev/full", definition.parent)
    assert done.returncode == 2


@pytest.mark.parametrize("name", ["x" * 300, f"{'x' * 300}/p.yaml"])
def test_a_name_that_no_file_can_have_is_a_wrong_call(name: str, definition: Path) -> None:
    done = shell(f"{name}; {CPOST} {name} in; {CPOST} run p.yaml {name}", definition.parent)
    assert done.returncode in (2, 5)
    assert b"Traceback" not in done.stderr
    assert done.stderr.count(b"  what to do: ") == 3


@pytest.mark.parametrize("verb", ["--version", "plan p.yaml"])
def test_a_closed_stdout_is_an_error(verb: str, definition: Path) -> None:
    done = shell(f"{verb} >&-", definition.parent)
    assert done.returncode == 5
    assert done.stderr.decode().splitlines()[-2:] == [
        "cpost: error: the output could not be written: stdout is not open for writing",
        "  what to do: open it, or send it to /dev/null",
    ]


def test_who_closes_stderr_wants_to_read_nothing_there(definition: Path) -> None:
    done = shell("plan p.yaml 2>&-", definition.parent)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"first" in done.stdout
    assert shell("plan none.yaml 2>&-", definition.parent).returncode == 2
    assert shell("plan none.yaml 2>/dev/full", definition.parent).returncode == 2


def test_nothing_that_is_opened_later_gets_what_was_meant_for_a_closed_stream(definition: Path) -> None:
    """The lowest free descriptor is what the next file gets."""
    look = (
        "import os, sys\nfrom cpost import streams\nstreams.prepare()\n"
        "made = os.open('made', os.O_CREAT | os.O_WRONLY)\nprint('for nobody', flush=True)\n"
        "os.write(made, b'%d' % made)\nassert sys.stdin.read() == ''\n"
    )
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, look], cwd=definition.parent, check=False
    )
    assert done.returncode == 0
    assert (definition.parent / "made").read_text() == "3"


def test_a_reader_who_has_gone_has_seen_enough(definition: Path) -> None:
    done = shell("plan p.yaml | true; exit ${PIPESTATUS[0]}", definition.parent)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "env", [{"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_what_an_encoding_lacks_is_an_escape(env: dict[str, str], definition: Path) -> None:
    done = shell("plan p.yaml", definition.parent, **env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"echo \u20ac" in done.stdout


def test_a_byte_that_is_no_text_is_shown_as_that_byte(definition: Path) -> None:
    done = shell("plan $'e\\xff.yaml' --models_dir=$'e\\xff'", definition.parent, PYTHONUTF8="1")
    assert done.returncode == 2
    assert b"\xff" not in done.stderr
    assert visible("e\udcff\n") == r"e\xff\n"
    with (definition.parent / "out").open("w", encoding="utf-8") as out:
        stream = Streams().add(out, ())
        stream.write("e\udcff")
        stream.flush()
    assert (definition.parent / "out").read_bytes() == rb"e\xff"


def test_from_the_first_loss_on_nothing_is_passed_on() -> None:
    """What is torn is not continued behind the tear."""
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w") as pipe, Path("/dev/full").open("w") as full:
        streams = Streams()
        stream = streams.add(pipe, ())
        stream.write("one\n")
        stream.flush()
        own = os.dup(write_end)
        os.dup2(full.fileno(), write_end)
        stream.write("two\n")
        stream.flush()
        os.dup2(own, write_end)
        os.close(own)
        stream.write("three\n")
        stream.flush()
    with pytest.raises(StoreError, match="could not be written: No space left on device"):
        streams.require()
    with os.fdopen(read_end) as end:
        assert end.read() == "one\n"


@pytest.mark.parametrize(("forgiven", "lost"), [((errno.EPIPE,), False), ((), True)])
def test_who_has_gone_may_be_forgiven(forgiven: tuple[int, ...], lost: bool) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as pipe:
        streams = Streams()
        stream = streams.add(pipe, forgiven)
        stream.write("one\n")
        stream.flush()
        assert not stream.closed
        if lost:
            with pytest.raises(StoreError, match="Broken pipe"):
                streams.require()
        else:
            streams.require()


def test_a_pipe_that_does_not_wait_is_waited_for() -> None:
    """Who shares it may have set it so."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    taken: list[bytes] = []

    def take() -> None:
        with os.fdopen(read_end, "rb") as end:
            taken.append(end.read())

    reader = threading.Thread(target=take)
    with os.fdopen(write_end, "w") as pipe:
        streams = Streams()
        stream = streams.add(pipe, ())
        reader.start()
        stream.write("x" * 10**6)
        stream.flush()
    reader.join()
    assert len(taken[0]) == 10**6
    streams.require()
