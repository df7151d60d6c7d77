//! Whether somebody sits before a process: it has a terminal, or belongs to a login session.
//!
//! A person's shell is no workload, even where its user is one's. This is a guard against mistakes
//! and curiosity, not against that person: whoever may start a service (`systemd-run --user`, cron)
//! gets rid of both.

use super::Unit;
use std::fmt;

/// Where a process runs, as far as it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Session {
    /// Nobody asked.
    Unread,
    /// In no session and without a terminal.
    None,
    /// It has a controlling terminal.
    Terminal,
    /// In this login session's scope (systemd-logind(8)).
    Login(String),
}

/// Whether a process has a controlling terminal (proc_pid_stat(5), `tty_nr`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// It has.
    Controlling,
    /// It has none.
    None,
}

impl Session {
    /// From its terminal and its unit.
    pub fn of(terminal: Terminal, unit: Option<&Unit>) -> Session {
        let name = unit.map(Unit::name);
        let login = name.filter(|name| name.starts_with("session-") && name.ends_with(".scope"));
        match (terminal, login) {
            (_, Some(scope)) => Session::Login(scope.to_owned()),
            (Terminal::Controlling, None) => Session::Terminal,
            (Terminal::None, None) => Session::None,
        }
    }

    /// Whether somebody may sit before it. Ask only where it was read.
    pub fn is_interactive(&self) -> bool {
        !matches!(self, Session::None)
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Session::Unread => f.write_str("not read"),
            Session::None => f.write_str("false"),
            Session::Terminal => f.write_str("true: it has a terminal"),
            Session::Login(scope) => write!(f, "true: it belongs to {scope}"),
        }
    }
}
