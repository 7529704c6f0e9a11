#!/usr/bin/env bash
# Makes .venv, or brings it up to date: exactly what requirements.lock names, and this project in editable mode.
#
# Does nothing (and takes a few milliseconds) when requirements.lock, pyproject.toml and the Python are those of
# the last complete run; the stamp is written last, so an interrupted run is done again.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv
stamp=$venv/.installed

fingerprint() {
    "$venv/bin/python" - <<'PY'
import hashlib, pathlib, sys
digest = hashlib.sha256(sys.version.encode())
for name in ("requirements.lock", "pyproject.toml"):
    digest.update(pathlib.Path(name).read_bytes())
print(digest.hexdigest())
PY
}

usable() { # the interpreter behind the links may be gone, or be another one than was asked for
    [ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'import pip' 2>/dev/null || return 1
    [ -z "${PYTHON:-}" ] || [ "$(minor_version "$venv/bin/python")" = "$(minor_version "$PYTHON")" ]
}

minor_version() { "$1" -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null; }

if usable && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(fingerprint)" ]; then
    exit 0
fi

if ! usable; then
    python=$(bash scripts/find-python.sh)
    echo "Making $venv with $("$python" --version)"
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi
rm -f "$stamp"

# vantage6-node pins psutil 5.9.0, which has wheels for Python 3.10 only: say so before pip does in 200 lines
"$venv/bin/python" - <<'PY'
import importlib.util, os, shutil, sys, sysconfig
if sys.version_info >= (3, 11) and importlib.util.find_spec("psutil") is None:
    missing = [] if shutil.which(os.environ.get("CC", "gcc")) or shutil.which("cc") else ["a C compiler"]
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        missing.append("the Python headers (Python.h)")
    if missing:
        sys.exit(
            "Python %d.%d needs %s to build psutil 5.9.0, which vantage6-node pins.\n"
            "Debian, Ubuntu: apt-get install gcc libc6-dev python3-dev. Or use Python 3.10: make PYTHON=python3.10 …"
            % (*sys.version_info[:2], " and ".join(missing))
        )
PY

echo "Installing what requirements.lock names (some minutes the first time)"
# the lock is complete (pip check shows it below), so pip need not resolve; with hashes it could not: it takes
# "pyjwt[crypto]", which msal asks for, for another package than the pinned "pyjwt"
"$venv/bin/python" -m pip install --disable-pip-version-check -qq --no-deps --require-hashes -r requirements.lock
"$venv/bin/python" -m pip install --disable-pip-version-check -qq --no-deps -e .
"$venv/bin/python" -m pip check --disable-pip-version-check >/dev/null || {
    "$venv/bin/python" -m pip check --disable-pip-version-check >&2 || true
    echo "requirements.lock does not fit pyproject.toml: run 'make lock'" >&2
    exit 1
}
fingerprint >"$stamp"
