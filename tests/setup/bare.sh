#!/usr/bin/env bash
# Runs a command in a bare Debian 12 with this machine's Rust toolchain and a fresh clone of HEAD:
# the proof that this repository's own files install all that it needs.
#
#   tests/setup/bare.sh [--reuse] TREE 'make demo'
#
# TREE is made anew (or, with --reuse, kept with what an earlier run installed and built there, and
# only the clone brought up to HEAD). Needs root and mmdebstrap. The unpacked base system is cached as
# TREE.base.tar, or as ASSERTD_BARE_BASE says; remove that file to get today's packages.
#
# At first the tree holds Debian's minbase and make. From outside come the toolchain (mounted read-only)
# and this machine's way to its package registries: apt's sources, certificates, the clients' own
# configuration. All mounts and processes live in namespaces of their own and end with the command,
# however it ends. The network is this machine's.
set -euo pipefail

usage() { echo "usage: bare.sh [--reuse] TREE COMMAND" >&2; exit 64; }
reuse=no
if [ "${1:-}" = --reuse ]; then reuse=yes; shift; fi
[ $# -eq 2 ] || usage
[ "$(id -u)" -eq 0 ] || { echo "bare.sh: needs root, to mount and to chroot" >&2; exit 77; }
command -v mmdebstrap >/dev/null || { echo "bare.sh: no mmdebstrap; apt-get install mmdebstrap" >&2; exit 69; }

repository="$(cd "$(dirname "$0")/../.." && pwd)"
tree="$(realpath -m "$1")"
command="$2"
base="${ASSERTD_BARE_BASE:-$tree.base.tar}"
marker="$tree/.assertd-bare"
clone=/root/assertd

say() { echo "bare: $*" >&2; }

make_tree() {
  if [ -e "$tree" ] && [ ! -e "$marker" ] && [ -n "$(ls -A "$tree")" ]; then
    say "$tree is not empty and not ours; not removing it"
    exit 73
  fi
  rm -rf --one-file-system "$tree"
  if [ ! -e "$base" ]; then
    say "making the base system $base"
    mkdir -p "$(dirname "$base")"
    mmdebstrap --quiet --variant=minbase --include=make bookworm "$base.new.tar"
    mv "$base.new.tar" "$base"
  fi
  mkdir -p "$tree"
  touch "$marker"
  tar -C "$tree" -xf "$base" --exclude='./dev/*'
}

# Copied at run time from the machine that runs this; nothing of it is ours to publish.
copy_registry_access() {
  local path
  for path in /etc/resolv.conf /etc/hosts /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources \
      /etc/ssl/certs/ca-certificates.crt /usr/local/share/ca-certificates /etc/pip.conf \
      /root/.config/pip /root/.npmrc /root/.cargo/config.toml; do
    [ -e "$path" ] || continue
    mkdir -p "$tree$(dirname "$path")"
    rm -rf "${tree:?}$path"
    cp -RL "$path" "$tree$path"
  done
  # mmdebstrap wrote its own list; two of them would only make apt warn.
  [ ! -e "$tree/etc/apt/sources.list.d/debian.sources" ] || rm -f "$tree/etc/apt/sources.list"
}

clone_repository() {
  if [ -d "$tree$clone/.git" ]; then
    git -C "$tree$clone" fetch --quiet "$repository" HEAD
    git -C "$tree$clone" checkout --quiet --force --detach FETCH_HEAD
  else
    git clone --quiet --no-hardlinks "$repository" "$tree$clone"
  fi
  say "clone of $(git -C "$tree$clone" log -1 --format='%h %s')"
}

# Variables by which clients find certificates and proxies; no others enter.
environment() {
  env | grep -E '^([A-Z_]*(CERT|CA_BUNDLE|CA_CERTS|CAINFO|CERT_FILE|CERT_DIR)[A-Z_]*|[A-Za-z_]*_(proxy|PROXY)|PIP_DEFAULT_TIMEOUT|CARGO_NET_[A-Z_]*|CARGO_HTTP_[A-Z_]*|CI)=' || true
}

# Runs as PID 1 of its own PID namespace, in its own mount namespace.
# shellcheck disable=SC2016  # expanded inside
inside='
  set -euo pipefail
  tree="$1" toolchain="$2" clone="$3" command="$4"
  shift 4
  mkdir -p "$tree"/{proc,sys,dev,run,tmp,opt/rust}
  mount -t proc proc "$tree/proc"
  mount -t sysfs -o ro sysfs "$tree/sys"
  mount -t cgroup2 cgroup2 "$tree/sys/fs/cgroup"
  mount --rbind /dev "$tree/dev"
  mount -t tmpfs -o mode=0755 tmpfs "$tree/run"
  mount -t tmpfs -o mode=1777 tmpfs "$tree/tmp"
  mount --bind "$toolchain" "$tree/opt/rust"
  mount -o remount,bind,ro "$tree/opt/rust"
  status=0
  env -i HOME=/root LANG=C.UTF-8 TERM="${TERM:-dumb}" \
    PATH=/root/.cargo/bin:/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    "$@" chroot "$tree" bash -c "cd $clone && $command" </dev/null || status=$?
  exit "$status"
'

if [ "$reuse" = no ] || [ ! -e "$marker" ]; then make_tree; fi
copy_registry_access
clone_repository
mapfile -t variables < <(environment)
started="$SECONDS"
status=0
unshare --mount --propagation private --pid --fork --kill-child -- \
  bash -c "$inside" inside "$tree" "$(rustc --print sysroot)" "$clone" "$command" "${variables[@]}" || status=$?
say "exit $status after $((SECONDS - started)) s"
exit "$status"
