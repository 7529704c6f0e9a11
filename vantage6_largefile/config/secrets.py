"""Secrets: written literally, as ``${env:NAME}`` or as ``${file:/path}``, resolved while the configuration loads."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Mapping

from vantage6_largefile.config.problems import Mistake, describe

log = logging.getLogger(__name__)

_INDIRECT = re.compile(r"\$\{([A-Za-z_]+):(.*)\}\Z", re.DOTALL)
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
#: More than any secret, little enough to read without thought.
MAX_SECRET_BYTES = 64 * 1024

EXPECTED = "text, ${env:NAME} or ${file:/path}"


def resolve(value: object, *, path: str, environ: Mapping[str, str]) -> str:
    """The secret behind a configured value.

    Parameters
    ----------
    value : object
        Literal text, or exactly ``${env:NAME}`` or ``${file:/absolute/path}``. A ``$`` in any other place is
        part of a literal.
    path : str
        The key's path, for the warning about a file that everybody may read.
    environ : mapping
        The environment.

    Raises
    ------
    Mistake
        When there is nothing behind it. The text names variable and file, never their content.
    """
    if not isinstance(value, str):
        raise Mistake(f"found {describe(value, hidden=True)}, expected {EXPECTED} (numbers need quotes in YAML)")
    match = _INDIRECT.match(value)
    if match is None:
        secret, found = value, describe(value, hidden=True)
    elif match[1] == "env":
        secret, found = _from_environment(match[2], environ), f"the environment variable {match[2]}"
    elif match[1] == "file":
        secret, found = _from_file(match[2], path), f"the file {match[2]}"
    else:
        # Taken literally it would fail only later, as a wrong password, and nobody would see why.
        raise Mistake(f"found a value of the form ${{{match[1]}:…}}, expected {EXPECTED}")
    if not secret:
        raise Mistake(f"found {'nothing' if match is None else found + ' empty'}, expected {EXPECTED}")
    if not secret.isprintable():
        raise Mistake(f"found {found} with a line break or control character inside, expected one line of text")
    return secret


def _from_environment(name: str, environ: Mapping[str, str]) -> str:
    if not _ENV_NAME.match(name):
        raise Mistake("found ${env:…} without a proper variable name, expected ${env:NAME}")
    if name not in environ:
        raise Mistake(
            f"found ${{env:{name}}}, but no such environment variable is set here; for a node in a container it is "
            "passed in through node_extra_env"
        )
    return environ[name]


def _from_file(name: str, path: str) -> str:
    if not os.path.isabs(name) or not name.isprintable():
        raise Mistake("found ${file:…} without an absolute path, expected ${file:/path}")
    shown = f"${{file:{name}}}"
    try:
        # O_NONBLOCK: a FIFO in that place must not hang the start.
        with open(os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise Mistake(f"found {shown}, which is not a regular file")
            content = stream.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise Mistake(
            f"found {shown}, which cannot be read ({error.strerror}); for a node in a container it is mounted through "
            "node_extra_mounts"
        ) from None
    if len(content) > MAX_SECRET_BYTES:
        raise Mistake(f"found {shown}, which holds more than {MAX_SECRET_BYTES} bytes and cannot be a secret")
    if status.st_mode & stat.S_IROTH:
        log.warning("%s: every user of this machine may read the secret file %s; chmod 600 or 640 it", path, name)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise Mistake(f"found {shown}, which is not text in UTF-8") from None
    return text.removesuffix("\n").removesuffix("\r")
