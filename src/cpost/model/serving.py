"""What a Triton inference server told of itself: frozen, no input or output; None means "not told"."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelServed:
    """What a server did with one version of a model, by its own counters.

    The server adds a time for each request that succeeds, and none for one that fails. A request that is answered
    together with others in one batch is charged with the whole time of the batch, and one that the response cache
    answers with no time of computing.

    Attributes:
        requests: that succeeded; one with a batch of eight counts as one.
        failures: requests that failed, for whatever reason. A failure within an ensemble may be counted twice by the
            server, once for the step and once for the whole.
        inferences: items worked on; a request with a batch of eight counts as eight, one from the cache as none.
        executions: batches worked on: inferences / executions is the average size of a batch.
        queue_us_mean: waiting for a free instance of the model; per request that succeeded.
        compute_us_mean: taking the inputs in, computing, handing the outputs out; per request that succeeded and was
            not answered from the cache.
        request_us_mean: from the request's arrival at the server to its answer; per request that succeeded.

    The means are None where no such request was served, or the server tells no times.
    """

    name: str
    version: str
    requests: int | None = None
    failures: int | None = None
    inferences: int | None = None
    executions: int | None = None
    queue_us_mean: float | None = None
    compute_us_mean: float | None = None
    request_us_mean: float | None = None


@dataclass(frozen=True, slots=True)
class TritonGpu:
    """A GPU as the server last told of it: the whole device, whoever uses it, at one moment (its own beat is 2 s)."""

    uuid: str
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    utilization_pct: float | None = None
    power_mw: int | None = None


@dataclass(frozen=True, slots=True)
class TritonFacts:
    """What a server did between two looks at its counters.

    Attributes:
        version: of the server; empty where it does not tell.
        models: every version of a model that it tells of, sorted, those with no request as well.
        gpus: () where the server tells of none, as without a GPU or on one that is divided (MIG).
    """

    version: str = ""
    models: tuple[ModelServed, ...] = ()
    gpus: tuple[TritonGpu, ...] = ()
