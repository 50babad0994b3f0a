"""What operators see: the payload, each other's outputs, their variables; and what becomes of what they leave."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.conftest import Operator, Pipeline
from integration.harness import Cpost, Done, Record

Measure = Callable[..., Done]


def shell(op: Operator, name: str, script: str, **fields: object) -> Record:
    return op(name, "sh", "-ec", script, **fields)


def reads(path: str, source: str | None = None, name: str | None = None) -> dict[str, str]:
    keys = {"path": path, "from": source, "name": name}
    return {key: value for key, value in keys.items() if value is not None}


# ---------------------------------------------------------------- order


def test_operators_without_edges_run_in_the_order_written(measure: Measure, op: Operator) -> None:
    names = ["zeta", "alpha", "mu"]
    done = measure(*(op(name, "true") for name in names)).ended(0)
    assert [each["operator"] for each in done.record["operators"]] == names
    started = [each["result"]["started_at"] for each in done.record["operators"]]
    assert started == sorted(started)


def test_edges_decide_the_order_and_loners_run_too(measure: Measure, op: Operator) -> None:
    last = op("last", "true", input=[reads("/in", "first")])
    first = op("first", "true", output=[{"path": "/out"}])
    done = measure(last, op("loner", "true"), first).ended(0)
    order = [each["operator"] for each in done.record["operators"]]
    assert sorted(order) == ["first", "last", "loner"]
    assert order.index("first") < order.index("last")


# ---------------------------------------------------------------- folders


def test_payload_is_read_only(measure: Measure, op: Operator, payload: Path) -> None:
    script = "cat /input/scan.txt; echo more >>/input/scan.txt"
    done = measure(shell(op, "vandal", script, input=[reads("/input")])).ended(1)
    assert any("Read-only" in line for line in done.operator("vandal")["result"]["log_tail"])
    assert [path.name for path in payload.iterdir()] == ["scan.txt"]
    assert (payload / "scan.txt").read_text() == "a scan\n"


def test_outputs_reach_those_who_read_them(measure: Measure, op: Operator) -> None:
    outputs = [{"path": "/image", "name": "image"}, {"path": "/mask", "name": "mask"}]
    two = shell(op, "two", "echo i >/image/f; echo m >/mask/f", output=outputs)
    one = shell(op, "one", "cp /input/scan.txt /out/", input=[reads("/input")], output=[{"path": "/out"}])
    inputs = [
        reads("/a", "two", "mask"),
        reads("/b", "two", "image"),
        reads("/c", "one"),
        reads("/c-again", "one"),
        reads("/payload"),
    ]
    check = '[ "$(cat /a/f /b/f)" = "m\ni" ]; cmp /c/scan.txt /payload/scan.txt; cmp /c/scan.txt /c-again/scan.txt'
    measure(shell(op, "reader", check, input=inputs), two, one).ended(0)


def test_unnamed_reference_sees_the_folders_of_named_outputs(measure: Measure, op: Operator) -> None:
    writer = shell(op, "writer", "echo x >/out/f", output=[{"path": "/out", "name": "mask"}])
    reader = shell(op, "reader", "cat /in/mask/f", input=[reads("/in", "writer")])
    measure(writer, reader).ended(0)


def test_operator_of_another_user_can_write_its_outputs(measure: Measure, op: Operator, image: str) -> None:
    fields = {"image": image + "-user", "output": [{"path": "/out", "name": "x"}]}
    writer = shell(op, "writer", "[ $(id -u) = 1234 ]; echo x >/out/f", **fields)
    measure(writer, shell(op, "reader", "cat /in/f", input=[reads("/in", "writer", "x")])).ended(0)


def test_operators_do_not_see_more_than_they_ask_for(measure: Measure, op: Operator) -> None:
    writer = shell(op, "writer", "echo x >/out/f", output=[{"path": "/out"}])
    measure(writer, shell(op, "stranger", "! ls /out; ! ls /input")).ended(0)


# ---------------------------------------------------------------- command and variables


def test_command_goes_to_the_entrypoint(measure: Measure, op: Operator, image: str) -> None:
    done = measure(op("a", "burn", "100", "1", image=image + "-entry")).ended(0)
    assert done.operator("a")["result"]["totals"]["cpu_us"] > 90_000


def test_variables_keep_their_text(cpost: Cpost, pipeline: Pipeline, payload: Path, image: str) -> None:
    repository, tag = image.split(":")
    checks = '[ "$A" = 010 ]; [ "$B" = no ]; [ "$C" = 1:30 ]; [ "$D" = 1e3 ]; [ "$E" = 2024-01-02 ]; [ "$F" = "a b" ]'
    text = f"""
api-version: 0.4.0
name: texts
operators:
- name: a
  container:
    image: {repository}
    tag: {tag}
    command: [sh, -ec, '{checks}; [ "$NVIDIA_CLARA_NOSYNCLOCK" = 1 ]; [ -z "$G" ]']
  variables:
    A: 010
    B: no
    C: 1:30
    D: 1e3
    E: 2024-01-02
    F: a b
    G: ""
"""
    cpost(pipeline(text=text), payload).ended(0)


# ---------------------------------------------------------------- what operators leave

MESS = """
cd /out
mkdir -p locked/inside; echo x >locked/inside/file; chmod 000 locked/inside/file locked/inside locked
ln -s /etc/shadow shadow; ln -s PRECIOUS precious; ln -s PRECIOUS/.. locked-link; ln -s . loop
mkfifo pipe; truncate -s 1000G sparse; echo result >result; chmod 4755 result
"""


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A folder of the host that an operator's output points to."""
    folder = tmp_path / "precious"
    folder.mkdir(mode=0o750)
    (folder / "file").write_text("mine\n")
    return folder


@pytest.mark.parametrize("kept", [False, True])
def test_mess_in_outputs(measure: Measure, op: Operator, tmp_path: Path, precious: Path, kept: bool) -> None:
    outputs = tmp_path / "outputs"
    options = ("--outputs_dir", outputs) if kept else ()
    script = MESS.replace("PRECIOUS", str(precious))
    done = measure(shell(op, "messy", script, output=[{"path": "/out"}]), options=options).ended(0)
    assert done.operator("messy")["result"]["outcome"] == "completed"
    assert outputs.exists() is kept
    if kept:
        assert (outputs / "messy" / "result").read_text() == "result\n"
        assert (outputs / "messy" / "precious").is_symlink()
    assert (precious / "file").read_text() == "mine\n"
    assert stat.S_IMODE(precious.stat().st_mode) == 0o750
    assert stat.S_IMODE((precious / "file").stat().st_mode) & 0o111 == 0


def test_kept_outputs_have_a_folder_per_operator(measure: Measure, op: Operator, tmp_path: Path) -> None:
    named = shell(op, "named", "echo n >/out/f", output=[{"path": "/out", "name": "mask"}])
    plain = shell(op, "plain", "echo p >/out/f", output=[{"path": "/out"}])
    measure(named, plain, options=("--outputs_dir", tmp_path / "new" / "outputs")).ended(0)
    found = {str(path.relative_to(tmp_path / "new")) for path in (tmp_path / "new").rglob("f")}
    assert found == {"outputs/named/mask/f", "outputs/plain/f"}


def test_kept_outputs_are_not_overwritten(measure: Measure, op: Operator, tmp_path: Path, metrics: Path) -> None:
    outputs = tmp_path / "outputs"
    (outputs / "plain").mkdir(parents=True)
    (outputs / "plain" / "f").write_text("old\n")
    plain = shell(op, "plain", "echo new >/out/f", output=[{"path": "/out"}])
    measure(plain, options=("--outputs_dir", outputs)).ended(2)
    assert (outputs / "plain" / "f").read_text() == "old\n"
    assert [path.name for path in outputs.rglob("*")] == ["plain", "f"]


@pytest.fixture
def treason(op: Operator, precious: Path) -> list[Record]:
    """The second operator puts a link to a folder of the host where the first one's named output was."""
    first = shell(op, "first", "echo x >/out/f", output=[{"path": "/out", "name": "mask"}])
    script = f"rm -r /in/mask && ln -s {precious} /in/mask || true"
    return [first, shell(op, "traitor", script, input=[reads("/in", "first")])]


def test_link_in_place_of_an_output_is_not_followed(
    measure: Measure, treason: list[Record], tmp_path: Path, precious: Path
) -> None:
    measure(*treason, options=("--outputs_dir", tmp_path / "outputs"))
    assert stat.S_IMODE(precious.stat().st_mode) == 0o750


def test_link_in_place_of_an_output_is_not_mounted(
    measure: Measure, op: Operator, treason: list[Record], precious: Path
) -> None:
    thief = shell(op, "thief", "cat /in/file; echo stolen >/in/file", input=[reads("/in", "first", "mask")])
    done = measure(*treason, thief, options=("--force", "cont"))
    assert "Traceback" not in done.text
    assert (precious / "file").read_text() == "mine\n"
