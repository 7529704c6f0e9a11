#!/usr/bin/env bash
# Installs Azurite (an emulator of Azure Blob Storage) into .cache/azurite, where the tests and the demo look for it.
#
# Without npm, or when V6LF_AZURITE names one already, it says so and leaves well: tests that need Azurite are then
# skipped with a reason. With CI=true a missing npm is an error.
set -euo pipefail
cd "$(dirname "$0")/.."

version=3.35.0
folder=.cache/azurite
stamp=$folder/.installed-$version

if [ -n "${V6LF_AZURITE:-}" ] || [ -f "$stamp" ]; then
    exit 0
fi
if ! command -v npm >/dev/null 2>&1; then
    echo "npm is not here: Azurite is not installed, and what needs it is left out (install Node.js 18 or later)." >&2
    [ "${CI:-}" != true ] || exit 1
    exit 0
fi
echo "Installing Azurite $version into $folder"
mkdir -p "$folder"
npm install --prefix "$folder" --no-save --no-package-lock --no-audit --no-fund --loglevel=error "azurite@$version"
[ -x "$folder/node_modules/.bin/azurite-blob" ]
touch "$stamp"
