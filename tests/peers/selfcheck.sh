#!/usr/bin/env bash
# Proves that the peers refuse what they must refuse, before any test relies on it. See selfcheck.py.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
peers="${ASSERTD_PEERS:-$here/../../target/peers}"
NODE="$peers/bin/node" exec "$peers/venv/bin/python" "$here/selfcheck.py"
