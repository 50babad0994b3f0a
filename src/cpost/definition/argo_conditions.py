"""Which conditions of an Argo workflow hold, where that is known before a run: `depends` and `when`."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cpost.definition.argo_scope import Unknown, Value

# A task's result in `depends`, where all tasks that run succeed.
_HOLDS = {
    "": True, "Succeeded": True, "Daemoned": True, "AnySucceeded": True,
    "Failed": False, "Errored": False, "Skipped": False, "Omitted": False, "AllFailed": False,
}  # fmt: skip
_SIGNS = ("&&", "||", "!", "(", ")")
_TOKEN = re.compile(r"\s*(&&|\|\||!|\(|\)|[A-Za-z0-9_][A-Za-z0-9_.-]*)")
# Argo takes a bare word for a text; one with an operator's sign in it would be an expression.
_WORD = re.compile(
    r"""\s*(?:(?P<sign>&&|\|\||[=!<>]=|[!()<>])|(?P<quote>['"])(?P<text>[^'"\\]*)(?P=quote)|(?P<bare>-?[0-9.]+|[\w.]+))"""
)
_MAX_DEPTH = 50


class _Unreadable(Exception):
    """It is no condition, or none that is worked out here."""


# ---------------------------------------------------------------- depends


@dataclass(frozen=True, slots=True)
class Depends:
    """What a task waits for.

    Attributes:
        tasks: their names, in the order written.
        holds: whether it runs at all if everything succeeds; `left_out` tells of a task whether it does not run.
    """

    tasks: tuple[str, ...]
    holds: Callable[[Callable[[str], bool]], bool]


def depends(expression: str) -> Depends | None:
    """Read an expression such as `(A.Succeeded || B) && !C.Failed`; None where it is none."""
    tokens: list[str] = _TOKEN.findall(expression)
    if "".join(tokens) != re.sub(r"\s", "", expression) or not tokens:
        return None
    names = dict.fromkeys(token.partition(".")[0] for token in tokens if token not in _SIGNS)

    def holds(left_out: Callable[[str], bool]) -> bool:
        return _Results(tokens, left_out).whole() is True

    try:
        holds(lambda _: False)
    except _Unreadable:
        return None
    return Depends(tuple(names), holds)


# ---------------------------------------------------------------- when


@dataclass(frozen=True, slots=True)
class _Operand:
    """A text in quotes, or a bare word, which may be a number or a truth value."""

    text: str
    bare: bool

    @property
    def number(self) -> float | None:
        """What it is as a number; None where it is none."""
        try:
            return float(self.text) if re.fullmatch(r"-?[0-9]*\.?[0-9]+", self.text) else None
        except ValueError:
            return None

    @property
    def kind(self) -> str:
        """What Argo takes it for."""
        if self.bare and self.number is not None:
            return "number"
        return "truth" if self.bare and self.text in ("true", "false") else "text"


def holds(condition: Value) -> bool | None:
    """Whether a `when` holds; None where that is not known before a run, or not so simple a question."""
    if isinstance(condition, Unknown):
        return None
    if not condition.strip():
        return True
    words = list(_words(condition))
    try:
        return _When(words).whole()
    except _Unreadable:
        return None


def _words(condition: str) -> Iterator[str | _Operand]:
    """The words of a condition; none where a part of it is no word."""
    text, at, found = condition.rstrip(), 0, []
    while at < len(text):
        match = _WORD.match(text, at)
        if match is None:
            return
        at = match.end()
        if match["sign"]:
            found.append(match["sign"])
        else:
            found.append(_Operand(match["text"] or match["bare"] or "", match["quote"] is None))
    yield from found


def _compared(left: _Operand, sign: str, right: _Operand) -> bool | None:
    """None where it depends on what either is taken for, as for '1' == 1."""
    numbers = (left.number, right.number)
    if sign not in ("==", "!="):
        if numbers[0] is None or numbers[1] is None or {left.kind, right.kind} != {"number"}:
            raise _Unreadable(sign)
        return {"<": numbers[0] < numbers[1], ">": numbers[0] > numbers[1],
                "<=": numbers[0] <= numbers[1], ">=": numbers[0] >= numbers[1]}[sign]  # fmt: skip
    alike = left.text == right.text
    as_numbers = numbers[0] == numbers[1] if None not in numbers else alike
    if left.kind == right.kind:
        same = as_numbers if left.kind == "number" else alike
    elif alike or as_numbers:
        return None
    else:
        same = False
    return same == (sign == "==")


# ---------------------------------------------------------------- both


class _Expression(ABC):
    """Works out a condition by recursive descent; None = not known."""

    def __init__(self, words: Sequence[str | _Operand]) -> None:
        self._words_left = [*words, ""]
        self._at = 0
        self._depth = 0

    def whole(self) -> bool | None:
        """Raises _Unreadable where it is no condition."""
        value = self._any()
        if self._word:
            raise _Unreadable(self._word)
        return value

    @property
    def _word(self) -> str | _Operand:
        return self._words_left[self._at]

    def _take(self) -> str | _Operand:
        word = self._word
        if not word:
            raise _Unreadable("it ends too early")
        self._at += 1
        return word

    def _any(self) -> bool | None:
        values = [self._all()]
        while self._word == "||":
            self._take()
            values.append(self._all())
        return True if True in values else None if None in values else False

    def _all(self) -> bool | None:
        values = [self._one()]
        while self._word == "&&":
            self._take()
            values.append(self._one())
        return False if False in values else None if None in values else True

    def _one(self) -> bool | None:
        word = self._take()
        if word in ("!", "("):
            self._depth += 1
            if self._depth > _MAX_DEPTH:
                raise _Unreadable("it is nested too deep")
            value = self._negated() if word == "!" else self._bracketed()
            self._depth -= 1
            return value
        if isinstance(word, str) and word in _SIGNS:
            raise _Unreadable(word)
        return self._atom(word)

    def _bracketed(self) -> bool | None:
        value = self._any()
        if self._take() != ")":
            raise _Unreadable("a bracket is not closed")
        return value

    def _negated(self) -> bool | None:
        value = self._one()
        return None if value is None else not value

    @abstractmethod
    def _atom(self, word: str | _Operand) -> bool | None:
        """What a single part comes to; None = not known before a run."""


class _Results(_Expression):
    """Results of tasks."""

    def __init__(self, words: Sequence[str], left_out: Callable[[str], bool]) -> None:
        super().__init__(words)
        self._left_out = left_out

    def _atom(self, word: str | _Operand) -> bool | None:
        name, _, result = str(word).partition(".")
        if self._left_out(name):
            return result in ("", "Skipped", "Omitted")
        if result not in _HOLDS:
            raise _Unreadable(word)
        return _HOLDS[result]


class _When(_Expression):
    """Comparisons of words."""

    def _negated(self) -> bool | None:
        """Before a bracket or a truth value; before all else it is a question of precedence what ! belongs to."""
        word = self._word
        if isinstance(word, _Operand) and word.kind == "truth":
            self._take()
            return word.text == "false"
        if word != "(":
            raise _Unreadable(word)
        return super()._negated()

    def _atom(self, word: str | _Operand) -> bool | None:
        if not isinstance(word, _Operand):
            raise _Unreadable(word)
        if self._word in ("==", "!=", "<", ">", "<=", ">="):
            sign, other = str(self._take()), self._take()
            if not isinstance(other, _Operand):
                raise _Unreadable(other)
            return _compared(word, sign, other)
        if word.text.lower() not in ("true", "false"):
            raise _Unreadable(word)
        return word.text.lower() == "true"
