"""Checks a model repository before anything starts, and works out which models a Triton server must load.

What a server loads and what it refuses was tried on Triton 2.51: every model, an ensemble too, needs a folder with the
number of a version, files beside the models are ignored, and an ensemble's step that names no version means version 0.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cpost.definition import grammar
from cpost.definition.files import read_regular, why_unreadable
from cpost.definition.findings import Findings, choice, quoted
from cpost.definition.model_config import MAX_BYTES, ConfigError, ModelConfig, parse
from cpost.errors import UsageError
from cpost.model import Operator, Origin, Pipeline
from cpost.terminal import visible

CONFIG = "config.pbtxt"

_MAX_VERSION = 2**63 - 1
_LATEST = -1


def models_to_load(pipeline: Pipeline, models_dir: Path) -> dict[str, tuple[str, ...]]:
    """Return, for each operator that asks for models, the names that its server must load.

    Args:
        models_dir: the model repository: a folder per model. Not looked at where no operator asks for models.

    Returns:
        By operator: the models that it asks for in the order written, each followed by what ensembles among them need
        and was not named before.

    Raises:
        DefinitionError: every fault of the models asked for, each where it can be mended.
        UsageError: the repository cannot be read.
    """
    asking = [operator for operator in pipeline.operators if operator.models]
    if not asking:
        return {}
    findings = Findings()
    repository = _Repository(models_dir, findings, pipeline.file)
    needed = {operator.name: repository.closure(operator) for operator in asking}
    findings.raise_problems((pipeline.file,))
    return needed


@dataclass(frozen=True, slots=True)
class _Need:
    """A model, who asks for it, and the ensembles through which; the outermost is first."""

    name: str
    operator: Operator
    ensembles: tuple[str, ...] = ()

    def __str__(self) -> str:
        through = f" of ensemble {quoted(self.ensembles[-1])}" if self.ensembles else ""
        return f"model {quoted(self.name)}{through} of operator {quoted(self.operator.name)}"


@dataclass(frozen=True, slots=True)
class _Model:
    """A model that is there: its configuration and the versions that a server would load."""

    config: ModelConfig
    versions: tuple[int, ...]


class _Repository:
    """One folder of models, each read once; what is wrong with one is said once, for the operator that asks first."""

    def __init__(self, root: Path, findings: Findings, pipeline_file: str) -> None:
        self._root = root
        self._findings = findings
        self._pipeline_file = pipeline_file
        self._models: dict[str, _Model | None] = {}
        self._cycles: set[frozenset[str]] = set()
        try:
            self._names = _folders(root)
        except OSError as error:
            raise UsageError(
                f"the models folder {visible(str(root))} {why_unreadable(error)}",
                "name a model repository, a folder with a folder for each model, with --models_dir",
            ) from error

    def closure(self, operator: Operator) -> tuple[str, ...]:
        """The models that an operator's server must load; faults are recorded."""
        found: dict[str, None] = {}
        # Depth first, without recursion: a model popped is marked before what it needs is looked at.
        waiting = [_Need(name, operator) for name in reversed(operator.models)]
        while waiting:
            need = waiting.pop()
            if need.name in need.ensembles:
                self._report_cycle(need)
            elif need.name not in found:
                found[need.name] = None
                waiting += reversed(list(self._needs_of(need)))
        return tuple(found)

    def _needs_of(self, need: _Need) -> Iterator[_Need]:
        model = self._model(need)
        path = (*need.ensembles, need.name)
        for step in model.config.steps if model else ():
            inner = _Need(step.model, need.operator, path)
            if step.model not in path:
                self._check_step(inner, step.version)
            yield inner

    def _check_step(self, need: _Need, version: int) -> None:
        model = self._model(need)
        if model is None or version == _LATEST or version in model.versions:
            return
        served = ", ".join(map(str, model.versions))
        hint = "write model_version: -1 for the latest" + ("; a step without model_version means 0" * (not version))
        self._error(
            self._config_path(need.ensembles[-1]), f"{need} has no version {version}: served are {served}", hint
        )

    def _report_cycle(self, need: _Need) -> None:
        names = need.ensembles[need.ensembles.index(need.name) :]
        if frozenset(names) not in self._cycles:
            self._cycles.add(frozenset(names))
            shown = " -> ".join(quoted(name)[1:-1] for name in (*names, need.name))
            message = f"ensembles of operator {quoted(need.operator.name)} need one another: {shown}"
            self._error(self._config_path(need.ensembles[-1]), message, "take one of them out of the other's steps")

    def _model(self, need: _Need) -> _Model | None:
        if need.name not in self._models:
            self._models[need.name] = self._fresh(need)
        return self._models[need.name]

    def _fresh(self, need: _Need) -> _Model | None:
        if not self._is_there(need):
            return None
        config = self._config(need)
        versions = self._versions(need)
        if config is None or not versions:
            return None
        self._check_name(need, config)
        self._check_policy(need, config, versions)
        return _Model(config, config.served(versions))

    def _is_there(self, need: _Need) -> bool:
        try:
            grammar.model_name(need.name)
        except grammar.GrammarError:
            self._error(self._asked_at(need), f"{need}: this is not the name of a folder", "write a folder's name")
            return False
        folder = self._root / need.name
        if folder.is_dir():
            return self._is_inside(need, folder)
        what = "is a file, not a folder," if folder.exists() else "is not"
        hint = choice(need.name, self._names, f"{visible(str(self._root))} holds")
        self._error(self._asked_at(need), f"{need} {what} in {visible(str(self._root))}", hint)
        return False

    def _is_inside(self, need: _Need, path: Path) -> bool:
        """Whether a path leads to the same thing in a container that sees the repository under another path."""
        leads_out = not path.resolve().is_relative_to(self._root.resolve())
        if leads_out or (path.is_symlink() and path.readlink().is_absolute()):
            message = (
                f"{need}: this is a link to {visible(str(path.readlink() if path.is_symlink() else path.resolve()))}"
            )
            self._error(path, f"{message}, which a container that sees only the repository cannot follow",
                        "put the files themselves there, or a relative link within the repository")  # fmt: skip
            return False
        return True

    def _config(self, need: _Need) -> ModelConfig | None:
        path = self._config_path(need.name)
        try:
            config = parse(read_regular(path, MAX_BYTES + 1))
        except FileNotFoundError:
            holds = choice(CONFIG, sorted(_names(path.parent)), "the folder holds")
            self._error(path, f"{need} has no {CONFIG}", f"write one with name and backend; {holds}")
        except (OSError, ValueError) as error:
            self._error(path, f"the configuration of {need} {why_unreadable(error)}", "let your user read it")
        except ConfigError as error:
            hint = "mend it; it is in protobuf's text format, as Triton's manual of model configurations says"
            self._error(path, f"the configuration of {need}: {error.message}", hint, error.line, error.column)
        else:
            return config if self._is_inside(need, path) else None
        return None

    def _versions(self, need: _Need) -> tuple[int, ...]:
        folder = self._root / need.name
        numbers = [name for name in _folders(folder) if re.fullmatch(r"0|[1-9][0-9]*", name)]
        large = [name for name in numbers if int(name[:20]) > _MAX_VERSION]
        if large:
            # The server ends over it (std::out_of_range), and takes all other models down with it.
            self._error(folder, f"{need} has a version number too large for a server: {quoted(large[0])}", "rename it")
            return ()
        if not numbers:
            hint = "mkdir 1 there, and put the model into it; an ensemble's is empty, and git keeps no empty folders"
            holds = choice("", sorted(_names(folder)), "the folder holds")
            self._error(
                folder, f"{need} has no folder of a version, named 1, 2, ... without leading zeros", f"{hint}; {holds}"
            )
        return tuple(int(name) for name in numbers if self._is_inside(need, folder / name))

    def _check_name(self, need: _Need, config: ModelConfig) -> None:
        if config.name not in ("", need.name):
            message = f"{need} is called {quoted(config.name)} in its configuration"
            self._error(self._config_path(need.name), message, "write the folder's name there, or leave name out")

    def _check_policy(self, need: _Need, config: ModelConfig, versions: tuple[int, ...]) -> None:
        if config.specific is None:
            return
        missing = ", ".join(str(version) for version in config.specific if version not in versions)
        hint = f"name versions that are there: {', '.join(map(str, sorted(versions)))}"
        if missing:
            message = f"the version_policy of {need} names versions that are not there: {missing}"
            self._error(self._config_path(need.name), message, hint)
        elif not config.specific:
            self._error(self._config_path(need.name), f"the version_policy of {need} names no version", hint)

    def _config_path(self, name: str) -> Path:
        return self._root / name / CONFIG

    def _asked_at(self, need: _Need) -> Origin | Path:
        """Where a model is named that is not there: the ensemble's configuration, or the operator."""
        if need.ensembles:
            return self._config_path(need.ensembles[-1])
        return need.operator.origin or Origin(self._pipeline_file, 0, 0)

    def _error(self, place: Origin | Path, message: str, hint: str, line: int = 0, column: int = 0) -> None:
        if isinstance(place, Path):
            place = Origin(visible(str(place)), line, column)
        self._findings.error(place, message, hint)


def _names(folder: Path) -> list[str]:
    """What a folder holds, hidden things apart; nothing where it cannot be listed."""
    try:
        return [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError:
        return []


def _folders(folder: Path) -> list[str]:
    """The folders in a folder by name, hidden ones apart, sorted.

    Raises:
        OSError: it cannot be listed.
    """
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
