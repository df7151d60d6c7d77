#!/usr/bin/env bash
# `make demo`: assertd from a new token, PKCS#11 or a TPM 2.0 as KEYSTORE says, to an access token that
# a real authorization server gave for an assertion, what is refused on the way, and the audit log of
# it all.
#
# Everything is checked, refusals most of all: it exits 0 only if each thing was as it says. Needs
# root, what tests/setup/install.sh and venv.sh install, and built programs (ASSERTD_BIN, by default
# target/release). The mechanics are in stage.sh, what is read and compared is in look.py, and what
# differs from keystore to keystore is in keystore-*.sh: their keystore_… functions are called here.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
programs="${ASSERTD_BIN:-${CARGO_TARGET_DIR:-$root/target}/release}"
peers="${ASSERTD_PEERS:-$root/target/peers}"
keystore="${KEYSTORE:-pkcs11}"

# Only this script needs root, to make users; what it runs was built by whoever runs `make`.
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "demo: needs root, to make users; run it as root" >&2; exit 77; }
  echo "demo: makes a few users and removes them again; asking sudo"
  exec sudo env "ASSERTD_BIN=$programs" "ASSERTD_PEERS=$peers" "KEYSTORE=$keystore" \
    bash "$here/run.sh"
fi

# shellcheck source-path=SCRIPTDIR source=stage.sh
. "$here/stage.sh"

case "$keystore" in
  pkcs11 | tpm) ;;
  *) die "KEYSTORE=$keystore: there are pkcs11 and tpm" ;;
esac
# shellcheck source-path=SCRIPTDIR source=keystore-tpm.sh
. "$here/keystore-$keystore.sh"

readonly ASSERTD=(assertctl -c assertd.toml)         # as an administrator asks
readonly WORKLOAD=(assertctl -s run/assertd.sock)    # as a workload asks: it may not read the file

look() { timeout "$LIMIT_S" python3 "$here/look.py" "$@"; }
member() { look member "$1" <<<"$OUT"; }

prepare() {
  local program
  for program in "$programs"/{assertd,assertctl,"assertd-keystore-$keystore"} "$peers/bin/node"; do
    [ -x "$program" ] || die "no $program; run: make demo KEYSTORE=$keystore"
  done
  keystore_present
  enter "$programs/assertctl"
  install -m 0755 "$programs/assertd" "$programs/assertd-keystore-$keystore" bin/
  install -m 0755 "$root/tests/peers/redeem.py" bin/
  daemon="$(name_of daemon)"
  install -d -m 0755 -o "$daemon" -g "$daemon" run
  install -d -m 0700 -o "$daemon" -g "$daemon" state
}

versions() {
  title "What runs here"
  proof="$(look peerpidfd)"
  {
    bin/assertd --version
    echo "rustc $(rustc --version 2>/dev/null | cut -d ' ' -f 2 || echo 'not in PATH')"
    keystore_version
    echo "node $("$peers/bin/node" --version)"
    echo "oidc-provider $(look member version <"$peers/as/node_modules/oidc-provider/package.json")"
    echo "Linux $(uname -r), SO_PEERPIDFD: $proof"
  } | indent
  if [ "$proof" = no ]; then
    say "This kernel cannot prove who connects by pidfd, so the demo's own two workloads say
allow_pid_fallback = true; without it assertd refuses them."
  fi
}

configuration() {
  local fallback=""
  title "Who may ask for what"
  [ "$proof" = yes ] || fallback=$'allow_pid_fallback = true\n'
  mkdir -m 0755 conf.d
  cat >assertd.toml <<END
[server]
runtime_dir = "$stage/run"
state_dir = "$stage/state"

[audit]
segment_bytes = 1048576    # the default of 32 MiB is for hosts that live longer

[keystore.hsm]
$(keystore_section)

[issuer.prod]
url = "https://id.example.com/prod"
subjects = ["payments"]
alg = "RS256"
keystore = "hsm"
END
  cat >conf.d/payments.toml <<END
[workload.payments]
match = { user = "$(name_of payments)" }
$fallback
[workload.payments.target.bank]           # client authentication, RFC 7523
profile = "rfc7523"
authorization_server = "$issuer"
client_id = "payments-prod"

[workload.payments.target.aws]            # federation
profile = "aws-oidc"
issuer = "prod"
subject = "payments"
audience = "sts.amazonaws.com"
END
  cat >conf.d/reports.toml <<END
[workload.reports]
match = { user = "$(name_of reports)" }
$fallback
[workload.reports.target.warehouse]
profile = "rfc7523"
authorization_server = "$issuer"
client_id = "reports-prod"
END
  chmod 0644 assertd.toml conf.d/*.toml
  say "One file per team. A workload is known by what the kernel says about the process that asks,
here its user; in production also its systemd unit. It names a target, never an audience."
  show root cat conf.d/payments.toml
  say "reports.toml gives user $(name_of reports) a target of its own, warehouse."
}

authorization_server() {
  echo '[]' >clients.json
  start server root env "ASSERTD_PEERS=$peers" "$peers/bin/node" "$root/tests/peers/as/server.mjs" \
    "$stage/clients.json"
  ready server "^ready "
  issuer="$(sed -n 's/^ready //p' server.log)"
}

keys() {
  title "assertd runs, and root lets it make the keys"
  start assertd daemon "$stage/bin/assertd" -c "$stage/assertd.toml"
  ready assertd "assertd: ready"
  show root "${ASSERTD[@]}" config diff
  must_exit 0 "config diff failed"
  show root "${ASSERTD[@]}" apply
  must_exit 0 "apply failed"
  show root "${ASSERTD[@]}" status
  must_exit 0 "status failed"
  keystore_shows
}

registration() {
  title "The public key is registered at a real authorization server"
  say "oidc-provider runs unmodified on loopback. It knows the client payments-prod by this key alone:
private_key_jwt, no shared secret. Its other client, api, may introspect access tokens."
  prompt root "${ASSERTD[*]} jwks --target payments/bank | tr -d ' \\n' | tee bank.jwks"
  ask root "${ASSERTD[@]}" jwks --target payments/bank
  must_exit 0 "jwks failed"
  tr -d ' \n' <<<"$OUT" >bank.jwks
  indent <<<"$(<bank.jwks)"
  head -c 24 /dev/urandom | base64 >api.secret
  look clients payments-prod ES256 bank.jwks api <api.secret >clients.new
  mv clients.new clients.json
}

# obtain TARGET: an assertion for payments, in ASSERTION.
obtain() {
  IN="" ask payments "${WORKLOAD[@]}" assertion --target "$1"
  must_exit 0 "no assertion for $1"
  ASSERTION="$OUT"
  held+=("$ASSERTION")
}

# redeem ASSERTION: at the server; sets HTTP to the status it answered with.
redeem() {
  IN="$1" ask payments redeem.py redeem --issuer "$issuer"
  HTTP="$(member status)" || fail "the server did not answer: $ERR"
}

said_why() { [ "$(grep -c '^refused /token' server.log)" -eq "$refusals" ]; }

# refused_because WORD: shows that the server refused the last assertion, and its own reason.
refused_because() {
  local reason
  indent <<<"$OUT"
  [ "$HTTP" = 401 ] || fail "the server answered $HTTP where it must refuse with 401"
  refusals=$((refusals + 1))
  wait_for "the server's reason" said_why
  reason="$(tail -n 1 server.log)"
  indent <<<"server.log: $reason"
  [[ "$reason" == *"$1"* ]] || fail "refused, but for another reason than: $1"
}

grant() {
  title "A workload gets an assertion and redeems it"
  prompt payments "assertion=\$(${WORKLOAD[*]} assertion --target bank)"
  obtain bank
  first="$ASSERTION"
  say "It named only the target. The broker made the claims, the $HOLDER signed them, a record was on
disk before the answer. Decoded:"
  look decode <<<"$first" | indent
  prompt payments "redeem.py redeem --issuer $issuer <<< \$assertion"
  redeem "$first"
  [ "$HTTP" = 200 ] || fail "the server refused a good assertion: $OUT"
  access_token="$(member body.access_token)"
  indent <<<"${OUT/$access_token/${access_token:0:6}…}"
  say "The server gave an access token. The api asks the server what it is worth:"
  prompt api "redeem.py introspect --issuer $issuer --client-id api --secret-file api.secret <<< \$token"
  IN="$access_token" ask root redeem.py introspect --issuer "$issuer" --client-id api \
    --secret-file "$stage/api.secret"
  must_exit 0 "the introspection failed"
  indent <<<"$OUT"
  [ "$(member body.active)" = true ] || fail "the access token is not active"
  [ "$(member body.client_id)" = payments-prod ] || fail "the access token is for another client"
  federation
}

federation() {
  say "For a cloud it asks in the same way; the issuer's key signs. Three JWT libraries check it:"
  prompt payments "${WORKLOAD[*]} assertion --target aws | verify.py --jwks issuer.jwks …"
  obtain aws
  IN="" ask root "${ASSERTD[@]}" jwks --issuer prod
  must_exit 0 "jwks failed"
  printf '%s\n' "$OUT" >issuer.jwks
  OUT="$(timeout "$LIMIT_S" "$peers/venv/bin/python" "$root/tests/peers/verify.py" \
    --jwks issuer.jwks --iss https://id.example.com/prod --sub payments --aud sts.amazonaws.com \
    --alg RS256 --typ JWT <<<"$ASSERTION")" || fail "a library refused a good assertion: $OUT"
  indent <<<"$OUT"
}

# denied ROLE TARGET: shows that assertd refuses, and keeps the id.
denied() {
  show "$1" "${WORKLOAD[@]}" assertion --target "$2"
  [ -z "$OUT" ] || fail "an assertion was given to $1 for $2"
  must_exit 1 "not a refusal"
  [[ "$ERR" =~ ^"assertctl: denied ("([0-9A-Z]{26})")" ]] || fail "not a denial: $ERR"
  denied_ids+=("${BASH_REMATCH[1]}")
  denied_words+=("${ERR/"${BASH_REMATCH[1]}"/}")
}

refusals() {
  title "What is refused"
  say "By assertd: the same request from another user, and the same user for another's target."
  denied reports bank
  denied payments warehouse
  [ "${denied_words[0]}" = "${denied_words[1]}" ] || fail "two denials differ by more than the id"
  say "By the authorization server: an assertion that was used before."
  prompt payments "redeem.py redeem --issuer $issuer <<< \$assertion"
  redeem "$first"
  refused_because "used once"
  say "By the authorization server: a fresh assertion with one byte changed, while the same one
unchanged is accepted, so that it was the byte."
  obtain bank
  fresh="$ASSERTION"
  changed="$("$stage/bin/redeem.py" flip --part payload <<<"$fresh")"
  prompt payments "fresh=\$(${WORKLOAD[*]} assertion --target bank)"
  prompt payments "changed=\$(redeem.py flip --part payload <<< \$fresh)"
  indent <<<"# $(look changed <<<"$fresh $changed")"
  prompt payments "redeem.py redeem --issuer $issuer <<< \$changed"
  redeem "$changed"
  refused_because "signature"
  prompt payments "redeem.py redeem --issuer $issuer <<< \$fresh"
  redeem "$fresh"
  indent <<<"HTTP $HTTP"
  [ "$HTTP" = 200 ] || fail "the server refused the unchanged assertion: $OUT"
}

# Outcomes and denials follow with the next group of records, within milliseconds.
all_recorded() {
  ask root "${ASSERTD[@]}" audit show --json -n 1000
  [ "$(grep -c '"kind":"outcome"' <<<"$OUT")" -ge "${#held[@]}" ] &&
    [ "$(grep -c '"kind":"denied"' <<<"$OUT")" -ge "${#denied_ids[@]}" ]
}

audit() {
  local -a released
  local records
  title "The audit log has it all"
  wait_for "every record" all_recorded
  show root "${ASSERTD[@]}" audit show -n 8
  must_exit 0 "audit show failed"
  say "Joined by request id. A grant is recorded before the assertion leaves, and what became of it
after. The caller saw only the id of a denial, here is its reason."
  prompt root "${ASSERTD[*]} audit show --json | look.py records"
  ask root "${ASSERTD[@]}" audit show --json -n 1000
  must_exit 0 "audit show failed"
  records="$OUT"
  mapfile -t released < <(printf '%s\n' "${held[@]}" | look jti)
  OUT="$(look records "${released[@]}" --denied "${denied_ids[@]}" <<<"$records" 2>&1)" ||
    fail "the records do not match what happened: $OUT"
  indent <<<"$OUT"
  show root "${ASSERTD[@]}" audit verify
  must_exit 0 "the audit log does not verify"
  say "Somebody changes who it was, in a copy of the log: one byte."
  cp -R state/audit copy
  prompt root "cp -R state/audit copy; look.py falsify copy/… ${denied_ids[0]}"
  falsified="$(look falsify copy/audit-*.log "${denied_ids[0]}")" || fail "nothing was falsified"
  indent <<<"$falsified"
  show root "${ASSERTD[@]}" audit verify copy
  must_exit 1 "a falsified log verifies"
  [[ "$ERR" == *"(${falsified%%:*})"* ]] || fail "verify does not name the changed record: $ERR"
}

ending() {
  title "The end"
  prompt root "kill -TERM ${pids[assertd]}; wait ${pids[assertd]}; echo \$?"
  stop assertd
  indent <<<"$STATUS"
  must_exit 0 "assertd did not end well"
  show root "${ASSERTD[@]}" audit verify
  must_exit 0 "the audit log does not verify"
  keystore_ends
  stop server
  cd /
  rm -rf "$stage"
  stage=""
  remove_users || fail "cannot remove the demo's users"
  say "${HOLDER^}, users, processes and files of the demo are gone."
}

held=() denied_ids=() denied_words=() refusals=0
prepare
versions
authorization_server
keystore_make
configuration
keys
registration
grant
refusals
audit
ending
printf '\nDEMO OK in %s s\n' "$SECONDS"
