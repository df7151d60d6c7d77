#!/usr/bin/env bash
# Runs the fuzz targets (tests/fuzz): libFuzzer and AddressSanitizer on the compiler that everything
# else is built with. Not part of the tests, which replay what is kept (tests/corpus).
#
#   tests/setup/fuzz.sh SECONDS [TARGET...]   each target so long, FUZZ_JOBS (1) at a time; all of them
#                                             if none is named. A line for each; fails on a finding
#   tests/setup/fuzz.sh keep [TARGET...]      what the runs found that is new goes into the corpus,
#                                             as few small files as show the same
#
# What a run finds is kept under target/fuzz: inputs in corpus/, crashes in crashes/. A crash goes
# into tests/fuzz/regressions/TARGET when it has been understood.
set -euo pipefail

# Newer ones may ask for a newer compiler.
CARGO_FUZZ_VERSION=0.13.2

# An input that takes longer, or allocates more at once, is a finding. The longest honest one takes
# a tenth of a second, on a machine that does other things.
TIMEOUT_S=30
MALLOC_MIB=64
RSS_MIB=4096

KEEP_MAX=200   # files of a corpus
KEEP_LEN=4096  # bytes of one

cd "$(dirname "$0")/../.."
fuzz=tests/fuzz
out="${CARGO_TARGET_DIR:-$PWD/target/fuzz}"
cargo="${CARGO:-cargo}"
jobs="${FUZZ_JOBS:-1}"

say() { echo "fuzz: $*" >&2; }

usage() { echo "usage: fuzz.sh SECONDS|keep [TARGET...]" >&2; exit 64; }

install_cargo_fuzz() {
  command -v c++ >/dev/null || { say "no C++ compiler, which builds libFuzzer; apt-get install g++"; exit 69; }
  "$cargo" fuzz --version >/dev/null 2>&1 && return
  say "installing cargo-fuzz $CARGO_FUZZ_VERSION, the first time"
  "$cargo" install --quiet --locked cargo-fuzz --version "$CARGO_FUZZ_VERSION"
}

# The sanitizer is a flag that a stable compiler knows and does not let one use, but for this.
build() {
  RUSTC_BOOTSTRAP=1 RUSTC_WRAPPER="$PWD/tests/setup/fuzz-rustc.sh" CARGO_TARGET_DIR="$out" "$cargo" fuzz build --fuzz-dir "$fuzz" >"$out/build.log" 2>&1 ||
    { cat "$out/build.log" >&2; exit 1; }
  programs="$out/$(rustc -vV | sed -n 's/^host: //p')/release"
}

# tpm2-tss writes every refusal of the TPM to standard error. A state directory in memory costs no
# disk its syncs. Looking for leaks takes longer than most inputs, and finds what threads
# have that sleep, and the 140 bytes that tpm2-tss 3.2.1 loses over a spoilt TPM2_ReadPublic; a leak that
# matters ends a run by its RSS.
libfuzzer() {
  local target="$1" scratch=/tmp own=()
  shift
  if [ -w /dev/shm ]; then scratch=/dev/shm; fi
  # Slow, so that it would take hours until its inputs are as long as a conversation.
  if [ "$target" = tpm_response ]; then own=(-len_control=0 -max_len=512); fi
  TMPDIR="$scratch" TSS2_LOG=all+NONE ASAN_OPTIONS=detect_odr_violation=0:detect_leaks=0 nice -n 19 "$programs/$target" \
    -timeout="$TIMEOUT_S" -malloc_limit_mb="$MALLOC_MIB" -rss_limit_mb="$RSS_MIB" "${own[@]}" "$@"
}

# Runs one target and says what came of it.
run() {
  local target="$1" seconds="$2" status=0
  local log="$out/$target.log" found="$out/corpus/$target" crashes="$out/crashes/$target"
  mkdir -p "$found" "$crashes"
  libfuzzer "$target" -max_total_time="$seconds" -print_final_stats=1 -artifact_prefix="$crashes/" \
    "$found" "$fuzz/corpus/$target" >"$log" 2>&1 || status=$?
  local executions coverage
  executions="$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
  coverage="$(grep -o 'cov: [0-9]* ft: [0-9]* corp: [0-9]*' "$log" | tail -n 1 || true)"
  printf '%-15s %10s executions in %s s, %s, crashes: %s\n' "$target" "${executions:-?}" "$seconds" \
    "${coverage:-no coverage}" "$(find "$crashes" -type f ! -name 'slow-unit-*' | wc -l)"
  [ "$status" -eq 0 ] || { say "$target ended with $status: see $log"; return 1; }
}

# The seeds, and of all others the few that reach most.
keep() {
  local target="$1" merged
  merged="$(mktemp -d)"
  mkdir -p "$out/corpus/$target"
  libfuzzer "$target" -set_cover_merge=1 -use_counters=0 -max_len="$KEEP_LEN" \
    -merge_control_file="$merged.control" "$merged" "$fuzz/corpus/$target" "$out/corpus/$target" \
    >"$out/$target.keep.log" 2>&1
  python3 tests/setup/fuzz-keep.py "$merged.control" "$fuzz/corpus/$target" "$KEEP_MAX"
  rm -r "$merged" "$merged.control"
}

[ $# -ge 1 ] || usage
what="$1"
shift
[[ "$what" == keep || "$what" =~ ^[0-9]+$ ]] || usage
mkdir -p "$out"
install_cargo_fuzz
mapfile -t all < <("$cargo" fuzz list --fuzz-dir "$fuzz")
if [ $# -eq 0 ]; then set -- "${all[@]}"; fi
for target in "$@"; do
  [[ " ${all[*]} " == *" $target "* ]] || { say "no target $target; there are: ${all[*]}"; exit 64; }
done
build

failed=0
for target in "$@"; do
  if [ "$what" = keep ]; then keep "$target"; continue; fi
  while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || failed=1; done
  run "$target" "$what" &
done
while [ "$(jobs -rp | wc -l)" -gt 0 ]; do wait -n || failed=1; done
exit "$failed"
