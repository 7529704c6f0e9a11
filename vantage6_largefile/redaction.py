"""One place that keeps secrets out of the logs (design: section 5).

Nothing of ours logs a secret on purpose. This is for what others do: an SDK that logs the URL it asked for, an HTTP
library at DEBUG level, a traceback whose exception text quotes a connection string.

:func:`install` hooks into :func:`logging.setLogRecordFactory`. A filter on a logger sees only what is logged on that
very logger, not what propagates to it from its children, and a filter on a handler misses every handler that is
added later (vantage6 and its web servers configure logging at several moments). Every record of the process is born
in the factory, so what is cleaned there is clean for all handlers, present and future.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable
from typing import Any

#: What stands where a secret stood.
MASK = "[redacted]"

# A value ends at white space or at what closes it in a URL, a header, a connection string, JSON or a dict's repr.
_VALUE = r"[^\s&;,'\"<>{}\\]+"
_NAMES = (
    "client[_-]?secret|client[_-]?assertion|access[_-]?token|refresh[_-]?token|id[_-]?token|account[_-]?key|"
    "session[_-]?token|security[_-]?token|secret[_-]?access[_-]?key|api[_-]?key|connection[_-]?string|password"
)

# The name of a secret with what stands between it and its value, lists and sets included.
_NAMED = rf"(?:{_NAMES})[\"']?\s*[=:]\s*[\[({{]*"

# Of every match, the lower-case text contains one of the hints. They are looked for first: substring searches cost
# next to nothing, and almost no log line has a hint.
_NAME_HINTS = ("secret", "assertion", "token", "key", "connection", "password")
_PATTERNS: tuple[tuple[tuple[str, ...], re.Pattern[str], str], ...] = (
    # The signature of a SAS; also where the whole query was percent-encoded once more.
    (
        ("sig=", "sig%3d", "signature=", "signature%3d"),
        re.compile(rf"(?i)((?:(?<![a-z0-9_])|(?<=%26)|(?<=%3f))sig(?:nature)?(?:=|%3d)){_VALUE}"),
        rf"\1{MASK}",
    ),
    # Authorization headers of Entra ID, vantage6 and storage.
    (("bearer",), re.compile(r"(?i)\b(Bearer\s+)[A-Za-z0-9._~+/=-]{16,}"), rf"\1{MASK}"),
    (
        ("authorization",),
        re.compile(r"(?i)(Authorization[\"']?\s*[:=]\s*[\"']?Basic\s+)[A-Za-z0-9+/=]+"),
        rf"\1{MASK}",
    ),
    (("sharedkey",), re.compile(r"\b(SharedKey(?:Lite)?\s+[A-Za-z0-9_-]+:)[A-Za-z0-9+/=]+"), rf"\1{MASK}"),
    # Compact JWT and JWE: the header is base64url of '{"…', which always begins with eyJ.
    (("eyj",), re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*){2,4}"), MASK),
    # The first word behind an opening quote, for itself: where a text was cut, a value's own quote is missing, and what
    # would pass for it is the opening quote of the next secret.
    (_NAME_HINTS, re.compile(rf"(?i)({_NAMED}['\"])[^\s'\"\\]+"), rf"\1{MASK}"),
    # name=value, "name": "value", 'name': ['value']. A quoted value ends at its own quote, or where the text was cut;
    # a quote behind a backslash does not end it, however many backslashes a repr of a repr has put there.
    (_NAME_HINTS, re.compile(rf'(?i)({_NAMED})"[^"]*(?:(?<=\\)"[^"]*)*(?:"|\Z)'), rf'\1"{MASK}"'),
    (_NAME_HINTS, re.compile(rf"(?i)({_NAMED})'[^']*(?:(?<=\\)'[^']*)*(?:'|\Z)"), rf"\1'{MASK}'"),
    # Without quotes; our own messages about such a key ("client_secret: found nothing, …") stay readable, and so
    # does what pydantic has masked.
    (
        _NAME_HINTS,
        re.compile(
            rf"(?i)((?:{_NAMES})[\"']?\s*(?:=|%3d|:\s)\s*)(?![\"']|found |unknown key;|SecretStr\(){_VALUE}",
        ),
        rf"\1{MASK}",
    ),
    # user:password@ in the URL of a proxy or database.
    (("@",), re.compile(r"(://[^\s/:@'\"]*:)[^\s/@'\"]+(?=@)"), rf"\1{MASK}"),
    # Connection strings. Base64 keys contain '=' and '/', and a SAS contains '&': only ';' or white space ends them.
    # They come last, because such a value would swallow the name of the secret behind it.
    (
        ("accountkey", "sharedaccess"),
        re.compile(r"(?i)((?:AccountKey|SharedAccessKey|SharedAccessSignature)\s*=\s*)[^\s;'\"<>]+"),
        rf"\1{MASK}",
    ),
)


def redact(text: str) -> str:
    """`text` with every secret that can be recognised by its form replaced by :data:`MASK`.

    Recognised are ``sig=`` of a SAS, ``AccountKey=``, ``SharedAccessSignature=``, ``Bearer``, ``Basic`` and
    ``SharedKey`` headers, compact JWT and JWE, ``client_secret`` and its like, and passwords in URLs. A secret that
    stands alone, without such a mark, cannot be recognised. Doing it twice changes nothing more. Linear in `text`.
    """
    lowered = text.lower()
    for hints, pattern, replacement in _PATTERNS:
        if any(hint in lowered for hint in hints):
            text = pattern.sub(replacement, text)
    return text


def redact_record(record: logging.LogRecord) -> None:
    """Redact message, arguments, traceback and stack of a record, in place; a clean record is left as it is.

    Where something was found, the arguments are folded into the message and the traceback into ``exc_text``, so
    that no handler can format the originals again.
    """
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001
        # Anything can come out of a foreign __str__. For arguments that do not fit the format logging itself would
        # print them raw to stderr; here the mistake is made visible in the line instead, without their values.
        text = record.msg if isinstance(record.msg, str) else f"an object of type {type(record.msg).__name__}"
        record.msg = redact(f"{text} (the arguments of this message do not fit it)")
        record.args = None
    else:
        clean = redact(message)
        if clean != message:
            record.msg, record.args = clean, None
    if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
        text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        clean = redact(text)
        if clean != text:
            # With exc_info left in place, a handler with a formatter of its own would format the original.
            record.exc_text, record.exc_info = clean, None
    elif record.exc_text:
        record.exc_text = redact(record.exc_text)
    if record.stack_info:
        record.stack_info = redact(record.stack_info)


class RedactionFilter(logging.Filter):
    """Redacts every record that passes and lets all of them through.

    For handlers that receive records which were not born in this process (socket or queue listeners). For all
    others :func:`install` is enough.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact `record` in place; always True."""
        redact_record(record)
        return True


class _RedactingFactory:
    """A record factory around the one that was set before."""

    def __init__(self, inner: Callable[..., logging.LogRecord]) -> None:
        self.inner = inner

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self.inner(*args, **kwargs)
        redact_record(record)
        return record


def install() -> None:
    """Redact every record that is logged in this process from now on, whatever handlers exist or will.

    Calling it again is harmless, and mends it when another library has set a record factory of its own meanwhile.
    Attributes that a caller adds by ``extra=`` are set after the factory and are not looked at.
    """
    current = logging.getLogRecordFactory()
    if not isinstance(current, _RedactingFactory):
        logging.setLogRecordFactory(_RedactingFactory(current))
