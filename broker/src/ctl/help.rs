//! What `assertctl help` prints: plain constants, the short form of docs/man/assertctl.1.md.

use super::args::SPECS;
use super::failure::{Exit, Failure};
use super::out::Out;

/// One screenful less than the help: what a mistake is answered with.
pub const USAGE: &str = "usage: assertctl [-s SOCKET] [-c FILE] [--json] COMMAND";

const GENERAL: &str = "\
usage: assertctl [-s SOCKET] [-c FILE] [--json] COMMAND

for workloads
  assertion --target T    an assertion for the target, alone on stdout
  whoami                  what the kernel and assertd know about this process
  targets                 what this process may ask for

for administrators
  status                  assertd, its keystores and its audit log; what is wrong comes first
  check                   the doctor: is everything on this host as it must be?
  keystore check          one keystore: its token or TPM, its keys, how fast it signs
  init                    find TPM and tokens, write a first configuration and its secret
  reload                  have assertd read its configuration again
  keys                    every key with its state, kid and evidence, and what comes next
  keys rotate             begin the next version of a key
  keys activate           let the version on its way sign
  keys hold               stop a key for a while
  keys resume             let it go on
  keys revoke             a key may have been misused: stop it, and what to do then
  keys abandon            give up the version on its way
  keys destroy            destroy a version that signs no more
  keys replace-lost       go on without a token that is gone
  keys certificate        a key's certificate, or a request for one
  keys import             bring in a private key that was made elsewhere
  keys adopt              use a key that is in the token already
  state accept-rollback   the state directory was restored on purpose
  attest                  evidence of where keys live, for somebody who verifies it
  enroll request          what this host's TPM is, for who enrols it
  enroll respond          open what came back for it
  approve request         a state of this host, for who approves that keys sign in it
  approve finish          what was approved, with its signature
  jwks                    public keys, to be registered at the other side
  jwks merge              the sets of several hosts as one
  config check            is the configuration correct, and is it wise?
  host-facts              what this host would say of users and units, for `config check`
  config diff             what `apply` would do
  config schema           the JSON Schema of the configuration, for editors
  apply                   make the keys that the configuration asks for
  audit verify            has the audit log been changed?
  audit show              its last records
  explain                 why was a request denied, or would be?
  profiles                kinds of relying parties that assertd knows
  env TARGET              what an SDK needs to use a target: variables, file, unit drop-in

for who relies on keys, on any machine
  nonce                   a new nonce for a host, for one answer
  verify                  hold evidence against a policy
  approve bytes           what a request of `approve request` says, and the bytes to sign for it
  enroll challenge        what only the TPM of a request can open
  enroll finish           record whose response was right

options
  -s, --socket SOCKET     ask at this socket
  -c, --config FILE       read this configuration, and ask at the sockets it names
      --json              for programs
  -h, --help              help; after a command, about that command
  -V, --version           the version

exit codes: 0 done, 1 refused or a check failed, 2 usage, 69 assertd or a keystore is
unavailable, 70 internal, 77 not permitted, 78 configuration";

pub const ASSERTION: &str = "\
usage: assertctl assertion --target T [--lifetime S] [--output FILE [--keep] | --as FORM]

Asks assertd for an assertion (a signed JWT) for a target, and prints it alone on stdout, or writes
it to a file. Handle it like a password: whoever has it can use it until it expires.

      --target T       one of those that `assertctl targets` lists
      --lifetime S     seconds; can only shorten what the configuration allows
      --output FILE    write it there, without a newline, and print nothing. The file is replaced
                       whole, its owner alone may read it, and no link is followed. Waits half a
                       minute for a keystore that is starting
      --keep           go on in the background after that: a new one at half of its life, until
                       SIGTERM, or until the directory is removed. For ExecStartPost= of a unit
      --foreground     with --keep: stay in the foreground, for other supervisors
      --as google      as Google's SDKs expect it of an executable, mistakes too (exit code 0)
      --as kubernetes  an ExecCredential, in the version that KUBERNETES_EXEC_INFO names
      --json           the whole answer: assertion, expires_at, kid, target, id

`assertctl env` prints which of these an SDK needs, and where.";

pub const WHOAMI: &str = "\
usage: assertctl whoami

Prints what the kernel says about this process (uid, gid, pid, unit, container), how well that
is proved, and the workload sections of the configuration that match.

To ask as a service sees it: systemd-run -q --wait --pipe -p User=payments assertctl whoami";

pub const TARGETS: &str = "\
usage: assertctl targets

Lists what this process may ask for: target, profile, audience, subject, longest lifetime.";

pub const STATUS: &str = "\
usage: assertctl status

One screen: what is wrong first, each with its remedy; then the configuration in force, the
audit log, keys, keystores and requests. Exits with 0 whenever assertd answers. Needs root.";

pub const CHECK: &str = "\
usage: assertctl check

Looks at everything assertd needs on this host: units, sockets, files and their modes, users,
credentials, clock, kernel, keystores, keys, audit log, disk. One line per finding, the remedy
below it. Exits with 0 if nothing fails (warnings are no failure), else with 1. Needs root.";

pub const KEYSTORE_CHECK: &str = "\
usage: assertctl keystore check [NAME]

Looks at one keystore: its program, unit, module or device and credential here on the host; then
asks the keystore itself for its token or TPM, PIN or lockout, slots and sessions, algorithms,
every key's attributes, strange objects, and how fast it signs: for a second, with a key that is
never stored. Changes nothing. One line per finding, the remedy below it. Exits with 0 if nothing
fails (warnings are no failure), else with 1. NAME may be left out if there is one. Needs root.";

pub const RELOAD: &str = "\
usage: assertctl reload

Has assertd read its configuration again, and waits for the verdict. A file with a mistake
changes nothing: the old configuration stays in force, and the mistake is shown with file, line
and column (exit code 1). `systemctl reload assertd` does the same. Needs root.";

pub const INIT: &str = "\
usage: assertctl init [--backend KIND] [--token LABEL] [--name NAME] [--yes]

Looks for this machine's TPM 2.0, and for PKCS#11 modules and their tokens; asks which one keys are
to be made in (or a token and the TPM) and for a token's PIN; shows what it is going to write, and
asks again: /etc/assertd/assertd.toml with comments, the PIN, or a secret for the TPM's keys, as an
encrypted systemd credential, and what the keystore's unit needs. At the end it offers to start
assertd's sockets. Never replaces a file, least of all a TPM's secret, without which its keys are
lost; never tries the PIN: the keystore does, once. Run again, it writes only what is missing.
Needs root.

      --backend KIND       pkcs11, tpm or both. Without it, --yes takes the one token that can be
                           used, and the TPM where no token was ever initialised
      --module FILE        use this PKCS#11 module instead of looking for some
      --environment N=V    start the module with variable N, such as SOFTHSM2_CONF=FILE
      --token LABEL        use the token of this label or serial number instead of asking
      --tcti TCTI          use the TPM that is reached so (default: device:/dev/tpmrm0)
      --name NAME          call the keystore so (default: hsm for a token, tpm for a TPM)
  -y, --yes                do not ask; a PIN is read from standard input, a TPM needs none
  -c, --config FILE        for an assertd that you start by hand: writes this configuration alone";

pub const KEYS: &str = "\
usage: assertctl keys [KEY]

Lists every version of every key that assertd has recorded: id, state, algorithm, keystore, kid,
evidence, when it was recorded and when it last signed; below, what comes next for each and when,
and why one cannot sign. Of one KEY also its timeline: how it came to be as it is, and what is to
come. Versions that are destroyed are in --json alone. Needs root.

state: made, published (does not sign yet), active, held, retiring (signs no more, still
published), retired, revoked; suspended, failed or unknown if it cannot sign now
evidence: none < asserted (the token says so) < device-attested < tpm-certified

rotate, activate, hold, resume, revoke, abandon, destroy, replace-lost, certificate, import, adopt:
`assertctl keys VERB -h`";

pub const KEYS_ROTATE: &str = "\
usage: assertctl keys rotate KEY

Begins the next version of a key: it is made, published, and becomes active when everybody who
verifies must know it, or by `keys activate` where the other side is told by hand. The version
before signs until then, and stays published until the last thing it signed has expired. Refused
while that one does not sign in the state that the host is in: `keys replace-lost` if it is right.
KEY is WORKLOAD/TARGET or issuer/NAME. Needs root.";

pub const KEYS_ACTIVATE: &str = "\
usage: assertctl keys activate KEY[.VERSION] [--now]

Lets the version that is on its way sign, if it has been published for long enough. With the id of
a version that retires: takes it back at once; of one that is retired: publishes it again first.
Needs root.

      --now            wait for nobody: verifiers that keep an older set refuse what it signs";

pub const KEYS_HOLD: &str = "\
usage: assertctl keys hold KEY

Stops a key at once: nothing is signed with it, and what it has signed is not handed out again,
until `keys resume`. What it has signed stays valid until it expires. Needs root.";

pub const KEYS_RESUME: &str = "\
usage: assertctl keys resume KEY

Lets a key that was held go on. Needs root.";

pub const KEYS_REVOKE: &str = "\
usage: assertctl keys revoke KEY[.VERSION] --compromised [--yes]

For a key that may have been misused. Stops the version at once and for ever, takes it out of the
published set, and prints what is to be done at the other side, in the order that counts, with the
time for which verifiers may still believe it. Makes no other version: that is `keys rotate`, on
a host that is trusted again. Asks before, unless --yes. Needs root.";

pub const KEYS_ABANDON: &str = "\
usage: assertctl keys abandon KEY[.VERSION]

Gives up a version that is on its way and has not signed. Needs root.";

pub const KEYS_DESTROY: &str = "\
usage: assertctl keys destroy KEY.VERSION [--yes]

Destroys a version that is retired or revoked before its time, in its token too. The newest one
can be destroyed once there is another. Asks before, unless --yes. Needs root.";

pub const KEYS_REPLACE_LOST: &str = "\
usage: assertctl keys replace-lost KEY[.VERSION] [--yes]

For a key whose token is gone for good, or that does not sign in the state that the host is in and
will stay in: its version retires, and the next one is made in the keystore of the configuration
and signs as soon as it is published. Refused while the key can sign. If the token only has to be
put back, put it back. Asks before, unless --yes. Needs root.";

pub const KEYS_CERTIFICATE: &str = "\
usage: assertctl keys certificate KEY[.VERSION] [--csr]

Prints the certificate of a key (X.509, by itself) as PEM, for the party that knows the key by one;
on standard error its thumbprints and its end. Of the newest version, which is the one to be
uploaded, unless another is named. Each version has a certificate of its own, made with it and
never replaced: assertions name it (x5t#S256), so that another one would be one that nobody knows.
For a new one, rotate the key. Which profiles have certificates: `assertctl profiles`. Needs root.

      --csr            a request for a certificate by an authority (PKCS #10); none of it is kept
      --json           der (base64), pem, x5t#S256, sha256, sha1, not_before, not_after";

pub const KEYS_IMPORT: &str = "\
usage: assertctl keys import KEY FILE

Brings a private key that was made elsewhere into the keystore, as the first version of a key that
the configuration asks for, or as its next one beside the one that signs. FILE is PEM or DER:
PKCS #8, PKCS #1 or SEC 1, without a password, RSA or P-256; `-` is standard input. It goes to the
keystore unread, which alone looks into it. What was outside of a token is shown as imported for
ever. Destroy the file then. A first version signs at once; a next one by `keys activate`. Done
again with the same key, it finishes what was cut off. Needs root.";

pub const KEYS_ADOPT: &str = "\
usage: assertctl keys adopt KEY --id HEX | --label TEXT

Uses a key that is in the token already, as the first version of a key that the configuration asks
for, or as its next one. The token is not changed; the key has to be one that can only sign and
cannot leave it, and what the token says of it is its evidence. It is destroyed like any other
from then on. Of a TPM: a key file in the keystore's state directory. Needs root.

      --id HEX         its CKA_ID, or of a TPM's key file the name, in hexadecimal digits
      --label TEXT     its CKA_LABEL, or the first line of a TPM's key file";

pub const STATE_ACCEPT_ROLLBACK: &str = "\
usage: assertctl state accept-rollback [--yes]

For a state directory that was restored from a backup on purpose: assertd refuses records of keys
that are older than the newest it has written (it tells by a counter in the TPM), or warns about
them where there is no TPM. Shows what these records say of each key: what was revoked, retired or
destroyed after the backup is not in them. Says that they are meant, for these records alone;
assertd takes the word when it is started the next time, and has it in the audit log.
Asks before, unless --yes. Needs root.";

pub const JWKS: &str = "\
usage: assertctl jwks [--with-evidence] [--key NAME | --target WORKLOAD/TARGET | --issuer NAME]

Prints a JWK set (RFC 7517). For one key it is exactly what the other side must know: register
it at the authorization server, or serve it at the issuer's jwks_uri. Without an option: every
key's set, by the key's name. A key that is failed or suspended is never in a set, and a set is
never empty: that is an error. Needs root.

      --key NAME                 `workload/target` or `issuer/NAME`, as `assertctl keys` shows it
      --target WORKLOAD/TARGET   the client key of that target
      --issuer NAME              the key of [issuer.NAME]
      --with-evidence            and beside the keys, as `assertd_evidence`, what is known about
                                 where each lives";

pub const ATTEST: &str = "\
usage: assertctl attest --nonce N (--target WORKLOAD/TARGET | --all) [--purpose P] [-o FILE]

Has every keystore say what it can of keys, for somebody who chose the nonce, and writes it with
the logs of firmware and kernel as one bundle. A TPM certifies each key by its attestation key and
quotes the PCRs of [attest]; a PKCS#11 token asserts attributes, and no more. Workloads are
served between the statements. What is left out is said, and the exit code is 1 then. Needs root.

      --nonce N        the verifier's: 32 bytes, base64url or hexadecimal, new each time
      --target T       the key of one target, or of an issuer: issuer/NAME
      --all            all keys that may sign, or whose signatures are still met with
      --purpose P      client_authentication, federation or account alone
  -o, --output FILE    write it there; else it is printed";

pub const ENROLL_REQUEST: &str = "\
usage: assertctl enroll request [--keystore NAME] [-o FILE]

Writes what a keystore's TPM is: its endorsement key with its maker's certificates, its attestation
key, maker and firmware. `assertctl enroll challenge` reads it, where evidence is verified.
Needs root.";

pub const ENROLL_RESPOND: &str = "\
usage: assertctl enroll respond CHALLENGE [-o FILE]

Has the TPM open a challenge, which it can only if both keys of the request are in it, and writes
what was in it for `assertctl enroll finish`. Needs root.";

pub const APPROVE_REQUEST: &str = "\
usage: assertctl approve request [--keystore NAME] [--pcr N=HEX]... -o FILE

Writes down the state of this host, of the PCRs in [keystore.NAME.healthy], for who approves that
keys sign in it. What is signed is made of it by `assertctl approve bytes`, on the machine of who
signs, and never here.

      --keystore NAME  which, if several have an `authority`
      --pcr N=HEX      a value that PCR N will have, such as after an update; else as it is now
  -o, --output FILE    write it there. Needs root, unless --pcr gives all values.";

pub const APPROVE_BYTES: &str = "\
usage: assertctl approve bytes FILE [-o FILE.tbs] [--authority FILE.pem] | --authority FILE.pem

For who approves, on a machine of theirs: shows what `assertctl approve request` wrote, the values
of the PCRs and the generation, and writes the 64 bytes that approve them and nothing else. To be
signed by ECDSA with SHA-256, if you know the values for those of a good state:

  openssl dgst -sha256 -sign KEY -out FILE.sig FILE.tbs

Never sign 64 bytes that came with the file: they may free all keys from every state. The key must
sign nothing but approvals. Reads no configuration, asks nobody, and needs no root.

      --authority FILE.pem  a public key: shows its Name, for a policy's [healthy] authorities
  -o, --output FILE.tbs     write the bytes there";

pub const APPROVE_FINISH: &str = "\
usage: assertctl approve finish FILE SIGNATURE [--keystore NAME]

Checks that the `authority` of [keystore.NAME.healthy] has signed what `assertctl approve request`
wrote, and puts it into `approvals`, under a name that follows from what it approves: keys sign in
that state from then on, and in those approved before. It holds until the file is taken away, and
against whoever kept a copy until `generation` is raised and keys rotated.

      --keystore NAME  which, if several have an `authority`";

pub const JWKS_MERGE: &str = "\
usage: assertctl jwks merge FILE… [-o FILE]

Makes one JWK set of several, for hosts that are one issuer or one client to the other side, each
with keys of its own. The files are what `assertctl jwks --issuer NAME` printed on each host, or
their jwks.json. The first key of each file comes first, in the order of the files: it signs. A
kid that stands for two keys is refused, and so is whatever is private. Verifiers take eight keys,
and large ones a hundred: more than eight is a warning, more than a hundred is refused. Asks no
assertd, and needs no root.

  -o, --output FILE    write the set there instead, whole or not at all; everybody may read it";

pub const CONFIG_CHECK: &str = "\
usage: assertctl config check [--strict] [--host-facts FILE] | --explain ID

Reads the configuration as assertd does, and says what is wrong with it (exit code 78). If it
can be loaded, says what can never work (FAIL, exit code 1), what is unwise (warn, exit code 0)
and what is worth knowing (note), each with its section's place and a remedy. Asks nobody: it
can run before the configuration is deployed.

      --strict             warnings fail too (exit code 1), for CI
      --host-facts FILE    check for the host of these facts instead of this one: who its users
                           are, which units it has and how they run (`assertctl host-facts`
                           prints them). Needs no keystore, no root, and none of its users here
      --explain ID         what one finding means (W2): an example that has it, and its fix";

pub const CONFIG_SCHEMA: &str = "\
usage: assertctl config schema

Prints the JSON Schema (2020-12) of assertd.toml and conf.d/*.toml. Editors that know it complete
keys, explain them, and mark mistakes: most take it from the first line of the file,
    #:schema /usr/share/assertd/assertd.schema.json
It knows no names, users and units: `assertctl config check` does.";

pub const HOST_FACTS: &str = "\
usage: assertctl host-facts

Prints what this host would say when a configuration is checked: users and groups with their
ids; services with User=, Slice=, DynamicUser= and the programs they start; whether the kernel
has SO_PEERPIDFD, whether assertd's witness is there; PKCS#11 modules and keystores' sockets.
TOML, without a secret in it: put it beside the configuration in git, and check there with
`assertctl config check --host-facts FILE`. Needs no root, and works without systemd.";

pub const CONFIG_DIFF: &str = "\
usage: assertctl config diff [--exit-code]

Compares the configuration with the keys that assertd and its keystores have, and prints what
`assertctl apply` would do. Changes nothing. Needs root.

  +  a key would be made, or one that the keystore has would be recorded
  ~  a charter (what a key may ever say) would be amended
  ?  a key that the configuration does not ask for; it is kept
  !  something that apply cannot do, with the remedy

      --exit-code      exit with 1 if there is anything to do (default: 0, as in git diff)";

pub const APPLY: &str = "\
usage: assertctl apply [--yes] [--max N]

Makes the keys that the configuration asks for, each under its charter, and amends charters that
changed. Never destroys a key, and never makes a new one for one that is lost. It can be run
again at any time, also after a crash, and does only what is left to do. Needs root.

  -y, --yes            amend charters without asking (new keys are never asked about)
      --max N          make up to N keys (default 50: a typo must not fill an HSM)";

pub const AUDIT_VERIFY: &str = "\
usage: assertctl audit verify [DIR]

Verifies that every record of the audit log follows from the one before. Exits with 1 and names
file and line of the first one that does not. DIR is the configuration's unless given; assertd
need not run.";

pub const AUDIT_SHOW: &str = "\
usage: assertctl audit show [-n N] [DIR]

Prints the last N records (default 20); with --json as they stand in the log, one a line.";

pub const EXPLAIN: &str = "\
usage: assertctl explain ID
       assertctl explain --pid P --target T

Says why a request was denied, or what a process that runs now would get for a target: which
section of the configuration decided, which of its selectors fails, and what the process has
instead. The ID stands in what the caller was told; assertd remembers its last denials, and of
older ones the audit log is asked. Needs root.

      --pid P          the process
      --target T       the target
      --json           for programs";

pub const PROFILES: &str = "\
usage: assertctl profiles [NAME]

Lists the profiles: what each kind of relying party wants to see in an assertion, where we know
it from, and what it was tested against.";

pub const ENV: &str = "\
usage: assertctl env TARGET [--for SDK] [--set NAME=VALUE]... [--part PART] [--host-facts FILE]

Prints what a workload needs so that its SDK uses a target: variables, a JSON, HCL or YAML file
where the SDK wants one, and a drop-in for the workload's unit that puts all of it in place. Made
of the configuration alone: assertd need not run. What assertd cannot know (a role, a tenant) is
<name> in it until --set says it. Holds no secret: it can be kept in git.

      --for SDK            aws, google, google-executable, azure, vault, kubernetes, databricks,
                           oauth2, or file for anything that reads one; without it, the one that
                           the target's profile is for
      --set NAME=VALUE     what is to be filled in; an unknown name is answered with the others
      --part PART          variables, file or unit alone, for scripts: fails if anything is left to
                           be filled in
      --host-facts FILE    the configuration is of the host of these facts, not of this one
      --json               all of it, for programs

TARGET is WORKLOAD/TARGET where more than one workload has a target of that name.";

pub const NONCE: &str = "\
usage: assertctl nonce --policy FILE

Makes a nonce for `assertctl attest` on a host, and prints it: 32 bytes in hexadecimal. Its
SHA-256 is kept beside the policy's registry, so that `assertctl verify --record` accepts one
answer to it, and none that comes later than the policy's max_age_s.

      --policy FILE    says where the registry is, and how old an answer may be
      --json           for programs";

pub const VERIFY: &str = "\
usage: assertctl verify FILE --nonce N --policy FILE [--record] [--eat FILE --eat-key FILE]

Holds the evidence that `assertctl attest` wrote against a policy, and prints one verdict for every
check: passed, failed, unreachable (what it rests on did not pass) or skipped, and why. Then every
key with what is known of where it lives, and by what it is used. Exits with 0 only if no check
failed. Needs no assertd, no TPM and no network. What is proven, and how a policy is written:
docs/attestation.md.

      --nonce N        the one that the evidence was asked for with; yours, and new each time
      --policy FILE    roots, hosts, PCRs, firmware, the level that keys must have (TOML)
      --record         N has to be one that `assertctl nonce` made with this policy, lately; if all
                       passed, it is used up, and the TPM's counters go into the registry, so that
                       an older state is found out
      --eat FILE       write the result as a signed token (EAT, RFC 9711) ...
      --eat-key FILE   ... by this key of yours: PEM, P-256, mode 0600
      --json           verdicts, keys, and the policy's SHA-256";

pub const ENROLL_CHALLENGE: &str = "\
usage: assertctl enroll challenge REQUEST... --policy FILE [--approved FILE] [-o DIRECTORY]

Answers what `assertctl enroll request` wrote on hosts: each with a file that its TPM alone can
open, and only if the attestation key is in it as well. Somebody has to have said whose TPM it is:
the list, or the policy's [host.NAME]; or else the policy says that any TPM with a certificate may
be any host. A REQUEST may be a directory of them. What is pending is kept beside the registry.

      --policy FILE      roots and hosts; says where the registry is
      --approved FILE    approved TPMs, one on a line: FINGERPRINT, or FINGERPRINT HOST. The
                         fingerprint is the SHA-256 of the public endorsement key (SPKI, DER)
  -o, --output DIR       where challenges are written: NAME.challenge.json (default: here)
      --expires S        until when they are answered (default 300; hands may need days)
      --replace HOST     this host has another TPM than it had, on purpose; for each such host
      --json             for programs";

pub const ENROLL_FINISH: &str = "\
usage: assertctl enroll finish RESPONSE... --policy FILE [--replace HOST]

Compares what `assertctl enroll respond` wrote on hosts with what was in their challenges, and
records which attestation key is in which TPM of which host. An identity that is a copy is refused:
one TPM as two hosts, or one attestation key in two TPMs. A RESPONSE may be a directory of them.

      --policy FILE      says where the registry is
      --replace HOST     this host has another TPM than it had, on purpose; for each such host
      --json             for programs";

pub const HELP: &str = "\
usage: assertctl help [COMMAND]

Says what a command does, and its options.";

/// Prints the help of a command, of a group of commands, or the general one.
pub fn show(topic: Option<&str>, out: &mut Out) -> Result<Exit, Failure> {
    let about: Vec<&str> = SPECS
        .iter()
        .filter(|spec| topic.is_some_and(|topic| belongs(spec.name, topic)))
        .map(|spec| spec.help)
        .collect();
    if about.is_empty() {
        out.line(GENERAL);
    } else {
        out.line(&about.join("\n\n"));
    }
    Ok(Exit::Done)
}

/// The command, or the group of commands, that the first words name.
pub fn topic(words: &[String]) -> Option<&'static str> {
    let first = words.first()?;
    let two = words.get(1).map(|second| format!("{first} {second}"));
    let named = |name: &str| {
        SPECS
            .iter()
            .map(|spec| spec.name)
            .find(|known| *known == name)
    };
    let group = |name: &str| {
        SPECS
            .iter()
            .filter_map(|spec| spec.name.split_once(' '))
            .map(|(g, _)| g)
            .find(|g| *g == name)
    };
    two.and_then(|two| named(&two))
        .or_else(|| named(first))
        .or_else(|| group(first))
}

fn belongs(name: &str, topic: &str) -> bool {
    name == topic
        || name
            .strip_prefix(topic)
            .is_some_and(|rest| rest.starts_with(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_help_fits_a_terminal_and_starts_with_its_usage() {
        for spec in &SPECS {
            let usage = format!("usage: assertctl {}", spec.name);
            assert!(spec.help.starts_with(&usage), "{}", spec.name);
        }
        for text in SPECS.iter().map(|spec| spec.help).chain([GENERAL]) {
            for line in text.lines() {
                assert!(
                    line.chars().count() <= 99 && line.trim_end() == line,
                    "{line:?}"
                );
            }
        }
    }

    #[test]
    fn the_general_help_names_every_command() {
        for spec in SPECS.iter().filter(|spec| spec.name != "help") {
            assert!(
                GENERAL.contains(&format!("\n  {}", spec.name)),
                "{}",
                spec.name
            );
        }
    }
}
