#!/usr/bin/env bash
# Resolve requirements/*.in for Python 3.11 and 3.12 into hashed locks. Pins that still fit stay:
# `make lock UPGRADE=1` takes the newest of everything.
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch"
"$scratch/bin/pip" install --quiet --disable-pip-version-check uv
compile() {
    local name=$1 overrides=$2
    shift 2
    "$scratch/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --custom-compile-command "make lock" ${UPGRADE:+--upgrade} \
        --overrides "requirements/$overrides" "$@" "requirements/$name.in" \
        --output-file "requirements/$name.txt"
}
compile dev overrides.txt
compile run overrides.txt --constraints requirements/dev.txt
compile triton triton-overrides.txt
