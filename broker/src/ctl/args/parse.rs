//! The walk over the words: options are taken as they come, the command is found by its words, and
//! what the command does not know is refused.

use super::super::help;
use super::{
    Args, Backends, CREATIONS_MAX, Changes, Command, Consent, Delivery, Format, GLOBAL, Opt,
    RECORDS_SHOWN, SPECS, Spec, Strictness, Upkeep, Usage,
};
use crate::ctl::attest::Wish;
use crate::ctl::certificate::Form;
use crate::ctl::env::{Part, Sdk};
use crate::ctl::{approve, enroll, verify};
use assertd_client::api::KeyVerb;
use keystore::backend::{Existing, Label, TokenId};
use keystore::config::{Tcti, suggest};
use keystore::evidence::bundle::{Bank, Host, Nonce, PcrIndex, PcrValue};
use keystore::evidence::enrolment::EXPIRES_MAX_S;
use keystore::keyid::check_part;
use keystore::{KeyId, KeyName};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;

/// Words and options, before the command is known.
#[derive(Default)]
struct Raw {
    socket: Option<OsString>,
    config: Option<OsString>,
    json: bool,
    help: bool,
    version: bool,
    options: BTreeMap<Opt, OsString>,
    repeated: Vec<OsString>,
    words: Vec<OsString>,
}

/// Understands a command line, given without the program's name.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Args, Usage> {
    let mut raw = Raw::default();
    let split = split(arguments, &mut raw);
    let words: Vec<String> = raw
        .words
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let meant = find(&words).ok().map(|(spec, _)| spec);
    split
        .and_then(|()| understand(raw, &words))
        .map_err(|wrong| match meant {
            Some(spec) => wrong.of(spec),
            None => wrong,
        })
}

fn understand(raw: Raw, words: &[String]) -> Result<Args, Usage> {
    let socket = raw.socket.clone().map(PathBuf::from);
    let config = raw.config.clone().map(PathBuf::from);
    let format = if raw.json { Format::Json } else { Format::Text };
    let command = if raw.help {
        Command::Help {
            topic: help::topic(words).map(str::to_owned),
        }
    } else if raw.version {
        Command::Version
    } else {
        command(raw, words, format)?
    };
    Ok(Args {
        socket,
        config,
        format,
        command,
    })
}

/// Fills `raw`, which holds what came before a mistake also after it.
fn split(arguments: impl IntoIterator<Item = OsString>, raw: &mut Raw) -> Result<(), Usage> {
    use lexopt::Arg::{Long, Short, Value};
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(arg) = parser.next()? {
        let option = match arg {
            Value(word) => {
                raw.words.push(word);
                continue;
            }
            Short('h') | Long("help") => {
                raw.help = true;
                continue;
            }
            Short('V') | Long("version") => {
                raw.version = true;
                continue;
            }
            Long("json") => {
                raw.json = true;
                continue;
            }
            Short('s') | Long("socket") => {
                once(&mut raw.socket, "--socket", parser.value()?)?;
                continue;
            }
            Short('c') | Long("config") => {
                once(&mut raw.config, "--config", parser.value()?)?;
                continue;
            }
            Short('y') => Opt::Yes,
            Short('n') => Opt::Number,
            Short('o') => Opt::Output,
            Short(letter) => return Err(unknown_option(&format!("-{letter}"), &raw.words)),
            Long(name) => {
                let flag = format!("--{name}");
                let known = Opt::ALL.into_iter().find(|option| option.flag() == flag);
                known.ok_or_else(|| unknown_option(&flag, &raw.words))?
            }
        };
        let value = if option.takes_value() {
            parser.value()?
        } else {
            OsString::new()
        };
        if option.repeats() {
            raw.repeated.push(value.clone());
        }
        if raw.options.insert(option, value).is_some() && !option.repeats() {
            return Err(Usage::new(format!("{} is given twice", option.flag())));
        }
    }
    Ok(())
}

fn once(slot: &mut Option<OsString>, flag: &str, value: OsString) -> Result<(), Usage> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Usage::new(format!("{flag} is given twice"))),
    }
}

/// The nearest option of the command, if one was named before; else of all commands.
fn unknown_option(flag: &str, words: &[OsString]) -> Usage {
    let words: Vec<String> = words
        .iter()
        .map(|word| word.to_string_lossy().into())
        .collect();
    let options = find(&words).map_or(&Opt::ALL[..], |(spec, _)| spec.options);
    let known: Vec<&str> = options
        .iter()
        .map(|option| option.flag())
        .chain(GLOBAL)
        .collect();
    Usage::new(format!(
        "unknown option `{flag}`; {}",
        suggest(flag, &known)
    ))
}

/// What follows `keys`: a name has a slash in it, a verb that was mistyped has none.
fn name_or_verb(word: &str) -> Result<KeyName, Usage> {
    word.parse().map_err(|_| {
        let text = format!(
            "unknown command `keys {word}`; {}",
            suggest(word, &below("keys"))
        );
        Usage::new(text)
    })
}

/// The command the words name, with its options and operands.
fn command(raw: Raw, words: &[String], format: Format) -> Result<Command, Usage> {
    let (spec, taken) = find(words)?;
    if let Some(option) = raw
        .options
        .keys()
        .find(|option| !spec.options.contains(option))
    {
        return Err(Usage::new(format!(
            "`assertctl {}` takes no {}",
            spec.name,
            option.flag()
        )));
    }
    if let Some(extra) = words.get(taken + spec.operands_max) {
        let below = below(spec.name);
        if !below.is_empty() {
            return Err(Usage::new(format!(
                "unknown command `{} {extra}`; {}",
                spec.name,
                suggest(extra, &below)
            )));
        }
        return Err(Usage::new(format!(
            "`assertctl {}`: `{extra}` is too much",
            spec.name
        )));
    }
    let path = raw.words.get(taken).map(PathBuf::from);
    let raw_word = raw.words.get(taken).cloned();
    let pairs = pairs(&raw)?;
    let replaced = replaced(&raw)?;
    let mut options = Options(raw.options);
    Ok(match spec.name {
        "assertion" => Command::Assertion {
            target: options.text(Opt::Target)?.ok_or_else(|| {
                Usage::new("--target is missing: `assertctl targets` lists yours")
            })?,
            lifetime_s: options.number(Opt::Lifetime)?,
            delivery: options.delivery(format)?,
        },
        "env" => Command::Env {
            target: words.get(taken).cloned().ok_or_else(|| {
                Usage::new(
                    "which target? Write TARGET, or WORKLOAD/TARGET where two have one of its name",
                )
            })?,
            sdk: options.sdk()?,
            part: options.part(format)?,
            settings: pairs,
            host_facts: options.text(Opt::HostFacts)?.map(PathBuf::from),
        },
        "whoami" => Command::Whoami,
        "targets" => Command::Targets,
        "status" => Command::Status,
        "keys" => Command::Keys {
            name: words
                .get(taken)
                .map(|word| name_or_verb(word))
                .transpose()?,
        },
        "keys rotate" | "keys activate" | "keys hold" | "keys resume" | "keys revoke"
        | "keys abandon" | "keys destroy" | "keys replace-lost" => {
            key_verb(spec.name, words.get(taken), &mut options)?
        }
        "keys certificate" => Command::KeyCertificate {
            key: key_word(words.get(taken))?,
            form: match options.flag(Opt::Csr) {
                true => Form::Request,
                false => Form::Certificate,
            },
        },
        "keys import" => Command::KeyImport {
            name: whole_key(words.get(taken))?,
            file: raw.words.get(taken + 1).map(PathBuf::from).ok_or_else(|| {
                Usage::new("which file? Name one with the private key, or - for standard input")
            })?,
        },
        "keys adopt" => Command::KeyAdopt {
            name: whole_key(words.get(taken))?,
            object: options.object()?,
        },
        "state accept-rollback" => Command::StateAcceptRollback {
            consent: options.consent(),
        },
        "attest" => Command::Attest(options.wish()?),
        "enroll request" => Command::EnrollRequest {
            keystore: options.text(Opt::Keystore)?,
            output: options.text(Opt::Output)?.map(PathBuf::from),
        },
        "enroll challenge" => Command::Enroll(enroll::Wish::Challenge {
            requests: files("request", &raw.words[taken..])?,
            policy: options.policy()?,
            approved: options.text(Opt::Approved)?.map(PathBuf::from),
            output: options.text(Opt::Output)?.map_or(".".into(), PathBuf::from),
            expires_s: options.expires()?,
            replaced,
        }),
        "enroll finish" => Command::Enroll(enroll::Wish::Finish {
            responses: files("response", &raw.words[taken..])?,
            policy: options.policy()?,
            replaced,
        }),
        "approve request" => Command::Approve(approve::Wish::Request {
            keystore: options.text(Opt::Keystore)?,
            pcrs: values(pairs)?,
            output: options
                .text(Opt::Output)?
                .map(PathBuf::from)
                .ok_or_else(|| {
                    Usage::new(
                        "--output is missing: where is what is to be approved to be written?",
                    )
                })?,
        }),
        "approve bytes" => {
            let output = options.text(Opt::Output)?.map(PathBuf::from);
            let authority = options.text(Opt::Authority)?.map(PathBuf::from);
            if path.is_none() && (authority.is_none() || output.is_some()) {
                return Err(Usage::new(
                    "which request? Name the file that `assertctl approve request` wrote",
                ));
            }
            Command::Approve(approve::Wish::Bytes {
                request: path,
                output,
                authority,
            })
        }
        "approve finish" => Command::Approve(approve::Wish::Finish {
            request: path.ok_or_else(|| {
                Usage::new("which request? Name the file that `assertctl approve request` wrote")
            })?,
            signature: raw.words.get(taken + 1).map(PathBuf::from).ok_or_else(|| {
                Usage::new("which signature? Name the file that the authority made of it")
            })?,
            keystore: options.text(Opt::Keystore)?,
        }),
        "nonce" => Command::Nonce {
            policy: options.policy()?,
        },
        "verify" => Command::Verify(options.verify(path)?),
        "enroll respond" => Command::EnrollRespond {
            challenge: raw_word.map(PathBuf::from).ok_or_else(|| {
                Usage::new("which challenge? Name the file that `assertctl enroll challenge` wrote")
            })?,
            output: options.text(Opt::Output)?.map(PathBuf::from),
        },
        "jwks" => Command::Jwks {
            with_evidence: options.flag(Opt::WithEvidence),
            key: options.key()?,
        },
        "jwks merge" if words.len() == taken => {
            return Err(Usage::new("merge what? Name a file of each host's set"));
        }
        "jwks merge" => Command::JwksMerge {
            files: raw.words[taken..].iter().map(PathBuf::from).collect(),
            output: options.text(Opt::Output)?.map(PathBuf::from),
        },
        "config check" => options.config_check()?,
        "config schema" => Command::ConfigSchema,
        "host-facts" => Command::HostFacts,
        "config diff" if options.flag(Opt::ExitCode) => Command::ConfigDiff {
            changes: Changes::AreOne,
        },
        "config diff" => Command::ConfigDiff {
            changes: Changes::AreFine,
        },
        "check" => Command::Check,
        "keystore check" => Command::KeystoreCheck {
            name: words.get(taken).cloned(),
        },
        "reload" => Command::Reload,
        "init" => Command::Init {
            consent: options.consent(),
            backends: options.backends(!pairs.is_empty())?,
            module: options.text(Opt::Module)?.map(PathBuf::from),
            token: options.text(Opt::Token)?,
            tcti: options.tcti()?,
            name: options.name()?,
            environment: pairs,
        },
        "apply" => Command::Apply {
            consent: options.consent(),
            creations_max: options
                .number(Opt::Max)?
                .map_or(CREATIONS_MAX, |n| n as usize),
        },
        "audit verify" => Command::AuditVerify { dir: path },
        "audit show" => Command::AuditShow {
            dir: path,
            count: options
                .number(Opt::Number)?
                .map_or(RECORDS_SHOWN, |n| n as usize),
        },
        "explain" => explain(&mut options, words.get(taken))?,
        "profiles" => Command::Profiles {
            name: words.get(taken).cloned(),
        },
        "help" => Command::Help {
            topic: help_topic(&words[taken..])?,
        },
        other => unreachable!("`{other}` stands in SPECS and so in this match"),
    })
}

/// At least one file, or directory.
fn files(what: &str, words: &[OsString]) -> Result<Vec<PathBuf>, Usage> {
    match words {
        [] => Err(Usage::new(format!(
            "which {what}? Name its file, or a directory of such"
        ))),
        words => Ok(words.iter().map(PathBuf::from).collect()),
    }
}

/// What is done with one key.
fn key_verb(command: &str, key: Option<&String>, options: &mut Options) -> Result<Command, Usage> {
    let verb = match command {
        "keys rotate" => KeyVerb::Rotate,
        "keys activate" => KeyVerb::Activate,
        "keys hold" => KeyVerb::Hold,
        "keys resume" => KeyVerb::Resume,
        "keys revoke" => KeyVerb::Revoke,
        "keys abandon" => KeyVerb::Abandon,
        "keys destroy" => KeyVerb::Destroy,
        _ => KeyVerb::ReplaceLost,
    };
    let key = key_word(key)?;
    let (compromised, consent) = (options.flag(Opt::Compromised), options.consent());
    if verb == KeyVerb::Revoke && !compromised {
        return Err(Usage::new(
            "a key is revoked because it may have been misused: say --compromised. To replace one in \
             good order: `assertctl keys rotate`; to stop it for a while: `assertctl keys hold`",
        ));
    }
    Ok(Command::KeyVerb {
        verb,
        key,
        now: options.flag(Opt::Now),
        consent,
    })
}

/// A key, or a version of one.
fn key_word(key: Option<&String>) -> Result<String, Usage> {
    let key = key.ok_or_else(|| {
        Usage::new("which key? `assertctl keys` lists them: payments/bank, or payments/bank.2")
    })?;
    if key.parse::<KeyName>().is_err() && key.parse::<KeyId>().is_err() {
        let text = format!(
            "`{key}` is no key: write WORKLOAD/TARGET or issuer/NAME, with .VERSION for one"
        );
        return Err(Usage::new(text));
    }
    Ok(key.clone())
}

/// A key whose next version it is about.
fn whole_key(key: Option<&String>) -> Result<KeyName, Usage> {
    let key = key_word(key)?;
    key.parse().map_err(|_| {
        let text = format!("`{key}` is one version: write the key, and it becomes the next one");
        Usage::new(text)
    })
}

/// An id, or a process and a target.
fn explain(options: &mut Options, id: Option<&String>) -> Result<Command, Usage> {
    let (pid, target) = (options.number(Opt::Pid)?, options.text(Opt::Target)?);
    match (id, pid, target) {
        (Some(id), None, None) => Ok(Command::ExplainId { id: id.clone() }),
        (None, Some(pid), Some(target)) => Ok(Command::ExplainProcess { pid, target }),
        _ => Err(Usage::new(
            "explain what? Give the ID of a denied request, or --pid P and --target T",
        )),
    }
}

/// Values of PCRs.
fn values(pairs: BTreeMap<String, String>) -> Result<BTreeMap<PcrIndex, PcrValue>, Usage> {
    let value = |(index, value): (String, String)| {
        let wrong = |why: String| Usage::new(format!("--pcr `{index}={value}`: {why}"));
        let parsed: PcrIndex = index.parse().map_err(wrong)?;
        let read: PcrValue = value.parse().map_err(wrong)?;
        match read.as_slice().len() == Bank::Sha256.digest_len() {
            true => Ok((parsed, read)),
            false => Err(wrong(
                "it is of bank sha256, with 64 hexadecimal digits".to_owned(),
            )),
        }
    };
    pairs.into_iter().map(value).collect()
}

/// `NAME=VALUE`, as often as it is given, of the one option of the command that repeats.
fn pairs(raw: &Raw) -> Result<BTreeMap<String, String>, Usage> {
    let flag = raw.options.keys().find(|option| option.repeats());
    let flag = flag.map_or("", |option| option.flag());
    let mut pairs = BTreeMap::new();
    if raw.options.contains_key(&Opt::Replace) {
        return Ok(pairs);
    }
    for pair in &raw.repeated {
        let pair = pair.to_string_lossy();
        let wrong = |why: &str| Usage::new(format!("{flag} `{pair}`: {why}"));
        let (name, value) = pair
            .split_once('=')
            .filter(|(name, _)| !name.is_empty() && !pair.contains('\0'))
            .ok_or_else(|| wrong("write NAME=VALUE"))?;
        if pairs.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(wrong("is given twice"));
        }
    }
    Ok(pairs)
}

/// `--replace HOST`, as often as it is given.
fn replaced(raw: &Raw) -> Result<BTreeSet<Host>, Usage> {
    let hosts = raw.repeated.iter();
    let hosts = hosts.filter(|_| raw.options.contains_key(&Opt::Replace));
    let host = |it: &OsString| {
        let host = it.to_string_lossy().parse::<Host>();
        host.map_err(|wrong| Usage::new(format!("--replace: {wrong}")))
    };
    hosts.map(host).collect()
}

/// The command that the first word or two name, and how many words that are.
fn find(words: &[String]) -> Result<(&'static Spec, usize), Usage> {
    let Some(first) = words.first() else {
        return Err(Usage::new("which command?"));
    };
    let two = words.get(1).map(|second| format!("{first} {second}"));
    for (name, taken) in [(two.as_deref(), 2), (Some(first.as_str()), 1)] {
        if let Some(spec) = SPECS.iter().find(|spec| Some(spec.name) == name) {
            return Ok((spec, taken));
        }
    }
    let below = below(first);
    match (below.is_empty(), words.get(1)) {
        (false, None) => Err(Usage::new(format!(
            "`assertctl {first}` what? {}",
            below.join(" or ")
        ))),
        (false, Some(second)) => Err(Usage::new(format!(
            "unknown command `{first} {second}`; {}",
            suggest(second, &below)
        ))),
        (true, _) => {
            let mut known: Vec<&str> = SPECS
                .iter()
                .filter_map(|spec| spec.name.split(' ').next())
                .collect();
            known.dedup();
            Err(Usage::new(format!(
                "unknown command `{first}`; {}",
                suggest(first, &known)
            )))
        }
    }
}

/// The second words of commands that begin with this one.
fn below(first: &str) -> Vec<&'static str> {
    let second = |spec: &'static Spec| spec.name.strip_prefix(first)?.strip_prefix(' ');
    SPECS.iter().filter_map(second).collect()
}

fn help_topic(words: &[String]) -> Result<Option<String>, Usage> {
    if words.is_empty() {
        return Ok(None);
    }
    match help::topic(words) {
        Some(topic) => Ok(Some(topic.to_owned())),
        None => find(words).map(|(spec, _)| Some(spec.name.to_owned())),
    }
}

/// What is left to be taken out of a command's options.
struct Options(BTreeMap<Opt, OsString>);

impl Options {
    fn flag(&mut self, option: Opt) -> bool {
        self.0.remove(&option).is_some()
    }

    fn consent(&mut self) -> Consent {
        if self.flag(Opt::Yes) {
            Consent::Given
        } else {
            Consent::Ask
        }
    }

    /// How an assertion is handed over: one way.
    fn delivery(&mut self, format: Format) -> Result<Delivery, Usage> {
        let (keep, here) = (self.flag(Opt::Keep), self.flag(Opt::Foreground));
        let path = self.text(Opt::Output)?.map(PathBuf::from);
        let form = self.text(Opt::As)?;
        if path.is_none() && (keep || here) {
            return Err(Usage::new(
                "--keep needs --output: which file is kept fresh?",
            ));
        }
        if here && !keep {
            return Err(Usage::new("--foreground is for --keep"));
        }
        let given = [path.is_some(), form.is_some(), format == Format::Json];
        if given.into_iter().filter(|it| *it).count() > 1 {
            return Err(Usage::new("give one of --output, --as and --json"));
        }
        match (path, form.as_deref()) {
            (Some(path), _) => Ok(Delivery::File {
                path,
                upkeep: match (keep, here) {
                    (false, _) => Upkeep::None,
                    (true, false) => Upkeep::Beside,
                    (true, true) => Upkeep::Here,
                },
            }),
            (None, None) => Ok(Delivery::Print),
            (None, Some("google")) => Ok(Delivery::Google),
            (None, Some("kubernetes")) => Ok(Delivery::Kubernetes),
            (None, Some(other)) => {
                let help = suggest(other, &["google", "kubernetes"]);
                Err(Usage::new(format!("--as `{other}`: {help}")))
            }
        }
    }

    /// Which evidence, and what it is held against.
    fn verify(&mut self, evidence: Option<PathBuf>) -> Result<verify::Wish, Usage> {
        let evidence = evidence.ok_or_else(|| {
            Usage::new("verify what? Name the file that `assertctl attest` wrote")
        })?;
        let eat = match (self.text(Opt::Eat)?, self.text(Opt::EatKey)?) {
            (None, None) => None,
            (Some(path), Some(key)) => Some(verify::Eat {
                path: path.into(),
                key: key.into(),
            }),
            _ => {
                return Err(Usage::new(
                    "--eat and --eat-key go together: what is signed, and by which key",
                ));
            }
        };
        Ok(verify::Wish {
            evidence,
            nonce: self.nonce()?,
            policy: self.policy()?,
            record: match self.flag(Opt::Record) {
                true => verify::Record::Accepted,
                false => verify::Record::No,
            },
            eat,
        })
    }

    fn policy(&mut self) -> Result<PathBuf, Usage> {
        let policy = self.text(Opt::Policy)?.map(PathBuf::from);
        policy.ok_or_else(|| Usage::new("--policy is missing: what is evidence held against?"))
    }

    fn expires(&mut self) -> Result<Option<u32>, Usage> {
        let seconds = self.number(Opt::Expires)?;
        match seconds {
            Some(it) if u64::from(it) > EXPIRES_MAX_S => Err(Usage::new(format!(
                "--expires {it}: {EXPIRES_MAX_S} seconds at most"
            ))),
            _ => Ok(seconds),
        }
    }

    fn nonce(&mut self) -> Result<Nonce, Usage> {
        let nonce = self.text(Opt::Nonce)?.ok_or_else(|| {
            Usage::new(
                "--nonce is missing: 32 bytes that whoever verifies has chosen for this once",
            )
        })?;
        let nonce = nonce.parse::<Nonce>();
        nonce.map_err(|wrong| Usage::new(format!("--nonce: {wrong}")))
    }

    /// What is to be attested, and to whom.
    fn wish(&mut self) -> Result<Wish, Usage> {
        let nonce = self.nonce()?;
        let (target, all) = (self.text(Opt::Target)?, self.flag(Opt::All));
        match (&target, all) {
            (Some(_), true) | (None, false) => {
                return Err(Usage::new(
                    "which keys? Give --target WORKLOAD/TARGET or --all",
                ));
            }
            (Some(text), false) if !text.contains('/') => {
                let wrong = format!("--target `{text}`: write WORKLOAD/TARGET, or issuer/NAME");
                return Err(Usage::new(wrong));
            }
            _ => {}
        }
        Ok(Wish {
            nonce,
            target,
            purpose: self.text(Opt::Purpose)?,
            output: self.text(Opt::Output)?.map(PathBuf::from),
        })
    }

    fn sdk(&mut self) -> Result<Option<Sdk>, Usage> {
        let Some(text) = self.text(Opt::For)? else {
            return Ok(None);
        };
        let found = Sdk::ALL.into_iter().find(|sdk| sdk.name() == text);
        found.map(Some).ok_or_else(|| {
            let names = Sdk::ALL.map(Sdk::name);
            Usage::new(format!("--for `{text}`: {}", suggest(&text, &names)))
        })
    }

    fn part(&mut self, format: Format) -> Result<Option<Part>, Usage> {
        let Some(text) = self.text(Opt::Part)? else {
            return Ok(None);
        };
        if format == Format::Json {
            return Err(Usage::new("--json prints all parts: leave out --part"));
        }
        let found = Part::ALL.into_iter().find(|part| part.name() == text);
        found.map(Some).ok_or_else(|| {
            let names = Part::ALL.map(Part::name);
            Usage::new(format!("--part `{text}`: {}", suggest(&text, &names)))
        })
    }

    /// To look, or to have one finding explained.
    fn config_check(&mut self) -> Result<Command, Usage> {
        let Some(id) = self.text(Opt::Explain)? else {
            return Ok(Command::ConfigCheck {
                host_facts: self.text(Opt::HostFacts)?.map(PathBuf::from),
                strictness: match self.flag(Opt::Strict) {
                    true => Strictness::WarningsFail,
                    false => Strictness::WarningsAreFine,
                },
            });
        };
        match self.0.keys().next() {
            None => Ok(Command::ExplainFinding { id }),
            Some(other) => Err(Usage::new(format!(
                "--explain looks at no configuration, and {} is for one that does",
                other.flag()
            ))),
        }
    }

    /// `--backend`, or what the options of one kind say; `environment` is one of a token's.
    fn backends(&mut self, environment: bool) -> Result<Option<Backends>, Usage> {
        let of_token = [Opt::Module, Opt::Token];
        let of_token = of_token.into_iter().find(|it| self.0.contains_key(it));
        let of_token = of_token.or(environment.then_some(Opt::Environment));
        let of_tpm = self.0.contains_key(&Opt::Tcti).then_some(Opt::Tcti);
        let chosen = match self.text(Opt::Backend)?.as_deref() {
            Some("pkcs11") => Backends::Pkcs11,
            Some("tpm") => Backends::Tpm,
            Some("both") => Backends::Both,
            Some(other) => {
                let wrong = format!("--backend `{other}`: write pkcs11, tpm or both");
                return Err(Usage::new(wrong));
            }
            None => {
                return Ok(match (of_token, of_tpm) {
                    (None, None) => None,
                    (Some(_), None) => Some(Backends::Pkcs11),
                    (None, Some(_)) => Some(Backends::Tpm),
                    (Some(_), Some(_)) => Some(Backends::Both),
                });
            }
        };
        match (chosen, of_token, of_tpm) {
            (Backends::Tpm, Some(option), _) | (Backends::Pkcs11, _, Some(option)) => {
                let flag = option.flag();
                Err(Usage::new(format!("{flag} is for the other --backend")))
            }
            _ => Ok(Some(chosen)),
        }
    }

    /// `--tcti`, as the configuration takes it.
    fn tcti(&mut self) -> Result<Option<Tcti>, Usage> {
        let text = self.text(Opt::Tcti)?;
        let parsed = text
            .map(|text| Tcti::parse(&text).map_err(|wrong| Usage::new(format!("--tcti: {wrong}"))));
        parsed.transpose()
    }

    /// `--id` or `--label`: which of the token's keys.
    fn object(&mut self) -> Result<Existing, Usage> {
        match (self.text(Opt::Id)?, self.text(Opt::Label)?) {
            (Some(id), None) => {
                let wrong = |error| Usage::new(format!("--id `{id}`: {error}"));
                let id = TokenId::try_from(id.clone()).map_err(wrong)?;
                Ok(Existing::Id(id))
            }
            (None, Some(label)) => {
                let wrong = |error| Usage::new(format!("--label: {error}"));
                let label = Label::try_from(label).map_err(wrong)?;
                Ok(Existing::Label(label))
            }
            _ => Err(Usage::new(
                "which of the token's keys? Give its --id (CKA_ID, in hexadecimal) or its --label",
            )),
        }
    }

    /// `--name`: becomes a section, a unit's instance and a file's name.
    fn name(&mut self) -> Result<Option<String>, Usage> {
        let name = self.text(Opt::Name)?;
        if let Some(text) = &name {
            check_part(text).map_err(|e| Usage::new(format!("--name `{text}`: {e}")))?;
        }
        Ok(name)
    }

    fn text(&mut self, option: Opt) -> Result<Option<String>, Usage> {
        let Some(value) = self.0.remove(&option) else {
            return Ok(None);
        };
        match value.into_string() {
            Ok(text) if !text.is_empty() => Ok(Some(text)),
            _ => Err(Usage::new(format!(
                "{} needs a value of UTF-8 text",
                option.flag()
            ))),
        }
    }

    fn number(&mut self, option: Opt) -> Result<Option<u32>, Usage> {
        let Some(text) = self.text(option)? else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) if number > 0 => Ok(Some(number)),
            _ => {
                let most = u32::MAX;
                Err(Usage::new(format!(
                    "{} `{text}` is no number from 1 to {most}",
                    option.flag()
                )))
            }
        }
    }

    /// `--key`, `--target` and `--issuer` are three ways to name one key.
    fn key(&mut self) -> Result<Option<KeyName>, Usage> {
        if self.0.len() > 1 {
            return Err(Usage::new("give one of --key, --target and --issuer"));
        }
        let name = |flag: &str, text: &str| {
            text.parse::<KeyName>()
                .map_err(|e| Usage::new(format!("{flag} `{text}`: {e}")))
        };
        if let Some(text) = self.text(Opt::Key)? {
            return name("--key", &text).map(Some);
        }
        if let Some(text) = self.text(Opt::Target)? {
            return match text.split_once('/') {
                Some((workload, _)) if workload != "issuer" => name("--target", &text).map(Some),
                _ => Err(Usage::new(format!(
                    "--target `{text}`: write WORKLOAD/TARGET"
                ))),
            };
        }
        let Some(text) = self.text(Opt::Issuer)? else {
            return Ok(None);
        };
        let wrong = |e| Usage::new(format!("--issuer `{text}`: {e}"));
        check_part(&text).map_err(wrong)?;
        KeyName::issuer(&text).map(Some).map_err(wrong)
    }
}
