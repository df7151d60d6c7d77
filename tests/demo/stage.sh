# shellcheck shell=bash disable=SC2317  # conditions are passed by name
# The stage of the demo: a private directory, users for the workloads, processes, and the way
# commands are shown and run. Sourced by run.sh, which tells the story.
#
# Owns everything that must go away again: `leave` runs however the demo ends and ends only
# processes that `start` started, removes only users that bear our comment. Children that a killed
# demo leaves behind get SIGTERM from the kernel. Every wait has a deadline.

readonly LIMIT_S=20                      # for one command; the slowest, making an RSA key, takes 1 s
readonly USER_PREFIX=assertd-demo
readonly USER_COMMENT="assertd demo, temporary"
ROLES=(daemon payments reports)          # and what the keystore adds
readonly ROLES_EVER=(daemon payments reports tpm)

stage=""                                 # the private directory, once it is there
step=0
declare -A pids=()                       # of what is running, by name
IN="" OUT="" ERR="" STATUS=0             # of the last command that `ask` ran

die() { echo "demo: $*" >&2; exit 69; }  # before the stage stands
fail() { printf '\nDEMO FAILED in step %s: %s\n' "$step" "$*" >&2; exit 1; }

# --- what the reader sees -----------------------------------------------------------------------

title() { step=$((step + 1)); printf '\n%s  %s\n\n' "$step" "$1"; }
say() { fold -s -w 96 <<<"$1" | sed 's/^/   /'; }
prompt() { printf '   %s $ %s\n' "$1" "$2"; }
indent() { expand | fold -s -w 114 | sed 's/^/      /; s/ *$//'; }

# --- commands -----------------------------------------------------------------------------------

name_of() { if [ "$1" = daemon ]; then echo "$USER_PREFIX"; else echo "$USER_PREFIX-$1"; fi; }

# Prints, one per line, the words that make a command run as that role.
words_as() {
  local name
  [ "$1" != root ] || return 0
  name="$(name_of "$1")"
  printf '%s\n' setpriv "--reuid=$name" "--regid=$name" --clear-groups --no-new-privs
}

# ask ROLE COMMAND...: runs it as that role with $IN as its input; sets OUT, ERR and STATUS.
ask() {
  local -a as
  mapfile -t as < <(words_as "$1")
  shift
  STATUS=0
  OUT="$(timeout -k 2 "$LIMIT_S" "${as[@]}" env -i PATH="$stage/bin:$PATH" LANG=C.UTF-8 "$@" \
    <<<"$IN" 2>"$stage/stderr")" || STATUS=$?
  ERR="$(<"$stage/stderr")"
}

# show ROLE COMMAND...: the same, with the command and all that it printed shown.
show() {
  prompt "$1" "${*:2}"
  ask "$@"
  printf '%s' "${OUT:+$OUT$'\n'}${ERR:+$ERR$'\n'}" | indent
}

must_exit() { [ "$STATUS" -eq "$1" ] || fail "$2 (exit $STATUS) $ERR"; }

# --- processes ----------------------------------------------------------------------------------

# start NAME ROLE COMMAND...: in the background, its output in NAME.log.
start() {
  local name="$1" role="$2"
  local -a as
  shift 2
  mapfile -t as < <(words_as "$role")
  [ "${#as[@]}" -gt 0 ] || as=(setpriv)
  : >"$stage/$name.log"
  "${as[@]}" --pdeathsig TERM env -i PATH="$PATH" LANG=C.UTF-8 "$@" \
    >>"$stage/$name.log" 2>&1 </dev/null 8<&- &
  pids[$name]=$!
}

gone() { ! kill -0 "$1" 2>/dev/null; }
logged() { grep -q -- "$2" "$stage/$1.log"; }

ended_or_logged() { logged "$1" "$2" || gone "${pids[$1]}"; }

# wait_for WHAT CONDITION...: until the condition holds, or the demo fails.
wait_for() {
  local what="$1" deadline=$((SECONDS + LIMIT_S))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$deadline" ] || fail "$what: not within $LIMIT_S s"
    sleep 0.02
  done
}

# ready NAME WORD: until it has logged the word; one that has ended never will.
ready() {
  wait_for "$1 is ready" ended_or_logged "$1" "$2"
  logged "$1" "$2" || fail "$1 did not start"
}

# stop NAME: SIGTERM; sets STATUS to its exit code, or to 124 if it had to be killed.
stop() {
  local pid="${pids[$1]}" deadline=$((SECONDS + LIMIT_S)) killed=no
  kill -TERM "$pid" 2>/dev/null || true
  until gone "$pid"; do
    if [ "$SECONDS" -ge "$deadline" ]; then kill -KILL "$pid" 2>/dev/null || true; killed=yes; fi
    sleep 0.02
  done
  STATUS=0
  wait "$pid" || STATUS=$?
  [ "$killed" = no ] || STATUS=124
  unset "pids[$1]"
}

# --- entering and leaving -----------------------------------------------------------------------

is_ours() { [ "$(getent passwd "$1" | cut -d : -f 5)" = "$USER_COMMENT" ]; }

remove_users() {
  local role name
  for role in "${ROLES_EVER[@]}"; do
    name="$(name_of "$role")"
    if is_ours "$name"; then timeout "$LIMIT_S" userdel "$name" >/dev/null || return; fi
  done
}

make_users() {
  local role name
  for role in "${ROLES[@]}"; do
    name="$(name_of "$role")"
    ! getent passwd "$name" >/dev/null || die "there is a user $name who is not the demo's"
    timeout "$LIMIT_S" useradd --system --user-group --no-create-home --home-dir /nonexistent \
      --shell /usr/sbin/nologin --comment "$USER_COMMENT" "$name" ||
      die "cannot make the user $name"
  done
}

# A directory that every user can pass through and where programs may run: the clone may lie below
# /root, and some systems mount /run or /tmp noexec.
make_directory() {
  local base program="$1"
  for base in /run /tmp /var/tmp; do
    # The lock is ours, so these are what a killed demo has left.
    find "$base" -maxdepth 1 -type d -user root -name 'assertd-demo.??????' -exec rm -rf {} +
  done
  for base in /run /tmp /var/tmp; do
    stage="$(mktemp -d "$base/assertd-demo.XXXXXX")" || continue
    chmod 0755 "$stage"
    mkdir -m 0755 "$stage/bin"
    install -m 0755 "$program" "$stage/bin/"
    if "$stage/bin/${program##*/}" --version >/dev/null 2>&1; then return; fi
    rm -rf "$stage"
    stage=""
  done
  die "no directory among /run, /tmp and /var/tmp where programs may run"
}

# enter PROGRAM: makes directory and users, and sees to it that they go away.
enter() {
  exec 8</run
  flock -n 8 || die "another demo runs on this machine"
  trap leave EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  umask 077
  remove_users || die "cannot remove the users that an earlier demo has left"
  make_users
  make_directory "$1"
  cd "$stage" || die "cannot enter $stage"
}

# However it ends.
leave() {
  local status=$? name
  set +e
  trap '' INT TERM
  if [ "$status" -ne 0 ] && [ -n "$stage" ]; then
    for name in assertd server swtpm; do
      [ -s "$stage/$name.log" ] || continue
      echo "the last lines of $name.log:"
      tail -n 12 "$stage/$name.log" | indent
    done >&2
  fi
  for name in "${!pids[@]}"; do stop "$name"; done
  cd /
  [ -z "$stage" ] || rm -rf "$stage"
  remove_users || status=1
  exit "$status"
}
