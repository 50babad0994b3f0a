"""The options that several verbs of the command line have in common, and what their values mean."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cpost.defaults import TRITON_IMAGE
from cpost.units import parse_bytes, parse_duration_ns, whole_pages

if TYPE_CHECKING:
    from cpost.model import Options

_Command = TypeVar("_Command", bound=Callable[..., None])


class _NamedPath(click.Path):
    """A path that is not empty: a variable of a script that is not set must not become the folder it was called in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(named(value) if isinstance(value, str) else value, param, ctx)


def named(text: str) -> str:
    """What an option names."""
    if not text:
        raise click.BadParameter("it is empty: name what is meant, or leave it out")
    return text


PATH = _NamedPath(path_type=Path)


def _quantity(
    parse: Callable[[str], int], metavar: str, minimum: str, maximum: str | None = None
) -> Callable[[str], int]:
    """The type of an option whose value has a unit; click turns the ValueError into a usage error."""

    def convert(text: str) -> int:
        number = parse(text)
        if number < parse(minimum) or (maximum is not None and number > parse(maximum)):
            above = f" and at most {maximum}" if maximum else ""
            raise ValueError(f"{text} is out of range: it must be at least {minimum}{above}")
        return number

    convert.__name__ = metavar
    return convert


PERIOD = _quantity(parse_duration_ns, "duration", "1ms", "10s")
WINDOW = _quantity(parse_duration_ns, "duration", "10ms", "60s")
TIMEOUT = _quantity(parse_duration_ns, "duration", "1ms")
_SHM_SIZE = _quantity(parse_bytes, "size", "4KiB")
MEMORY_LIMIT = _quantity(lambda text: whole_pages(parse_bytes(text)), "size", "6MiB")  # the engine refuses less
_MOST_REPEATS = 1000
_SET_BY_CPOST = (
    "--model-repository",
    "--model-control-mode",
    "--load-model",
    "--http-port",
    "--grpc-port",
    "--metrics-port",
)


def _share(text: str) -> float:
    """A share, such as 10% or 0.1."""
    try:
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        number = -1
    if not 0 <= number <= 10:
        raise ValueError(f"{text} is no share from 0 to 1000%: write 10% or 0.1")
    return number


def _triton_args(text: str) -> tuple[str, ...]:
    """The words of an option that holds several, as a shell would part them."""
    words = tuple(shlex.split(text))
    for word in words:
        if word.split("=")[0] in _SET_BY_CPOST:
            raise ValueError(f"{word.split('=')[0]} is set by cpost itself")
    return words


_TRITON_OPTIONS = (
    click.option(
        "--models_dir",
        "--models-dir",
        type=named,
        metavar="DIR",
        help="Model repository of operators with models; also for services.",
    ),
    click.option(
        "--triton_image",
        "--triton-image",
        type=named,
        metavar="IMAGE",
        default=TRITON_IMAGE,
        show_default=True,
        help="Inference server of operators with models.",
    ),
    click.option(
        "--triton_args",
        "--triton-args",
        type=_triton_args,
        metavar="ARGS",
        default="",
        help="More arguments for tritonserver, quoted as one: '--log-verbose=1 ...'.",
    ),
    click.option(
        "--triton_scope",
        "--triton-scope",
        type=click.Choice(["operator", "pipeline"]),
        default="operator",
        show_default=True,
        help="A fresh Triton for each operator with models, or one for all of them.",
    ),
    click.option(
        "--triton_timeout",
        "--triton-timeout",
        type=TIMEOUT,
        default="120s",
        show_default=True,
        help="Time for a Triton or a service to become ready.",
    ),
)
_OUTPUT_OPTIONS = (
    click.option(
        "--metrics_dir",
        "--metrics-dir",
        type=named,
        metavar="DIR",
        help="Write CSVs and the record here [default: stdout].",
    ),
    click.option(
        "--outputs_dir", "--outputs-dir", type=named, metavar="DIR", help="Keep what the operators write here."
    ),
    click.option("--overwrite", is_flag=True, help="Replace earlier results in the folders named above."),
)
_MEASURING_OPTIONS = (
    click.option(
        "--force",
        type=click.Choice(["none", "cont", "stop"]),
        is_flag=False,
        flag_value="none",
        default="none",
        show_default=True,
        help="After a failed operator: go on (cont), stop, or ask (none; stops where there is nobody to ask).",
    ),
    click.option(
        "--policy",
        type=click.Choice(["peak", "p95", "p99"]),
        help="peak: highest CPU window, memory peak + 100 MB. p95, p99: CPU percentile, memory need + 15 % and "
        "some cache. "
        "[default: peak for Clara, p95 for other formats]",
    ),
    click.option("--period", type=PERIOD, default="10ms", show_default=True, help="Time between two samples."),
    click.option("--window", type=WINDOW, default="200ms", show_default=True, help="Span of one CPU rate."),
    click.option("--timeout", type=TIMEOUT, help="Stop an operator after this time [default: none]."),
    click.option("--duration", type=TIMEOUT, help="How long to run what does not end by itself, such as a Deployment."),
    click.option("--shm_size", "--shm-size", type=_SHM_SIZE, default="1g", show_default=True, help="Size of /dev/shm."),
    click.option(
        "--memory_limit",
        "--memory-limit",
        type=MEMORY_LIMIT,
        help="Memory that an operator may use at most [default: the host's, less a reserve].",
    ),
    click.option("--no_gpu", "--no-gpu", is_flag=True, help="Run operators that ask for a GPU without one."),
    click.option(
        "--repeat",
        type=click.IntRange(1, _MOST_REPEATS),
        metavar="N",
        default=1,
        help="Run and measure each operator N times; the worst decides [default: 1].",
    ),
    click.option(
        "--warmup",
        type=click.IntRange(0, _MOST_REPEATS),
        metavar="N",
        default=0,
        help="Run it N times before that, without any say in the recommendation [default: 0].",
    ),
)
_FORMAT_OPTIONS = (
    click.option(
        "--json", "as_json", is_flag=True, help="Print the run's record as JSON on stdout, all else on stderr."
    ),
    click.option("--quiet", "-q", is_flag=True, help="Print the final table, warnings and failures' logs only."),
    click.option("--verbose", "-v", is_flag=True, help="Print more: host, sampling, reasons."),
)


def _all(options: tuple[Callable[[_Command], _Command], ...]) -> Callable[[_Command], _Command]:
    """One decorator for several options, which help lists in this order."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


triton_options = _all(_TRITON_OPTIONS)
output_options = _all(_OUTPUT_OPTIONS)
measuring_options = _all((*_MEASURING_OPTIONS, *_TRITON_OPTIONS))
format_options = _all(_FORMAT_OPTIONS)
slowdown_option = click.option(
    "--max_slowdown",
    "--max-slowdown",
    type=_share,
    metavar="SHARE",
    default="10%",
    show_default=True,
    help="How much longer an operator may take under limits.",
)


def chosen_for_triton(chosen: dict[str, Any]) -> dict[str, Any]:
    """Those options as `Options` has them."""
    return {
        "models_dir": chosen["models_dir"],
        "triton_image": chosen["triton_image"],
        "triton_args": chosen["triton_args"],
        "triton_scope": chosen["triton_scope"],
        "triton_timeout_ns": chosen["triton_timeout"],
    }


def options_of(chosen: dict[str, Any]) -> Options:
    """What was chosen, as the domain has it; what a verb has no option for keeps its default."""
    from cpost.model import Options

    return Options(
        period_ns=chosen["period"],
        window_ns=chosen["window"],
        policy=chosen["policy"] or "",
        timeout_ns=chosen["timeout"],
        duration_ns=chosen["duration"],
        shm_bytes=chosen["shm_size"],
        memory_limit_bytes=chosen["memory_limit"],
        on_failure=chosen["force"],
        input_dir=str(chosen["input_dir"]),
        metrics_dir=chosen["metrics_dir"],
        outputs_dir=chosen["outputs_dir"],
        overwrite=chosen["overwrite"],
        no_gpu=chosen["no_gpu"],
        repeat=chosen["repeat"],
        warmup=chosen["warmup"],
        verify=chosen.get("verify", False),
        max_slowdown=chosen["max_slowdown"],
        **chosen_for_triton(chosen),
    )
