#!/usr/bin/env bash
# Makes, once, the tree of another Debian: to boot its systemd over (`units --tree DIR`), or with a
# kernel of its own, for a virtual machine (`vm --tree DIR`).
#
#   tests/setup/tree.sh SUITE DIR           e.g. trixie target/trees/trixie
#   tests/setup/tree.sh SUITE DIR vm        e.g. trixie target/trees/trixie-vm vm; of bookworm, whose
#                                           kernel is old, without a QEMU: it runs in another tree's
#
# Needs root and mmdebstrap. A stamp over the packages and this script makes a second run a matter of
# milliseconds; remove DIR to get today's packages. Nothing is ever written to the tree afterwards: the
# box is a copy-on-write view of it, the machine's disk a copy.
set -euo pipefail

# What the checks use inside. libbpf1: systemd does without some directives where it is missing. The
# TPM's libraries are called otherwise before Debian 13 (64-bit times).
packages="systemd systemd-sysv dbus procps iproute2 util-linux libbpf1 libtss2-esys-3.0.2-0"
case "${1-}" in
  bookworm) packages="$packages libtss2-tctildr0 libtss2-tcti-device0" ;;
  *) packages="${packages}t64 libtss2-tctildr0t64 libtss2-tcti-device0t64" ;;
esac
# Podman with what it needs for containers of root's and of a user's, without networks.
in_a_box="libpam-systemd softhsm2 opensc strace swtpm podman crun uidmap"
# The cloud kernel is small and has the TPM's driver built in. The agent runs the checks' commands.
in_a_machine="linux-image-cloud-amd64 initramfs-tools udev kmod qemu-guest-agent"
# QEMU is run from outside: on processors that Debian 12's emulates, kernels end in a double fault.
case "${1-}" in
  bookworm) ;;
  *) in_a_machine="$in_a_machine tpm2-tools qemu-system-x86 seabios" ;;
esac

usage() { echo "usage: tree.sh SUITE DIR [vm]" >&2; exit 64; }
[ $# -ge 2 ] || usage
suite="$1" tree="$2"
case "${3-}" in
  '') packages="$packages $in_a_box" ;;
  vm) packages="$packages $in_a_machine" ;;
  *) usage ;;
esac
[ "$(id -u)" -eq 0 ] || { echo "tree.sh: needs root, to unpack a system" >&2; exit 77; }
command -v mmdebstrap >/dev/null || { echo "tree.sh: no mmdebstrap; apt-get install mmdebstrap" >&2; exit 69; }

stamp="$(echo "$suite" "$packages" | cat - "$0" | sha256sum | cut -d ' ' -f 1)"
mkdir -p "$(dirname "$tree")"
exec 9>"$tree.lock"          # two runs at once make one tree
flock 9
if [ "$(cat "$tree.stamp" 2>/dev/null || true)" = "$stamp" ]; then
  echo "ok        $suite            $tree"
  exit 0
fi
started="$SECONDS"
rm -rf --one-file-system "$tree" "$tree.new" "$tree.stamp"
include="$(tr -s ' \n' ',,' <<<"$packages" | sed 's/,*$//')"
mmdebstrap --quiet --variant=minbase --include="$include" "$suite" "$tree.new.tar"
mkdir -p "$tree.new"
tar -C "$tree.new" -xf "$tree.new.tar" --exclude='./dev/*'
rm "$tree.new.tar"
mv "$tree.new" "$tree"
echo "$stamp" >"$tree.stamp"
echo "installed $suite            $tree in $((SECONDS - started)) s"
