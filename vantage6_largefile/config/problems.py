"""Collecting mistakes: all of them at once, each with its key, what was found and what was expected.

What was found is never the value of a secret: keys that may hold one are *hidden*, and of a hidden value only
its kind and length are told.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from vantage6_largefile.errors import ConfigurationError
from vantage6_largefile.redaction import redact

_LONGEST_VALUE = 80

ModelT = TypeVar("ModelT", bound=BaseModel)


class Mistake(ValueError):
    """One mistake in one value. The text continues the line that begins with the key's path; never a secret."""


class Problems:
    """The mistakes found so far in one configuration."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, path: str, text: str) -> None:
        """Note a mistake at the key `path`. The text is redacted once more, whatever the caller did."""
        text = redact(text)
        line = f"{path}: {text if text.endswith(('.', '?')) else text + '.'}"
        if line not in self.lines:
            self.lines.append(line)

    def expected(self, path: str, value: object, expectation: str, *, hidden: bool = False) -> None:
        """Note that `value` was found at `path` where `expectation` was expected."""
        self.add(path, f"found {describe(value, hidden=hidden)}, expected {expectation}")

    def unknown_key(self, path: str, key: object, known: Collection[str]) -> None:
        """Note a key that does not exist, with the one that was probably meant."""
        name = key if isinstance(key, str) else str(describe(key))
        self.add(f"{path}.{_shorten(redact(name))}", f"unknown key; {suggestion(name, known)}")

    def raise_if_any(self, source: str) -> None:
        """End the loading when there was any mistake.

        Raises
        ------
        ConfigurationError
            With every mistake.
        """
        if self.lines:
            raise ConfigurationError(self.lines, source=source)


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"


def describe(value: object, *, hidden: bool = False) -> str:
    """What was found, for a message: short, redacted, and without any content when `hidden`."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if isinstance(value, str):
        if not value:
            return "empty text"
        # Redact before cutting: half a secret might not be recognised any more.
        return f"text of {len(value)} characters" if hidden else repr(_shorten(redact(value)))
    if isinstance(value, int | float):
        if hidden:
            return "a number"
        # str() of a huge int raises; nobody needs its digits.
        return str(value) if isinstance(value, float) or abs(value) < 10**20 else "a huge number"
    return f"a {type(value).__name__}"


def suggestion(name: str, known: Collection[str]) -> str:
    """``did you mean 'x'?``, or the list of what is known."""
    close = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known here: {', '.join(sorted(known))}"


def check(model: type[ModelT], value: object, path: str, problems: Problems) -> tuple[ModelT | None, frozenset[str]]:
    """Check a mapping against a model, key by key, so that one bad key does not hide the mistakes in others.

    Parameters
    ----------
    model : type of BaseModel
        Each field's ``description`` says what is expected there; ``repr=False`` marks it hidden.
    value : object
        As it was read from YAML. Keys with nothing behind them (``readable:``) count as absent.
    path : str
        The key's path, for the messages.

    Returns
    -------
    model : instance or None
        With the defaults for broken keys; None when a required key is missing or broken, or it is no mapping.
    broken : frozenset of str
        The keys whose value was a mistake that is already noted: spare the reader what follows from it.
    """
    fields = model.model_fields
    if not isinstance(value, Mapping):
        problems.expected(path, value, f"a mapping with the keys {', '.join(fields)}", hidden=True)
        return None, frozenset(fields)
    known: dict[str, object] = {}
    for key, item in value.items():
        if isinstance(key, str) and key in fields:
            if item is not None:
                known[key] = item
        else:
            problems.unknown_key(path, key, tuple(fields))
    broken: set[str] = set()
    while True:
        try:
            return model.model_validate(known), frozenset(broken)
        except ValidationError as error:
            # No input values: pydantic would print them, secrets included.
            wrong = {str(item["loc"][0]) for item in error.errors(include_input=False, include_url=False)}
        missing = wrong - set(known)
        for key in sorted(wrong, key=list(fields).index):
            # A required key that was taken out as broken in an earlier round is not missing.
            if key not in broken:
                expectation = fields[key].description or "another value"
                problems.expected(f"{path}.{key}", known.get(key), expectation, hidden=not fields[key].repr)
        broken |= wrong
        if missing:
            return None, frozenset(broken)
        for key in wrong:
            del known[key]
