#!/usr/bin/env bash
# Writes requirements.lock from pyproject.toml: everything for development, one file for Python 3.10 and later, with hashes.
#
#   scripts/lock.sh            resolve again, keeping the versions that still fit
#   scripts/lock.sh --upgrade  resolve again, taking the newest of everything (further arguments go to uv)
#   scripts/lock.sh --check    only look whether the committed file is clean
#
# No address of a package index and no path of this machine may get into the file: it is installed elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."

check() {
    local bad
    if bad=$(grep -nE '://|^[[:space:]]*(-i|-f|--(extra-)?index-url|--find-links|--trusted-host)([[:space:]=]|$)|@ |(^|[^A-Za-z0-9._-])/[A-Za-z]' "$1"); then
        printf '%s: an address or a path of this machine:\n%s\n' "$1" "$bad" >&2
        return 1
    fi
}

if [ "${1:-}" = --check ]; then
    check requirements.lock
    exit
fi

if [ -x .venv/bin/uv ]; then
    uv=(.venv/bin/uv)
elif command -v uv >/dev/null 2>&1 && uv --version >/dev/null 2>&1; then
    uv=(uv)
elif python3 -m uv --version >/dev/null 2>&1; then
    uv=(python3 -m uv)
else
    echo "uv is not here: run 'make venv', or pip install uv" >&2
    exit 1
fi

new=$(mktemp)
trap 'rm -f "$new"' EXIT
# what is locked now is preferred, unless --upgrade
[ ! -f requirements.lock ] || cp requirements.lock "$new"
# UV_NO_CONFIG and no PIP_/UV_ index variables: the file must not depend on how this machine is set up
env -u UV_INDEX -u UV_DEFAULT_INDEX -u UV_INDEX_URL -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS \
    UV_NO_CONFIG=1 UV_PYTHON_DOWNLOADS=never \
    "${uv[@]}" pip compile --quiet --universal --python-version 3.10 --extra dev --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-header --output-file "$new" "$@" pyproject.toml >/dev/null
sed -i '/^# /d' "$new"
check "$new"
{
    echo "# Made by 'make lock' from pyproject.toml (with the extra 'dev'). Do not edit."
    # pip, checking hashes, takes "pyjwt[crypto]" for another package than the "pyjwt" that is pinned
    echo "# Complete, so install it as: pip install --no-deps --require-hashes -r requirements.lock"
    cat "$new"
} >requirements.lock
echo "requirements.lock: $(grep -c '==' requirements.lock) packages"
