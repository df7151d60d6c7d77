# shellcheck shell=bash disable=SC2034,SC2154  # names are shared with run.sh and stage.sh
# The demo's keys in a PKCS#11 token: SoftHSM. Sourced by run.sh, which says when.

readonly TOKEN=assertd-demo
readonly HOLDER=token                    # what the story calls it

# Everything that this keystore needs, and the module.
keystore_present() {
  for module in /usr/lib/softhsm/libsofthsm2.so /usr/lib/*/softhsm/libsofthsm2.so \
      /usr/lib64/softhsm/libsofthsm2.so /usr/lib64/pkcs11/libsofthsm2.so; do
    [ ! -e "$module" ] || return 0
  done
  die "no libsofthsm2.so; run: make demo"
}

keystore_version() { echo "SoftHSM $(softhsm2-util --version)"; }

keystore_make() {
  local so_pin pin
  title "A token, in which the private keys will be made"
  install -d -m 0700 -o "$daemon" -g "$daemon" tokens
  so_pin="$(head -c 8 /dev/urandom | od -An -tx1 | tr -d ' \n')"
  pin="$(head -c 8 /dev/urandom | od -An -tx1 | tr -d ' \n')"
  printf 'directories.tokendir = %s/tokens\nlog.level = ERROR\n' "$stage" >softhsm2.conf
  install -m 0400 -o "$daemon" -g "$daemon" <(printf '%s\n' "$pin") pin
  chmod 0644 softhsm2.conf
  tool=(env "SOFTHSM2_CONF=$stage/softhsm2.conf" "SO_PIN=$so_pin" "PIN=$pin"
    pkcs11-tool --module "$module")
  prompt daemon "pkcs11-tool --init-token --label $TOKEN --so-pin env:SO_PIN"
  ask daemon "${tool[@]}" --init-token --slot-index 0 --label "$TOKEN" --so-pin env:SO_PIN
  must_exit 0 "the token cannot be made"
  indent <<<"$OUT"
  ask daemon "${tool[@]}" --token-label "$TOKEN" --login --login-type so --so-pin env:SO_PIN \
    --init-pin --pin env:PIN
  must_exit 0 "the token's PIN cannot be set"
  say "Here it is SoftHSM; an HSM differs by the path of its module. The PIN is in a file that only
user $daemon can read, and assertd's keystore process runs as that user."
}

# The lines of its section.
keystore_section() {
  cat <<END
backend = "pkcs11"
module = "$module"
token = { label = "$TOKEN" }
pin = { file = "$stage/pin" }
environment = { SOFTHSM2_CONF = "$stage/softhsm2.conf" }
module_state = ["$stage/tokens"]           # the only place where SoftHSM may write
END
}

keystore_shows() {
  say "What another program sees in the token: the private key can sign and cannot be taken out."
  prompt daemon "pkcs11-tool --login --list-objects --type privkey | grep -A 3 payments/bank"
  ask daemon "${tool[@]}" --token-label "$TOKEN" --login --pin env:PIN --list-objects --type privkey
  must_exit 0 "the token's keys cannot be listed"
  grep -A 3 payments/bank <<<"$OUT" | indent
  [ "$(grep -c 'never extractable' <<<"$OUT")" -eq 3 ] || fail "not three keys that never leave"
}

# Nothing that the story has not told already.
keystore_ends() { :; }
