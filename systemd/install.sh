#!/usr/bin/env bash
# Installs, or removes, what `make build` made: programs, units, users, directories.
#
#   install.sh            PREFIX (default /usr) and DESTDIR (default empty) as usual
#   install.sh uninstall  keeps configuration, keys, audit log and users
#
# BUILD is the directory with the programs (default target/release). With a DESTDIR, as packagers
# use it, files are copied and nothing else; without one, users and directories are made and systemd
# reads its units again. Nothing is enabled or started: without a configuration there is nothing to
# serve. It must never touch /etc/assertd, /var/lib/assertd, /var/lib/assertd-keystore or what is published.
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
DESTDIR="${DESTDIR:-}"
PREFIX="${PREFIX:-/usr}"
BUILD="${BUILD:-$here/../target/release}"

programs=(assertd assertctl assertd-keystore-pkcs11 assertd-keystore-tpm assertd-witness assertd-courier assertd-publish)
bin="$DESTDIR$PREFIX/bin"
lib="$DESTDIR$PREFIX/lib"
share="$DESTDIR$PREFIX/share/assertd"

say() { printf '%-9s %s\n' "$1" "$2"; }
fail() { echo "install.sh: $1" >&2; exit "$2"; }

# Makes the directories above a file too. Paths of programs in a unit follow PREFIX.
copy() {
  local mode="$1" from="$2" to="$3"
  install -d -m 755 "$(dirname "$to")"
  case "$to" in
    *.service) sed "s|/usr/bin/assert|$PREFIX/bin/assert|g" "$from" | install -m "$mode" /dev/stdin "$to" ;;
    *) install -m "$mode" "$from" "$to" ;;
  esac
  say installed "${to#"$DESTDIR"}"
}

check_before_anything_is_copied() {
  local program
  for program in "${programs[@]}"; do
    [ -x "$BUILD/$program" ] || fail "no $program in $BUILD; run: make build" 66
  done
  if [ -z "$DESTDIR" ] && [ "$(id -u)" -ne 0 ]; then
    fail "not root; run: sudo make install (or give a DESTDIR)" 77
  fi
}

copy_everything() {
  local file
  for file in "${programs[@]}"; do copy 755 "$BUILD/$file" "$bin/$file"; done
  for file in "$here"/units/*; do copy 644 "$file" "$lib/systemd/system/${file##*/}"; done
  copy 644 "$here/sysusers.d/assertd.conf" "$lib/sysusers.d/assertd.conf"
  copy 644 "$here/tmpfiles.d/assertd.conf" "$lib/tmpfiles.d/assertd.conf"
  for file in "$here"/drop-ins/*; do copy 644 "$file" "$share/drop-ins/${file##*/}"; done
  copy 644 "$here/../docs/assertd.schema.json" "$share/assertd.schema.json"
}

systemd_runs() { [ -d /run/systemd/system ]; }

make_users_and_directories() {
  command -v systemd-sysusers >/dev/null || fail "no systemd-sysusers here; assertd's units need systemd 252 or newer" 69
  systemd-sysusers "$PREFIX/lib/sysusers.d/assertd.conf"
  say made "users assertd, assertd-pkcs11, assertd-tpm, assertd-witness, assertd-courier, assertd-publish, assertd-ship"
  systemd-tmpfiles --create "$PREFIX/lib/tmpfiles.d/assertd.conf"
  say made "directories /etc/assertd, /run/assertd, /var/lib/assertd-keystore, /var/lib/assertd-published"
  if systemd_runs; then
    systemctl daemon-reload
    say reloaded "systemd's units"
  else
    say skipped "systemctl daemon-reload: systemd does not run here"
  fi
}

say_what_is_next() {
  if [ -n "$DESTDIR" ]; then
    cat <<TEXT

Nothing of this system was changed. After $DESTDIR is in place, as root:
  systemd-sysusers $PREFIX/lib/sysusers.d/assertd.conf
  systemd-tmpfiles --create $PREFIX/lib/tmpfiles.d/assertd.conf
  systemctl daemon-reload
  assertctl init
TEXT
  else
    cat <<TEXT

Next, as root:
  assertctl init      finds the token, writes /etc/assertd/assertd.toml and the encrypted PIN
  assertctl check     says what is still missing
After an upgrade instead:
  systemctl try-restart 'assertd-keystore-*.service' assertd-witness.service assertd-courier.service assertd.service assertd-publish.service
TEXT
  fi
}

stop_everything() {
  [ -z "$DESTDIR" ] && systemd_runs || return 0
  local units=('assertd-keystore-*' assertd-witness.{service,socket} assertd-courier.{service,socket} assertd-publish.{service,socket} assertd-ship.{path,service}
    assertd.service assertd.socket assertd-admin.socket) link
  # Instances are enabled by name.
  for link in /etc/systemd/system/sockets.target.wants/assertd-keystore-*@*.socket; do
    [ ! -L "$link" ] || systemctl --quiet disable "${link##*/}"
  done
  systemctl --quiet disable assertd.socket assertd-admin.socket assertd-witness.socket assertd-courier.socket assertd-publish.socket \
    assertd-ship.path || true
  systemctl stop "${units[@]}" || true
  say stopped "assertd and its keystores"
}

remove_everything() {
  local file
  for file in "${programs[@]/#/$bin/}" "$here"/units/* "$lib/sysusers.d/assertd.conf" \
      "$lib/tmpfiles.d/assertd.conf"; do
    case "$file" in "$here"/units/*) file="$lib/systemd/system/${file##*/}" ;; esac
    [ -e "$file" ] || continue
    rm -f "$file"
    say removed "${file#"$DESTDIR"}"
  done
  rm -rf "$share"
  [ -n "$DESTDIR" ] || rmdir --ignore-fail-on-non-empty /run/assertd 2>/dev/null || true
  say removed "$PREFIX/share/assertd"
  if [ -z "$DESTDIR" ] && systemd_runs; then systemctl daemon-reload; fi
  cat <<'TEXT'

Kept, because only you can want them gone: /etc/assertd, /etc/credstore.encrypted/assertd.*,
/var/lib/assertd (the audit log), /var/lib/assertd-keystore (keys of some tokens), /var/lib/assertd-published,
/var/lib/assertd-ship, and the users assertd, assertd-pkcs11, assertd-tpm, assertd-witness, assertd-courier, assertd-publish and
assertd-ship.
TEXT
}

case "${1:-install}" in
  install)
    check_before_anything_is_copied
    copy_everything
    [ -n "$DESTDIR" ] || make_users_and_directories
    say_what_is_next
    ;;
  uninstall)
    if [ -z "$DESTDIR" ] && [ "$(id -u)" -ne 0 ]; then fail "not root; run: sudo make uninstall" 77; fi
    stop_everything
    remove_everything
    ;;
  *) echo "usage: install.sh [uninstall]" >&2; exit 64 ;;
esac
