#!/usr/bin/env bash
# Installs what a Debian 12 with a Rust toolchain still lacks, and prints one line per thing.
#
#   tests/setup/install.sh demo    what `make demo` needs, for the keystore that KEYSTORE names
#   tests/setup/install.sh test    that and what `make test` needs (the default)
#   tests/setup/install.sh long    that and what `make test-long` needs
#
# Looks first and installs only what is missing, so a second run changes nothing. Without root it
# installs nothing and says what is missing. Never touches a Rust toolchain: that is the user's.
set -euo pipefail

# cargo-nextest runs each test in its own process, which PKCS#11 needs (tests/Cargo.toml). Pinned to
# a version that builds with the Rust we test with. It asks for Rust 1.91, our MSRV is for building.
NEXTEST_VERSION=0.9.143

what="${1:-test}"
case "$what" in
  demo | test | long) ;;
  *) echo "usage: install.sh [demo|test|long]" >&2; exit 64 ;;
esac
keystore="${KEYSTORE:-pkcs11}"
case "$keystore" in
  pkcs11 | tpm) ;;
  *) echo "install.sh: KEYSTORE=$keystore: there are pkcs11 and tpm" >&2; exit 64 ;;
esac

missing=()   # Debian packages
failed=0     # things that no package brings

say() { printf '%-9s %-17s %s\n' "$1" "$2" "$3"; }

# need PACKAGE REASON CHECK...: CHECK succeeds when the thing is there, whoever installed it.
need() {
  local package="$1" reason="$2"
  shift 2
  if "$@" >/dev/null 2>&1; then
    say ok "$package" "$reason"
  else
    say missing "$package" "$reason"
    missing+=("$package")
  fi
}

have() { command -v "$1"; }
have_file() { test -e "$1"; }
have_systemd() { test -x /usr/lib/systemd/systemd || test -x /lib/systemd/systemd; }
have_pam_systemd() {
  compgen -G '/usr/lib/*/security/pam_systemd.so' || compgen -G '/lib/*/security/pam_systemd.so' ||
    compgen -G '/usr/lib*/security/pam_systemd.so'
}
# A certificate store, wherever this system keeps it.
have_certificates() {
  test -e /etc/ssl/certs/ca-certificates.crt || test -e /etc/pki/tls/certs/ca-bundle.crt
}
have_softhsm() {
  have softhsm2-util || return 1
  local module
  for module in /usr/lib/softhsm/libsofthsm2.so /usr/lib/*/softhsm/libsofthsm2.so \
      /usr/lib64/softhsm/libsofthsm2.so /usr/lib64/pkcs11/libsofthsm2.so; do
    [ ! -e "$module" ] || return 0
  done
  return 1
}

have_softokn() {
  compgen -G '/usr/lib/*/libsoftokn3.so' || compgen -G '/usr/lib*/libsoftokn3.so'
}

# Not libclang-cpp, a library of its own.
have_libclang() {
  compgen -G '/usr/lib/llvm-*/lib/libclang[.-][0-9s]*' || compgen -G '/usr/lib*/libclang.so*'
}

have_tpm2_openssl() {
  compgen -G '/usr/lib/*/ossl-modules/tpm2.so' || compgen -G '/usr/lib*/ossl-modules/tpm2.so'
}

check_toolchain() {
  if ! have cargo >/dev/null; then
    say failed rust "no cargo in PATH; install a Rust toolchain (1.88 or newer) from https://rustup.rs"
    failed=1
    return
  fi
  say ok rust "$(cargo --version 2>&1 | head -n 1)"
  [ "$what" != demo ] || return 0
  local component
  for component in fmt clippy; do
    if cargo "$component" --version >/dev/null 2>&1; then
      say ok "cargo-$component" "$(cargo "$component" --version)"
    else
      say failed "cargo-$component" "missing; run: rustup component add rustfmt clippy"
      failed=1
    fi
  done
}

token_packages() {
  need softhsm2        "the PKCS#11 token of the demo and the tests"      have_softhsm
  need opensc          "pkcs11-tool, a second view of the token"          have pkcs11-tool
}

tpm_packages() {
  need pkg-config      "finds libtss2 for the TPM keystore"               have pkg-config
  need libtss2-dev     "the TPM 2.0 library: builds and runs that one"    pkg-config --exists tss2-esys tss2-tctildr
  need swtpm           "the TPM 2.0 of the demo and the tests"            have swtpm
  need tpm2-tools      "a second view of that TPM, and wrong uses of it"  have tpm2_getcap
}

# aws-lc-sys builds with the C compiler alone on x86_64 and aarch64 Linux: no cmake, no bindgen.
check_packages() {
  need gcc             "links Rust programs, builds the crypto library"  have cc
  need libc6-dev       "C headers and start files"                        have_file /usr/include/stdio.h
  need ca-certificates "lets cargo, pip and npm check who they talk to"   have_certificates
  need python3         "runs the verifiers"                               have python3
  need python3-venv    "keeps them out of the system"                     python3 -c 'import venv, ensurepip'
  need util-linux      "setpriv: workloads of different users"            have setpriv
  need procps          "ps"                                               have ps
  [ "$what:$keystore" = demo:tpm ] || token_packages
  [ "$what:$keystore" = demo:pkcs11 ] || tpm_packages
  [ "$what" != demo ] || return 0
  need make            "the commands of this repository"                  have make
  need git             "tests of what is committed"                       have git
  need iproute2        "ip: networks of our own for the tests"            have ip
  need curl            "sends the request that assertctl env prints"      have curl
  need strace          "counts and fails system calls in the tests"       have strace
  need openssl         "opens paddings, reads keys of the TPM"            have openssl
  need swtpm-tools     "gives that TPM the certificates of a maker"       have swtpm_setup
  need tpm2-openssl    "reads our key files, as others would"             have_tpm2_openssl
  need libnss3         "NSS softokn, a second PKCS#11 module"             have_softokn
  need libnss3-tools   "certutil, which makes its databases"              have certutil
  need systemd         "what the units are for; process 1 of a box"       have_systemd
  need systemd-container "boots that box: systemd-nspawn"                 have systemd-nspawn
  need dbus            "systemd-run and user managers in the box"         have dbus-daemon
  need libpam-systemd  "user managers in the box"                         have_pam_systemd
  [ "$what" = long ] || return 0
  need libclang-dev    "reads OpenSSL's headers for kryoptic"             have_libclang
  need libssl-dev      "OpenSSL, which kryoptic calculates with"          pkg-config --exists openssl
  need libsqlite3-dev  "the database of kryoptic's tokens"                pkg-config --exists sqlite3
  need mmdebstrap      "a Debian 13: its systemd, its kernel, its QEMU"   have mmdebstrap
  need e2fsprogs       "mke2fs: the disk of a virtual machine"            have mke2fs
}

install_packages() {
  [ "${#missing[@]}" -gt 0 ] || return 0
  if ! have apt-get >/dev/null; then
    say failed packages "no apt-get here; install the equivalents of: ${missing[*]}"
    exit 69
  fi
  if [ "$(id -u)" -ne 0 ]; then
    say failed packages "not root; run: sudo apt-get install --no-install-recommends ${missing[*]}"
    exit 77
  fi
  local log
  log="$(mktemp)"
  export DEBIAN_FRONTEND=noninteractive
  if ! { apt-get -q update && apt-get -q install -y --no-install-recommends "${missing[@]}"; } \
      >"$log" 2>&1 </dev/null; then
    tail -n 30 "$log" >&2
    say failed packages "apt-get could not install: ${missing[*]} (whole output: $log)"
    exit 69
  fi
  rm -f "$log"
  local package
  for package in "${missing[@]}"; do
    say installed "$package" "$(dpkg-query -W -f '${Version}' "$package")"
  done
}

# There is no prebuilt cargo-nextest in Debian, PyPI or npm, so it is built from crates.io. Without
# optimisation, which a test runner does not need, that takes a fraction of the time.
install_nextest() {
  if cargo nextest --version >/dev/null 2>&1; then
    say ok cargo-nextest "$(cargo nextest --version | head -n 1)"
    return
  fi
  say building cargo-nextest "$NEXTEST_VERSION from crates.io, once; a few minutes"
  CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=false \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=256 CARGO_PROFILE_RELEASE_DEBUG=0 \
    cargo install --quiet --locked cargo-nextest --version "$NEXTEST_VERSION" \
      --no-default-features --features default-no-update
  say installed cargo-nextest "$(cargo nextest --version | head -n 1)"
}

check_toolchain
check_packages
install_packages
[ "$failed" -eq 0 ] || exit 69
[ "$what" = demo ] || install_nextest
