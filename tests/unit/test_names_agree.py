"""A run calls a container what checks and write-back call it."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import advice, record, run
from foreign import read

from cpost.amend_session import _advised
from cpost.definition.declared import declared
from cpost.definition.marks import read_source
from cpost.definition.sites import find_sites
from cpost.definition.writeback import write_back
from cpost.model import Resources

POD = "apiVersion: v1\nkind: {0}\nmetadata: {{name: {1}}}\nspec: {{{2}containers: [{{name: main, image: i}}]}}\n---\n"
FILES = {
    "kubernetes": POD.format("Pod", "a", "initContainers: [{name: only, image: i}], ")
    + POD.format("Pod", "b", "")
    + "apiVersion: apps/v1\nkind: Deployment\nmetadata: {generateName: b--}\n"
    "spec: {template: {spec: {containers: [{name: main, image: i}, {name: side, image: i}]}}}\n",
    "argo": (
        "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {generateName: w-}\nspec:\n  entrypoint: m\n"
        "  templates:\n  - name: m\n    steps:\n    - [{name: x, template: one}, {name: y, template: two}]\n"
        "    - [{name: z, template: set}]\n"
        "  - {name: one, container: {image: i}, initContainers: [{name: first, image: i}]}\n"
        "  - {name: two, script: {image: i, source: x}, initContainers: [{name: first, image: i}]}\n"
        "  - {name: set, containerSet: {containers: [{name: one, image: i}, {name: c, image: i}]}}\n"
    ),
    "inline": (
        "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: w}\nspec:\n  entrypoint: m\n"
        "  templates:\n  - name: m\n    steps:\n"
        "    - - {name: one, withItems: [1, 2],"
        " inline: {container: {image: i}, initContainers: [{name: f, image: i}]}}\n"
        "      - {name: two, template: one}\n"
        "      - {name: out, inline: {dag: {tasks: [{name: in, inline: {script: {image: i, source: x}}}]}}}\n"
        "  - {name: one, container: {image: i}, initContainers: [{name: f, image: i}]}\n"
    ),
    "namespaces": (
        POD.format("Pod", "a, namespace: x", "") + POD.format("Pod", "a, namespace: y", "") + POD.format("Pod", "a", "")
    ),
    "compose": "services: {a.b: {image: i}, C_d: {image: i, depends_on: [a.b]}}\n",
}


@pytest.mark.parametrize("format_", FILES)
def test_sites_have_the_same_names(tmp_path: Path, format_: str) -> None:
    pipeline = read(tmp_path, FILES[format_])
    used = {each.site for operator in pipeline.operators for each in (operator, *operator.companions)}
    sites = find_sites(read_source(tmp_path / "p.yaml"))
    assert used == {site.name for site in sites}
    assert not any(site.blocked for site in sites)


def test_an_inline_template_is_written_back_to(tmp_path: Path) -> None:
    names = [each.name for each in read(tmp_path, FILES["inline"]).operators]
    assert names == [
        "workflow.w.m.one.f.one-0", "workflow.w.m.one.one-0", "workflow.w.m.one.f.one-1", "workflow.w.m.one.one-1",
        "workflow.w.one.f", "workflow.w.one", "in",
    ]  # fmt: skip
    records = [
        record(f"workflow.w.m.one.one-{n}", recommendation=advice(500, n * 2**26), site="workflow.w.m.one")
        for n in (1, 2)
    ]
    written = write_back(read_source(tmp_path / "p.yaml"), list(_advised(run(*records))))
    changed = [line for line in written.text.splitlines() if "128Mi" in line]
    assert len(changed) == 1
    assert "withItems" in changed[0]


def test_what_is_declared_has_the_names_of_a_run(tmp_path: Path) -> None:
    text = (
        "services:\n  db: {image: i, mem_limit: 64m}\n  a: {image: i, depends_on: [db], mem_limit: 32m}\n"
        "  b: {image: i, depends_on: [db, own]}\n  own: {image: i}\n  gone: {image: i, profiles: [x], cpus: 1}\n"
    )
    read(tmp_path, text)
    found = {name: each.limits for name, each in declared(tmp_path / "p.yaml").items()}
    assert found == {
        "a": Resources(memory_bytes=32 * 2**20),
        "b": Resources(),
        "pipeline__db": Resources(memory_bytes=64 * 2**20),
        "b__own": Resources(),
        "gone": Resources(1000),
    }


def test_uses_of_a_template_are_written_back_to_it(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(FILES["argo"])
    steps = [(f"one.{step}", memory * 2**20) for step, memory in (("x", 64), ("y", 128))]
    records = [record(name, recommendation=advice(500, size), site="workflow.w.one") for name, size in steps]
    written = write_back(read_source(file), list(_advised(run(*records))))
    assert "128Mi" in written.text
    assert "64Mi" not in written.text
