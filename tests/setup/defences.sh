#!/usr/bin/env bash
# Takes the defences away, one at a time, and shows that a test notices.
#
#   tests/setup/defences.sh [NAME...]    all of tests/faults/defences, or row_05, queue and such
#
# Each patch there removes one defence and names the test that must fail without it. The tree that
# is patched is a copy under target/defences, with a build of its own, so that nobody's work is
# touched. Prints one line per patch; not 0 if a test passed without its defence.
set -euo pipefail

cd "$(dirname "$0")/../.."
patches="$PWD/tests/faults/defences"
copy="$PWD/target/defences/tree"
export CARGO_TARGET_DIR="$PWD/target/defences/build"
log="$PWD/target/defences/last.log"
CARGO="${CARGO:-cargo}"
export GIT_CEILING_DIRECTORIES="$PWD/target/defences" # the copy is no part of the repository around it

header() { sed -n "s/^# $2: *//p" "$1" | head -n 1; }

# As it is committed: what a clean clone has.
fresh() {
  rm -rf "$copy"
  mkdir -p "$copy" "$(dirname "$log")"
  git archive HEAD | tar -x -C "$copy"
}

# Exit codes of cargo-nextest: 0 all passed, 100 a test failed, 4 no test of that name.
try() {
  local patch="$1" test code=0
  test="$(header "$patch" test)"
  (cd "$copy" && git apply "$patch") || return 1
  {
    cd "$copy" && "$CARGO" build --workspace --locked --quiet &&
      "$CARGO" nextest run --workspace --locked --no-fail-fast -E "$test"
  } >"$log" 2>&1 || code=$?
  cd "$copy" && git apply -R "$patch"
  cd - >/dev/null
  case "$code" in
    100)
      printf 'noticed   %s: %s\n' "$(basename "$patch" .patch)" "$(header "$patch" defence)"
      sed -n "s/^ *\(thread '.*panicked at .*\)/          \1/p" "$log" | head -n 1
      ;;
    0)
      printf 'UNNOTICED %s: %s\n' "$(basename "$patch" .patch)" "$test"
      return 1
      ;;
    *)
      printf 'BROKEN    %s: %s (see %s)\n' "$(basename "$patch" .patch)" "$test" "$log"
      return 1
      ;;
  esac
}

wanted=("${@:-}")
failed=0
tried=0
fresh
for patch in "$patches"/*.patch; do
  for name in "${wanted[@]}"; do
    case "$(basename "$patch" .patch)" in
      "$name"*)
        tried=$((tried + 1))
        try "$patch" || failed=$((failed + 1))
        break
        ;;
    esac
  done
done
printf '%s defences taken away, %s unnoticed or broken\n' "$tried" "$failed"
[ "$tried" -gt 0 ] && [ "$failed" -eq 0 ]
