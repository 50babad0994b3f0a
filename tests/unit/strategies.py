"""Random domain objects, and the text that a definition file would have for them."""

from __future__ import annotations

import json
import string

from hypothesis import strategies as st

from cpost.model import Input, Operator, Output, Pipeline, Resources

NAMES = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=12)
# Every text that YAML can carry: no NUL, no half characters.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12).filter(lambda t: "${{" not in t)
PATHS = st.lists(st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=6), min_size=1, max_size=3)
AMOUNTS = st.none() | st.integers(0, 10**6)
IMAGES = st.from_regex(r"\A([a-z]{1,5}\.io(:[0-9]{2,4})?/)?[a-z0-9]{1,6}(/[a-z0-9]{1,6}([._]|__|-{1,2})[a-z]{1,3})?\Z")
TAGS = st.from_regex(r"\A[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,8}\Z")


@st.composite
def requests(draw: st.DrawFn) -> Resources:
    cores, megabytes = draw(AMOUNTS), draw(AMOUNTS)
    return Resources(
        cpu_millicores=None if cores is None else cores * 1000,
        memory_bytes=None if megabytes is None else megabytes * 10**6,
        gpu_count=draw(AMOUNTS),
    )


@st.composite
def folders(draw: st.DrawFn, count: int) -> list[str]:
    """Return `count` different absolute paths."""
    parts = draw(st.lists(PATHS, min_size=count, max_size=count))
    names = [[part.strip(".") or "x" for part in path] for path in parts]
    return [f"/d{index}/{'/'.join(path)}" for index, path in enumerate(names)]


@st.composite
def operators(draw: st.DrawFn, name: str, earlier: list[Operator]) -> Operator:
    """Return an operator that reads the payload or operators written before it."""
    output_names = draw(st.just([None]) | st.lists(NAMES, max_size=3, unique_by=str.lower))
    sources: list[tuple[str | None, str | None]] = [(None, None)]
    sources += [(each.name, output.name) for each in earlier for output in each.outputs]
    read = draw(st.lists(st.sampled_from(sources), max_size=3))
    paths = draw(folders(count=len(read) + len(output_names)))
    variables = draw(st.dictionaries(TEXTS.filter(lambda t: t and "=" not in t), TEXTS, max_size=3))
    return Operator(
        name=name,
        image=f"{draw(IMAGES)}:{draw(TAGS)}",
        command=tuple(draw(st.lists(TEXTS, max_size=3))),
        env=tuple(variables.items()),
        inputs=tuple(Input(path, *source) for path, source in zip(paths, read, strict=False)),
        outputs=tuple(Output(path, out) for path, out in zip(paths[len(read) :], output_names, strict=True)),
        requests=draw(requests()),
        models=tuple(draw(st.lists(NAMES, max_size=2, unique=True))),
    )


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline:
    """Return a valid pipeline whose operators read only earlier ones; digest and file are empty."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique_by=str.lower))
    made: list[Operator] = []
    for name in names:
        made.append(draw(operators(name, made)))
    return Pipeline(
        name=draw(NAMES), api_version="0.4.0", operators=tuple(made), digest="", file="", description=draw(TEXTS)
    )


def as_yaml(pipeline: Pipeline) -> str:
    """Write a pipeline as a definition file; JSON strings are YAML strings, so every text survives."""
    lines = [f"api-version: {pipeline.api_version}", f"name: {json.dumps(pipeline.name)}"]
    lines += [f"description: {json.dumps(pipeline.description)}", "operators:"]
    for operator in pipeline.operators:
        lines += _operator_lines(operator)
    return "\n".join(lines) + "\n"


def _operator_lines(operator: Operator) -> list[str]:
    image, _, tag = operator.image.rpartition(":")
    requests = {
        "cpu": _divided(operator.requests.cpu_millicores, 1000),
        "memory": _divided(operator.requests.memory_bytes, 10**6),
        "gpu": operator.requests.gpu_count,
    }
    return [
        f"- name: {json.dumps(operator.name)}",
        "  container:",
        f"    image: {json.dumps(image)}",
        f"    tag: {json.dumps(tag)}",
        f"    command: {json.dumps(operator.command)}",
        "  variables:" if operator.env else "  variables: {}",
        *(f"    ? {json.dumps(name)}\n    : {json.dumps(value)}" for name, value in operator.env),
        f"  requests: {json.dumps({key: value for key, value in requests.items() if value is not None})}",
        f"  models: {json.dumps([{'name': name} for name in operator.models])}",
        f"  input: {json.dumps([{'from': i.source, 'name': i.name, 'path': i.path} for i in operator.inputs])}",
        f"  output: {json.dumps([{'name': o.name, 'path': o.path} for o in operator.outputs])}",
    ]


def _divided(amount: int | None, unit: int) -> int | None:
    return None if amount is None else amount // unit
