"""Reads one config.pbtxt of a model repository: bytes in protobuf's text format -> what cpost needs of it.

The only door to protobuf. Names and numbers of the fields are those of Triton's model_config.proto; fields that are not
declared here, those of newer servers among them, are skipped whatever they hold.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from cpost.terminal import visible

# Real ones have a few kB; the parser takes a second for a megabyte.
MAX_BYTES = 1024 * 1024

_SHOWN_CHARACTERS = 200
_INT64_MAX = 2**63 - 1
# Strings and comments are stepped over; what is caught is a name before a list of messages, or before an empty list.
# What may stand between two tokens; a comment ends with its line, so that there is one way to read it.
_GAP = r"(?:\s|\#[^\n]*\n)*"
# Strings and comments are stepped over; what is caught is a name before a list of messages, or before an empty list.
_BARE_LIST = re.compile(
    rf"""\#[^\n]* | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*'
    | (?P<name>\b[A-Za-z_]\w*)(?P<gap>{_GAP})\[(?={_GAP}[{{<\]])""",
    re.VERBOSE,
)


class ConfigError(Exception):
    """The text cannot be read; line and column count from 1, 0 where the parser names no place."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class EnsembleStep:
    """A model that an ensemble calls; version -1 = the latest. None written means 0, a version like any other."""

    model: str
    version: int


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What a config.pbtxt says.

    Attributes:
        name: empty where it is left to the folder's name.
        specific: versions that the policy names; None = it names none.
        latest: how many of the highest versions are served; None = all, or those named.
        steps: what an ensemble calls; () = no ensemble.
    """

    name: str = ""
    specific: tuple[int, ...] | None = None
    latest: int | None = 1
    steps: tuple[EnsembleStep, ...] = ()

    def served(self, versions: tuple[int, ...]) -> tuple[int, ...]:
        """Of the versions that are there, those that the server loads, lowest first."""
        if self.specific is not None:
            return tuple(version for version in sorted(versions) if version in self.specific)
        return tuple(sorted(versions)[-self.latest :] if self.latest else sorted(versions))


def parse(data: bytes) -> ModelConfig:
    """Read the bytes of a config.pbtxt.

    Raises:
        ConfigError: they break the text format, or are more than `MAX_BYTES`.
    """
    from google.protobuf import text_format

    if len(data) > MAX_BYTES:
        raise ConfigError(f"it is larger than {MAX_BYTES // 1024} KiB")
    if data.startswith(b"\xef\xbb\xbf"):
        raise ConfigError("it starts with a byte order mark, which the server refuses", 1, 1)
    # A comment may be in any encoding; in a name, broken characters match no folder.
    text = data.decode("utf-8", "replace")
    message = _message_class()()
    try:
        text_format.Parse(_with_colons(text), message, allow_unknown_field=True)
    except text_format.ParseError as error:
        raise _placed(error, text) from error
    except RecursionError as error:
        raise ConfigError("its messages are nested too deeply") from error
    return _config(message)


def _with_colons(text: str) -> str:
    """The same text with `name: [ {` for `name [ {`, which Python's parser cannot skip where it does not know the name.

    The colon takes the place of the blank behind the name, so that lines and columns stay.
    """

    def coloned(match: re.Match[str]) -> str:
        name, gap = match["name"], match["gap"]
        if name is None:
            return match[0]
        return f"{name}:{gap[1:] if gap[:1] in (' ', chr(9)) else gap}["

    return _BARE_LIST.sub(coloned, text)


def _placed(error: Any, text: str) -> ConfigError:
    """The parser's fault without its own prefix of place and source line."""
    line, column = error.GetLine() or 0, error.GetColumn() or 0
    message = str(error)
    if line:
        source = [*_with_colons(text).split("\n"), ""][line - 1]
        message = message.removeprefix(f"{line}:{column} : ").removeprefix(f"'{source}': ").removeprefix("'': ")
        message = re.sub(r"got \.$", "got the end of the file", message)
    return ConfigError(visible(message[:_SHOWN_CHARACTERS]), line, column)


def _config(message: Any) -> ModelConfig:
    policy = message.version_policy
    chosen = policy.WhichOneof("policy_choice")
    steps = message.ensemble_scheduling.step
    return ModelConfig(
        name=message.name,
        specific=tuple(policy.specific.versions) if chosen == "specific" else None,
        latest={None: 1, "latest": max(policy.latest.num_versions, 1)}.get(chosen),
        steps=tuple(EnsembleStep(step.model_name, step.model_version) for step in steps),
    )


@cache
def _message_class() -> Any:
    """The class of messages with only these fields, under the name that the server gives it, in a pool of its own."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="cpost/model_config.proto", package="inference", syntax="proto3")

    def declare(message: str, /, **fields: tuple[int, str]) -> Any:
        declared = file.message_type.add(name=message)
        for field, (number, kind) in fields.items():
            many = kind.startswith("*")
            added = declared.field.add(
                name=field, number=number, label=kinds.LABEL_REPEATED if many else kinds.LABEL_OPTIONAL
            )
            kind = kind.lstrip("*")
            if kind in ("STRING", "INT64", "UINT32"):
                added.type = kinds.Type.Value(f"TYPE_{kind}")
            else:
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".inference.{kind}"
        return declared

    declare("Latest", num_versions=(1, "UINT32"))
    declare("All")
    declare("Specific", versions=(1, "*INT64"))
    policy = declare("Policy", latest=(1, "Latest"), all=(2, "All"), specific=(3, "Specific"))
    policy.oneof_decl.add(name="policy_choice")
    for field in policy.field:
        field.oneof_index = 0
    declare("Step", model_name=(1, "STRING"), model_version=(2, "INT64"))
    declare("Ensemble", step=(1, "*Step"))
    # Platform and backend are not used; declared, they are checked like the others, with better words for a fault.
    texts = {"name": (1, "STRING"), "platform": (2, "STRING"), "backend": (17, "STRING")}
    declare("ModelConfig", **texts, version_policy=(3, "Policy"), ensemble_scheduling=(15, "Ensemble"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))
