#!/usr/bin/env bash
# Install aimock, the foreign provider that the cloud adapters are tested against, into build/aimock:
# Node comes with .venv, the package by the version and hash in tests/e2e/aimock/package-lock.json.
set -euo pipefail
cd "$(dirname "$0")/.."
from=tests/e2e/aimock into=build/aimock
if cmp -s "$from/package-lock.json" "$into/installed.json"; then
    exit 0
fi
rm -rf "$into"
mkdir -p "$into"
cp "$from/package.json" "$from/package-lock.json" "$into"
if ! PATH="$PWD/.venv/bin:$PATH" .venv/bin/npm ci --prefix "$into" \
    --ignore-scripts --no-audit --no-fund --loglevel error >"$into/npm.log" 2>&1; then
    tail -3 "$into/npm.log" >&2
    echo "aimock cannot be installed: npm's registry is not reached, or the lock does not fit." >&2
    exit 1
fi
cp "$from/package-lock.json" "$into/installed.json"
