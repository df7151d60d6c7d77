#!/usr/bin/env bash
# The compiler for fuzz targets (RUSTC_WRAPPER in fuzz.sh): leaves the fuzzer's counters out of crates
# that only calculate or match patterns. What happens in them says nothing about our code, and counting
# it makes an input ten times as slow. AddressSanitizer stays everywhere.
set -euo pipefail
rustc="$1"
shift
if [[ " $* " =~ \ --crate-name\ (regex.*|aho_corasick|memchr|sha2|hmac|rfc6979|p256|primeorder|primefield|ecdsa|elliptic_curve|crypto_bigint)\  ]]; then
  kept=()
  for argument in "$@"; do
    [[ "$argument" == *sancov* || "$argument" == *-sanitizer-coverage-* ]] || kept+=("$argument")
  done
  set -- "${kept[@]}"
fi
exec "$rustc" "$@"
