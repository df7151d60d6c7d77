//! A restart of assertd under load: nobody notices but by the clock.

use super::load::{Load, Manner};
use super::site::{BROKER_UNIT, audit_is_intact};
use super::units::{demand, main_pid};
use crate::boxed::SysBox;
use crate::suite::Suite;

const RESTARTS: usize = 4;

pub fn run(suite: &mut Suite<'_>, boxed: &SysBox) {
    suite.check(
        "restart: no connection is refused and no request is cut, without a second try",
        || under_load(boxed),
    );
    suite.check(
        "restart: the audit log goes on in its segment, and its chain holds",
        || audit(boxed),
    );
}

fn under_load(boxed: &SysBox) -> Result<(), String> {
    let before = sockets(boxed)?;
    let load = Load::start(boxed, Manner::OnceFresh)?;
    let mut pids = vec![main_pid(boxed, BROKER_UNIT)?];
    for _ in 0..RESTARTS {
        boxed
            .run(&["systemctl", "restart", BROKER_UNIT])
            .success()?;
        pids.push(main_pid(boxed, BROKER_UNIT)?);
    }
    let counts = load.end()?;
    pids.dedup();
    demand(pids.len() == RESTARTS + 1, || {
        format!("not restarted: {pids:?}")
    })?;
    let whole = counts.not_connected + counts.cut + counts.unavailable + counts.lost == 0;
    demand(whole && counts.served > RESTARTS, || counts.to_string())?;
    let after = sockets(boxed)?;
    demand(before == after, || {
        format!("sockets before {before}, after {after}")
    })
}

/// Inodes of the two paths, and of the listening sockets behind them (proc(5), /proc/net/unix).
fn sockets(boxed: &SysBox) -> Result<String, String> {
    let script = "stat -c '%n %i' /run/assertd/assertd.sock /run/assertd/admin.sock
                  awk '$4 == \"00010000\" && $8 ~ /assertd\\/(assertd|admin).sock/ {print $8, $7}' \
                    /proc/net/unix | sort";
    let found = boxed.sh(script).success()?;
    demand(found.lines().count() == 4, || {
        format!("not two sockets: {found}")
    })?;
    Ok(found.replace('\n', "; "))
}

fn audit(boxed: &SysBox) -> Result<(), String> {
    let segments = || {
        boxed
            .sh("ls /var/lib/assertd/audit | grep '^audit-.*log$'")
            .success()
    };
    let before = segments()?;
    for signal in ["TERM", "KILL"] {
        let pid = main_pid(boxed, BROKER_UNIT)?;
        let option = format!("--signal={signal}");
        boxed
            .run(&["systemctl", "kill", "--kill-who=main", &option, BROKER_UNIT])
            .success()?;
        super::units::until(
            &format!("assertd is another process after SIG{signal}"),
            || {
                // SIGTERM ends it for good, until somebody asks.
                super::caller::pay(boxed).is_ok_and(|answer| answer.status == 200)
                    && main_pid(boxed, BROKER_UNIT).is_ok_and(|now| now != pid)
            },
        )?;
    }
    let after = segments()?;
    demand(before == after, || {
        format!("segments before: {before}after: {after}")
    })?;
    audit_is_intact(boxed)
}
