#!/usr/bin/env bash
# Changes the code that decides who may have what, what is in it and who waits for whom, one place at
# a time, and shows what no test notices.
#
#   tests/setup/mutants.sh [FILE...]    all of the files below, or these
#
# TESTS="queue:: reuse::" in the environment runs the tests with these words alone: for a few files
# that is faster, and a survivor more is all that it can cost.
#
# cargo-mutants makes the changes (`a && b` into `a || b`, a function into its simplest answer). It
# works in a copy of its own, so that nobody's work is touched, and leaves its findings in
# target/mutants. Only the library's own tests of these modules run, so that one mutant takes seconds
# and the answer is about them. What survives is either a test that is missing or stands in
# tests/setup/mutants.txt with the reason; anything else makes this exit with 1.
set -euo pipefail

cd "$(dirname "$0")/../.."
CARGO="${CARGO:-cargo}"
VERSION=27.1.0 # Debian has none
explained="$PWD/tests/setup/mutants.txt"
out="$PWD/target/mutants"

files=("$@")
[ "${#files[@]}" -gt 0 ] || files=(
  broker/src/policy.rs broker/src/policy/*.rs
  broker/src/selector.rs broker/src/selector/*.rs
  broker/src/workload.rs broker/src/workload/{proc,program,session,unattested,unit}.rs
  broker/src/peer.rs broker/src/denylist.rs
  broker/src/config/resolve/bounds.rs
  broker/src/queue.rs broker/src/queue/fair.rs broker/src/reuse.rs broker/src/terms.rs
  broker/src/profile.rs broker/src/profile/*.rs broker/src/claims.rs
)

if ! "$CARGO" mutants --version >/dev/null 2>&1; then
  echo "mutants.sh: no cargo-mutants; run: cargo install --locked cargo-mutants --version $VERSION" >&2
  exit 69
fi

# Words of the tests, not of the files: what decides is tested where it is used as well.
tests="policy:: selector:: workload:: config:: peer:: denylist::"
tests+=" queue:: keystores:: reuse:: terms:: profile:: claims::"
read -ra tests <<<"${TESTS:-$tests}"
arguments=()
for file in "${files[@]}"; do
  arguments+=(--file "$file")
done

mkdir -p "$out"
code=0
# --lib for building too: programs and integration tests would take most of the time.
"$CARGO" mutants --package broker "${arguments[@]}" --output "$out" --jobs 1 --timeout 120 \
  --no-shuffle --colors never --cargo-arg=--locked --cargo-arg=--lib -- -- "${tests[@]}" || code=$?
case "$code" in
  0 | 2 | 3) ;; # all caught, some missed, some without end
  *) exit "$code" ;;
esac

# Survivors without line and column, which change with every edit.
place() { sed 's/:[0-9]*:[0-9]*: /: /' "$@" | sort -u; }
reasons() { sed -n 's/^\([^#].*\) -- .*/\1/p' "$explained" | sort -u; }
unexplained="$(comm -23 <(place "$out/mutants.out/missed.txt") <(reasons))"
if [ -n "$unexplained" ]; then
  printf 'survives, and nobody said why:\n%s\n' "$unexplained" >&2
  exit 1
fi
echo "every survivor is explained in tests/setup/mutants.txt"
