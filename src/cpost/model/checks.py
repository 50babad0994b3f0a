"""What a gate and a comparison of two runs find: frozen, no input or output; None means "not known" or "not stated"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction

from cpost.model.definition import Origin, Resources
from cpost.model.figures import Certainty, Figure
from cpost.model.record import Spread

_NOTHING = Resources()


class Rule(str, Enum):
    """What the gate looks at; the values are part of its output's format."""

    COMPLETE = "complete"
    MEASURED = "measured"
    DECLARED = "declared"
    CPU_REQUEST = "cpu_request"
    MEMORY_REQUEST = "memory_request"
    GPU_REQUEST = "gpu_request"
    CPU_LIMIT = "cpu_limit"
    MEMORY_LIMIT = "memory_limit"
    BASELINE = "baseline"
    CPU_TIME_GROWTH = "cpu_time_growth"
    CPU_GROWTH = "cpu_growth"
    MEMORY_GROWTH = "memory_growth"
    GPU_MEMORY_GROWTH = "gpu_memory_growth"


@dataclass(frozen=True, slots=True)
class Declared:
    """What a file, or a record, asks for an operator or server.

    Attributes:
        origin: where in the file.
        site: what the file calls the place that this stands at, which several operators may have in common.
        origins: where each amount stands, by the rule that it is held to; of those that the file itself states there.
        doubts: keys that look like misspelt ones, in one line each, and where they stand.
    """

    requests: Resources = _NOTHING
    limits: Resources = _NOTHING
    origin: Origin | None = None
    site: str = ""
    origins: Mapping[Rule, Origin] = field(default_factory=dict)
    doubts: tuple[tuple[str, Origin], ...] = ()


class Meaning(str, Enum):
    """What a difference between two runs may be taken for."""

    SAME = "no difference"
    SPREAD = "within the runs' own spread"
    GRAIN = "within the grain of clocks and counters"
    BEYOND = "beyond the runs' own spread"
    SINGLE = "single runs: cannot tell noise"
    UNKNOWN = "not known of both"


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of one operator in two runs; of repeats the medians, of memory the highest. The spreads are None for
    single runs.
    """

    figure: Figure
    before: float | None
    after: float | None
    meaning: Meaning
    before_spread: Spread | None = None
    after_spread: Spread | None = None
    before_certainty: Certainty = Certainty.EXACT
    after_certainty: Certainty = Certainty.EXACT

    @property
    def change(self) -> float | None:
        """After less before."""
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def share(self) -> float | None:
        """The change as a share of what it was before; None where that was 0 as well."""
        return self.change / self.before if self.change is not None and self.before else None


@dataclass(frozen=True, slots=True)
class HostDifference:
    """Something that two runs do not have in common and that their figures may differ for; both for people.

    Attributes:
        tested: it is of what was run (the pipeline's file, an image), which is there to be changed; False = it is of
            the host, or of how was run and measured.
    """

    what: str
    before: str
    after: str
    tested: bool = False


@dataclass(frozen=True, slots=True)
class SubjectDifferences:
    """One operator or server in two runs.

    Attributes:
        before, after: what was recommended; None = refused.
        remarks: what keeps the figures from being compared, one line each.
    """

    name: str
    figures: tuple[Difference, ...]
    before: Resources | None
    after: Resources | None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs side by side, each known by its id; `only_*` are operators and servers that just one of them has."""

    before: str
    after: str
    hosts: tuple[HostDifference, ...]
    subjects: tuple[SubjectDifferences, ...]
    only_before: tuple[str, ...] = ()
    only_after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the gate lets pass.

    Attributes:
        max_over: a request may be this many times what is needed.
        max_growth: usage may grow by this share of the baseline's.
        cpu_need: which CPU rate counts as needed: average, p95, p99 or maximum.
    """

    max_over: Fraction = Fraction(3)
    max_growth: Fraction = Fraction(1, 10)
    cpu_need: str = "p95"


class Ruling(str, Enum):
    """What came of a rule; skipped = nothing could be told, and the text says why."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One rule applied to one operator or server.

    Attributes:
        subject: an operator, "operator__server", "pipeline__server" where it is shared, or "run".
        text: one line, without subject and rule.
        site: what the file calls it, where that is another name.
        declared, needed, recommended: millicores, bytes or GPUs, as the rule has it.
    """

    subject: str
    rule: Rule
    verdict: Ruling
    text: str
    origin: Origin | None = None
    declared: int | None = None
    needed: int | None = None
    recommended: int | None = None
    site: str = ""


@dataclass(frozen=True, slots=True)
class GateReport:
    """All that the gate has looked at. `baseline_id` is empty without one, and so is `hosts`."""

    pipeline: str
    run_id: str
    baseline_id: str
    hosts: tuple[HostDifference, ...]
    checks: tuple[Check, ...]
    bounds: Bounds = Bounds()

    @property
    def failed(self) -> bool:
        """Whether any rule is broken."""
        return any(check.verdict is Ruling.FAILED for check in self.checks)
