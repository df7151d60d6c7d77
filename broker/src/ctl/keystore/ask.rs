//! What a keystore says of itself, on its own socket; or why it does not. Every answer has a
//! deadline: a process that hangs, or has been stopped, accepts connections all the same.

use crate::ctl::doctor::daemon::keystores::{Word, remedy};
use crate::ctl::doctor::finding::{
    ALGS, Check, Finding, KEY, KEYSTORE, KEYSTORE_ANSWERS, LOCKOUT, MEMORY, MODULE_SAYS, PIN,
    PRIMARY, RATE, SALT, SESSIONS, SLOTS, STRANGE_OBJECTS, TOKEN, TPM,
};
use crate::ctl::doctor::site::{Runner, Site};
use crate::ctl::run::within;
use keystore::check::LOOK_TIME_MAX;
use keystore::client::{Client, unexpected};
use keystore::config::Section;
use keystore::protocol::{Reply, Request, Standing};
use keystore::survey::{Line, Subject, Verdict};
use keystore::{Error, Kind};
use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

/// How long the keystore may take to say who it is and how: it does so without its token.
const GREETING: Duration = Duration::from_secs(10);

/// More than all deadlines of the steps together; for what has none, such as a full backlog.
const MARGIN: Duration = Duration::from_secs(15);

/// What came of asking.
enum Answer {
    /// It has looked.
    Lines(Vec<Line>),
    /// It cannot serve.
    Down { word: Word, why: String, pid: u32 },
    /// It is another keystore.
    Other { name: String },
    /// It said who it is and how, and then did not look.
    NoLook { error: Error, pid: u32 },
    /// Nobody said anything.
    Silent(Error),
}

/// Asks, and says what came of it.
pub fn findings(site: &Site, name: &str, section: &Section, socket: &Path) -> Vec<Finding> {
    let look = LOOK_TIME_MAX + section.hang_limit();
    let (asked, wanted) = (socket.to_owned(), name.to_owned());
    let answer = within(GREETING + look + MARGIN, move || ask(&asked, &wanted, look));
    match answer {
        Some(Answer::Lines(lines)) => lines.into_iter().map(finding).collect(),
        Some(Answer::Down { word, why, pid }) => vec![down(site, (name, pid), section, word, &why)],
        Some(Answer::Other { name: other }) => {
            let text = format!(
                "{}: keystore {other} answers there, not {name}",
                socket.display()
            );
            let remedy = format!("correct `socket` in [keystore.{name}] or in [keystore.{other}]");
            vec![KEYSTORE_ANSWERS.fail(text, remedy)]
        }
        Some(Answer::NoLook { error, pid }) => {
            vec![no_look(site, name, pid, &error, look)]
        }
        Some(Answer::Silent(error)) => vec![silent(site, name, socket, &error)],
        None => {
            let text = format!("{name} does not answer: {}", socket.display());
            vec![KEYSTORE_ANSWERS.fail(text, site.restart_keystore(name, None))]
        }
    }
}

fn ask(socket: &Path, name: &str, look: Duration) -> Answer {
    let mut client = match Client::connect(socket, GREETING) {
        Ok(client) => client,
        Err(error) => return Answer::Silent(error),
    };
    let (answered, pid) = (client.welcome().keystore.clone(), client.welcome().pid);
    if answered != name {
        return Answer::Other { name: answered };
    }
    let health = match client.call(&Request::Health {}) {
        Ok(Reply::Health(health)) => health,
        Ok(_) => return Answer::Silent(unexpected()),
        Err(error) => return Answer::Silent(error),
    };
    let word = Word::of(&health.standing);
    if let (Some(word), Standing::Degraded { why, .. } | Standing::Failed { why, .. }) =
        (word, health.standing)
    {
        return Answer::Down { word, why, pid };
    }
    let looked = client
        .set_deadline(look)
        .and_then(|()| client.call(&Request::Check {}));
    match looked {
        Ok(Reply::Checked { lines }) => Answer::Lines(lines),
        Ok(_) => Answer::NoLook {
            error: unexpected(),
            pid,
        },
        Err(error) => Answer::NoLook { error, pid },
    }
}

/// It says itself that it cannot serve.
fn down(
    site: &Site,
    (name, pid): (&str, u32),
    section: &Section,
    word: Word,
    why: &str,
) -> Finding {
    let (check, remedy) = remedy(site, (name, Some(pid)), section, Some(word), why);
    let how = match word {
        Word::Tries(_) => "is degraded and tries by itself",
        Word::NeedsPerson(_) => "has failed",
    };
    check.fail(format!("{name} {how}: {why}"), remedy)
}

/// What the system said of a socket; nothing where the keystore itself spoke.
fn of_system(error: &Error) -> Option<ErrorKind> {
    let error = error.source()?.downcast_ref::<io::Error>()?;
    Some(error.kind())
}

fn is_late(error: &Error) -> bool {
    let late = [ErrorKind::WouldBlock, ErrorKind::TimedOut];
    of_system(error).is_some_and(|kind| late.contains(&kind))
}

fn silent(site: &Site, name: &str, socket: &Path, error: &Error) -> Finding {
    let shown = socket.display();
    if is_late(error) {
        let text = format!(
            "{name} does not answer within {} s, though somebody listens at {shown}: its process \
             hangs, or was stopped",
            GREETING.as_secs()
        );
        let remedy = format!(
            "look at its state (`ps -o pid,stat,wchan,args -C {}`; T is stopped: `kill -CONT PID`); \
             else {}",
            site.keystores[name].program(),
            site.restart_keystore(name, None)
        );
        return KEYSTORE_ANSWERS.fail(text, remedy);
    }
    let text = match of_system(error) {
        Some(ErrorKind::NotFound) => format!("{name}: there is no socket {shown}"),
        Some(ErrorKind::ConnectionRefused) => format!("{name}: nobody listens at {shown}"),
        _ => format!("{name} does not answer: {error}"),
    };
    let remedy = match (&site.runner, &site.keystores[name].socket) {
        (Runner::Units, Some(_)) => {
            let unit = site.keystore_unit(name);
            format!(
                "run `systemctl enable --now {unit}.socket`; `journalctl -u {unit} -n 20 \
                 --no-pager` says more"
            )
        }
        (Runner::Units, None) => "run `systemctl start assertd`, which starts it".to_owned(),
        (Runner::Somebody(_), None) => {
            format!(
                "start assertd, which starts it: `assertd{}`",
                site.options()
            )
        }
        (Runner::Somebody(_), Some(_)) => format!(
            "start it: `{} --config {} --name {name} --socket {shown}`",
            site.keystores[name].program(),
            site.config_path.display()
        ),
    };
    KEYSTORE_ANSWERS.fail(text, remedy)
}

/// It lives and has no answer to this.
fn no_look(site: &Site, name: &str, pid: u32, error: &Error, look: Duration) -> Finding {
    let again = site.restart_keystore(name, Some(pid));
    match error.kind() {
        _ if is_late(error) => {
            let text = format!(
                "{name} lives, but has not looked at its token within {} s",
                look.as_secs()
            );
            KEYSTORE_ANSWERS.fail(text, again)
        }
        // It says so itself.
        Kind::Unavailable if error.source().is_none() => {
            let text = format!("{name}: {error}");
            KEYSTORE_ANSWERS.fail(text, "look again in a moment")
        }
        Kind::Unavailable => {
            let text = format!(
                "{name} ended while it looked at its token ({error}): the token's library crashed, \
                 or hung for longer than hang_limit_s"
            );
            let remedy = "read why in the keystore's log; it is started again by itself";
            KEYSTORE.fail(text, remedy)
        }
        Kind::Protocol => {
            let text = format!("{name} is of another version than assertctl: {error}");
            KEYSTORE_ANSWERS.fail(text, format!("finish the upgrade, then {again}"))
        }
        _ => {
            let text = format!("{name} did not look at its token: {error}");
            KEYSTORE_ANSWERS.fail(text, format!("do what it says, then {again}"))
        }
    }
}

fn finding(line: Line) -> Finding {
    let check = check(line.subject);
    // Warnings and failures have one; another version may think otherwise.
    let remedy = line.remedy.unwrap_or_else(|| "see assertctl(1)".into());
    match line.verdict {
        Verdict::Ok => check.ok(line.text),
        Verdict::Warn => check.warn(line.text, remedy),
        Verdict::Fail => check.fail(line.text, remedy),
    }
}

fn check(subject: Subject) -> Check {
    match subject {
        Subject::Keystore => KEYSTORE_ANSWERS,
        Subject::Module => MODULE_SAYS,
        Subject::Token => TOKEN,
        Subject::Pin => PIN,
        Subject::Tpm => TPM,
        Subject::Primary => PRIMARY,
        Subject::Lockout => LOCKOUT,
        Subject::Slots => SLOTS,
        Subject::Sessions => SESSIONS,
        Subject::Algs => ALGS,
        Subject::Salt => SALT,
        Subject::Memory => MEMORY,
        Subject::Key => KEY,
        Subject::Strange => STRANGE_OBJECTS,
        Subject::Rate => RATE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::doctor::finding::Severity;
    use crate::ctl::doctor::site::NoUnits;

    fn site(runner: Runner, socket: Option<&str>) -> Site {
        let socket = socket.map_or_else(String::new, |path| format!("socket = \"{path}\"\n"));
        let section: Section = toml::from_str(&format!("backend = \"tpm\"\n{socket}")).unwrap();
        Site {
            keystores: [("tpm".to_owned(), section)].into(),
            runner,
            ..Site::look(Some(Path::new("/nonexistent/assertd.toml")))
        }
    }

    fn somebody() -> Site {
        site(Runner::Somebody(NoUnits::NoSystemd), None)
    }

    fn of(kind: ErrorKind) -> Error {
        Error::new(Kind::Unavailable, "connection lost").because(io::Error::from(kind))
    }

    #[test]
    fn a_silent_keystore_is_told_from_one_that_is_not_there() {
        let socket = Path::new("/run/k.sock");
        let text = |kind| silent(&somebody(), "tpm", socket, &of(kind)).text;
        for late in [ErrorKind::WouldBlock, ErrorKind::TimedOut] {
            assert!(text(late).contains("hangs, or was stopped"));
        }
        assert_eq!(
            text(ErrorKind::NotFound),
            "tpm: there is no socket /run/k.sock"
        );
        assert!(text(ErrorKind::ConnectionRefused).contains("nobody listens"));
        let unit = site(Runner::Units, Some("/run/k.sock"));
        let remedy = silent(&unit, "tpm", socket, &of(ErrorKind::NotFound)).remedy;
        let remedy = remedy.unwrap();
        assert!(
            remedy.contains("systemctl enable --now assertd-keystore-tpm@tpm.socket"),
            "{remedy}"
        );
    }

    #[test]
    fn one_that_tries_by_itself_is_left_alone_and_one_that_has_failed_is_not() {
        let site = somebody();
        let why = "device /dev/tpmrm0: the TPM cannot be reached; start what stands before it";
        let found = |word| down(&site, ("tpm", 7), &site.keystores["tpm"], word, why);
        let tries = found(Word::Tries(Kind::Absent));
        assert_eq!(tries.severity, Severity::Fail);
        assert!(tries.text.contains("degraded"), "{}", tries.text);
        let remedy = tries.remedy.unwrap();
        assert!(remedy.contains("by itself"), "{remedy}");
        assert!(
            !remedy.contains("kill") && !remedy.contains("run `"),
            "{remedy}"
        );
        let failed = found(Word::NeedsPerson(Kind::Mismatch));
        assert!(failed.text.contains("has failed"), "{}", failed.text);
        assert!(failed.remedy.unwrap().contains("run `kill 7`"));
    }

    #[test]
    fn a_keystore_that_ends_is_told_from_one_that_is_busy() {
        let text = |error: Error| {
            let found = no_look(&somebody(), "tpm", 7, &error, Duration::from_secs(60));
            assert_eq!(found.severity, Severity::Fail);
            found.text
        };
        let busy = Error::new(Kind::Unavailable, "is being looked at already");
        assert_eq!(text(busy), "tpm: is being looked at already");
        assert!(text(of(ErrorKind::UnexpectedEof)).contains("ended while it looked"));
        assert!(
            text(of(ErrorKind::WouldBlock)).contains("has not looked at its token within 60 s")
        );
        let old = Error::new(Kind::Protocol, "message is not one of this protocol");
        assert!(text(old).contains("another version"));
    }
}
