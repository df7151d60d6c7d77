# shellcheck shell=bash disable=SC2034,SC2154  # names are shared with run.sh and stage.sh
# The demo's keys in a TPM 2.0: swtpm, a TPM in software, as a process and a user of its own.
# Sourced by run.sh, which says when.

ROLES+=(tpm)
readonly HOLDER=TPM                      # what the story calls it
readonly TPM_STARTS=5                    # two ports that were free may be taken a moment later
key_file="" printed="" key_files=()
readonly KEY_ATTRIBUTES="fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign"

keystore_present() {
  local program
  for program in swtpm tpm2_print tpm2_load tpm2_sign; do
    command -v "$program" >/dev/null || die "no $program; run: make demo KEYSTORE=tpm"
  done
}

keystore_version() {
  swtpm --version | head -n 1
  tpm2_print --version | tr ' ' '\n' | sed -n 's/^version="\(.*\)"$/tpm2-tools \1/p'
}

# Both of its ports; each connection is closed at once.
tpm_listens() {
  (: <>"/dev/tcp/127.0.0.1/$tpm_port" <>"/dev/tcp/127.0.0.1/$((tpm_port + 1))") 2>/dev/null
}
tpm_listens_or_is_gone() { tpm_listens || gone "${pids[swtpm]}"; }

keystore_make() {
  local attempt tpm
  title "A TPM, in which the private keys will be made"
  tpm="$(name_of tpm)"
  install -d -m 0700 -o "$tpm" -g "$tpm" tpm
  for attempt in $(seq "$TPM_STARTS"); do
    tpm_port="$(look ports)"
    start swtpm tpm swtpm socket --tpm2 --flags not-need-init,startup-clear \
      --tpmstate "dir=$stage/tpm,mode=0600" \
      --server "type=tcp,bindaddr=127.0.0.1,port=$tpm_port" \
      --ctrl "type=tcp,bindaddr=127.0.0.1,port=$((tpm_port + 1))"
    wait_for "swtpm listens" tpm_listens_or_is_gone
    ! gone "${pids[swtpm]}" || continue
    break
  done
  ! gone "${pids[swtpm]}" || fail "swtpm did not start ($attempt times)"
  tcti="swtpm:host=127.0.0.1,port=$tpm_port"
  tpm_tool=(env "TPM2TOOLS_TCTI=$tcti" TSS2_LOG=all+none)
  prompt tpm "swtpm socket --tpm2 --server type=tcp,bindaddr=127.0.0.1,port=$tpm_port …"
  ask daemon "${tpm_tool[@]}" tpm2_getcap properties-fixed
  must_exit 0 "the TPM does not answer"
  grep -A 2 -E '^TPM2_PT_(FAMILY_INDICATOR|MANUFACTURER):' <<<"$OUT" | grep -v '^--' | indent
  install -m 0400 -o "$daemon" -g "$daemon" <(head -c 32 /dev/urandom) tpm.auth
  say "Here it is swtpm, of user $tpm; a host's chip is device:/dev/tpmrm0, the default.
What authorises the use of a key is made of 32 bytes in a file that only user $daemon
can read, and assertd's keystore process runs as that user."
}

# The lines of its section.
keystore_section() {
  cat <<END
backend = "tpm"
tcti = "$tcti"
auth = { file = "$stage/tpm.auth" }
END
}

# The file of payments/bank: the one with the public key that assertctl shows.
find_key_file() {
  local x file
  ask root "${ASSERTD[@]}" jwks --target payments/bank
  must_exit 0 "jwks failed"
  x="$(look x <<<"$OUT")"
  key_files=(state/keystore/hsm/keys/*.pem)
  for file in "${key_files[@]}"; do
    ask daemon tpm2_print -t TSSPRIVKEY_OBJ "$file"
    must_exit 0 "tpm2_print does not read $file"
    grep -qF "$KEY_ATTRIBUTES" <<<"$OUT" || fail "$file has other attributes: $OUT"
    if grep -qx "x: $x" <<<"$OUT"; then key_file="$file" printed="$OUT"; fi
  done
}

keystore_shows() {
  say "What another program reads in the key's file: the TPM made the key itself (sensitivedataorigin)
and no other will ever have it (fixedtpm, fixedparent). Its public half is the one to register."
  find_key_file
  prompt daemon "tpm2_print -t TSSPRIVKEY_OBJ ${key_file:-…}"
  [ -n "$key_file" ] || fail "no key file has the public key of payments/bank"
  grep -E '^ +value: (fixed|ecc|NIST)|^[xy]: ' <<<"$printed" | indent
  [ "${#key_files[@]}" -eq 3 ] || fail "not three keys that never leave"
}

# sign_as AUTH…: whether the TPM signs with the key that tpm2_load has loaded.
sign_as() {
  ask daemon "${tpm_tool[@]}" tpm2_flushcontext -t
  must_exit 0 "the TPM's slots cannot be emptied"
  ask daemon "${tpm_tool[@]}" tpm2_sign -c tools/key.ctx -g sha256 -o tools/signature "$@" \
    "$key_file"
}

# With assertd gone there is its key file, and the TPM.
keystore_ends() {
  local id value
  say "Somebody has the key's file and the TPM, but not the 32 bytes: the TPM loads the key and signs
nothing, without an auth value or with a wrong one. The right one is the HMAC of the key's id."
  install -d -m 0700 -o "$daemon" -g "$daemon" tools
  ask daemon "${tpm_tool[@]}" tpm2_flushcontext -t     # what a keystore that was ended has left
  must_exit 0 "the TPM's slots cannot be emptied"
  prompt daemon "tpm2_load -r $key_file -c key.ctx"
  ask daemon "${tpm_tool[@]}" tpm2_load -Q -r "$key_file" -c tools/key.ctx
  must_exit 0 "the TPM does not load its own key"
  prompt daemon "tpm2_sign -c key.ctx …"
  sign_as
  indent <<<"${ERR%%$'\n'*}"
  [ "$STATUS" -ne 0 ] || fail "the key file alone signs"
  prompt daemon "tpm2_sign -c key.ctx -p hex:$(printf '00%.0s' {1..32}) …"
  sign_as -p "hex:$(printf '00%.0s' {1..32})"
  indent <<<"${ERR%%$'\n'*}"
  [ "$STATUS" -ne 0 ] || fail "the key signs with a wrong auth value"
  id="$(basename "$key_file" .pem)"
  value="$(look auth "$id" <tpm.auth)"
  prompt daemon "tpm2_sign -c key.ctx -p hex:\$(hmac auth $id) … && echo signed"
  sign_as -p "hex:$value"
  must_exit 0 "the key does not sign with its auth value"
  indent <<<"signed"
  stop swtpm
}
