#!/usr/bin/env bash
# Prints the path of a Python that this project can use: 3.10, 3.11 or 3.12, with the modules `venv` and `ensurepip`.
#
# Order: $PYTHON if set (then nothing else), python3 if in range, then python3.11, python3.12, python3.10. Each
# candidate is really started: a version manager puts names on PATH that only answer "command not found".
set -euo pipefail

probe='
import sys
if not (3, 10) <= sys.version_info[:2] <= (3, 12):
    sys.exit("is Python %d.%d" % sys.version_info[:2])
try:
    import ensurepip, venv
except ImportError as error:
    sys.exit("has no module %s (Debian, Ubuntu: apt-get install python3-venv)" % error.name)
print(sys.executable)
'

refused=""
for candidate in ${PYTHON:-python3 python3.11 python3.12 python3.10}; do
    if ! command -v "$candidate" >/dev/null 2>&1; then
        refused+="  $candidate: not found"$'\n'
    elif answer=$("$candidate" -c "$probe" 2>&1); then
        printf '%s\n' "$answer" | tail -n 1
        exit 0
    else
        refused+="  $candidate: ${answer%%$'\n'*}"$'\n'
    fi
done

{
    echo "No usable Python. This project needs Python 3.10, 3.11 or 3.12 (3.10 is what vantage6's own images use)."
    echo "Tried:"
    printf '%s' "$refused"
    echo "Install one of them, or name it: make PYTHON=/path/to/python3.11 …"
} >&2
exit 1
