#!/usr/bin/env bash
# Builds kryoptic as a PKCS#11 module for the long conformance suite: two minutes the first time,
# nothing after that. `tests/setup/install.sh long` installs what it needs.
set -euo pipefail
cd "$(dirname "$0")/../kryoptic"
target="$(cd ../.. && pwd)/target/kryoptic"
"${CARGO:-cargo}" build --quiet --locked --target-dir "$target"
echo "kryoptic: $target/debug/libkryoptic.so"
