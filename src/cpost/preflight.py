"""What is looked at before anything starts: a run should not end over a typing error after an hour."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cpost import store
from cpost.definition.models import models_to_load
from cpost.errors import UsageError
from cpost.model import Options, Pipeline


def by_format(options: Options, pipeline: Pipeline) -> Options:
    """The options, with what the user left to the definition's format."""
    return options if options.policy else replace(options, policy=pipeline.format.policy)


def check_runnable(pipeline: Pipeline, options: Options) -> None:
    """Refuse a pipeline with an operator that cannot be run, or would not end."""
    staying = [operator.name for operator in pipeline.operators if operator.long_running]
    if staying and options.duration_ns is None:
        raise UsageError(
            f"{', '.join(staying)} would run for ever",
            "say for how long: --duration 5m; it is stopped then, and has done what it was there for",
        )
    if options.duration_ns is not None and not staying:
        raise UsageError("--duration is for what does not end by itself, which there is none of here", "leave it out")
    for operator in pipeline.operators:
        for reason in operator.unsupported:
            raise UsageError(
                f"operator {operator.name} cannot be run here: {reason}",
                f"`cpost plan {pipeline.file}` shows the whole graph; size the pipeline without that operator for now",
            )


def models_of(pipeline: Pipeline, options: Options) -> Mapping[str, tuple[str, ...]]:
    """What is to be loaded for each operator; the model repository is looked at before anything starts."""
    asking = [operator for operator in pipeline.operators if operator.models]
    if options.models_dir is not None:
        return models_to_load(pipeline, Path(options.models_dir))
    for operator in asking:
        raise UsageError(
            f"operator {operator.name} asks for model {operator.models[0]}, and there is no model repository",
            "name the folder that holds the models: --models_dir DIR",
        )
    return {}


def check_folders(options: Options) -> None:
    """Refuse folders that are not there, or that may not be entered or written to."""
    for what, name in (("input folder", options.input_dir), ("models folder", options.models_dir)):
        if name is not None and not store.is_folder(Path(name)):
            raise UsageError(f"the {what} {name} is not there, or is no folder", f"name the {what}'s path")
    payload = Path(options.input_dir).resolve()
    for option, name in (("--metrics_dir", options.metrics_dir), ("--outputs_dir", options.outputs_dir)):
        if name is None:
            continue
        if os.access(name, os.F_OK) and not store.is_folder(Path(name)):
            raise UsageError(f"{name} is a file, not a folder", f"name a folder for {option}, new or empty")
        if Path(name).resolve().is_relative_to(payload):
            raise UsageError(
                f"{option} {name} lies in the input folder, which the operators read", "name another folder"
            )
