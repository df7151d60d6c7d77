//! The users that the units run as.

use super::finding::{ACCOUNTS, Finding, MEMBERSHIP};
use super::site::{BROKER_USER, KEYSTORE_USER, Runner, Users};
use crate::ctl::account::Account;

/// Judges. `broker_group` is the id of group `assertd`, if there is one.
pub fn findings(
    runner: &Runner,
    users: &Result<Users, String>,
    broker_group: Option<u32>,
) -> Vec<Finding> {
    if *runner != Runner::Units {
        return Vec::new();
    }
    let users = match users {
        Ok(users) => users,
        Err(why) => {
            let text = format!("the users of the units cannot be looked up: {why}");
            let remedy = "run `getent passwd assertd`; a name service that does not answer is \
                          configured in /etc/nsswitch.conf";
            return vec![ACCOUNTS.fail(text, remedy)];
        }
    };
    let both = [
        (&users.broker, BROKER_USER),
        (&users.keystore, KEYSTORE_USER),
    ];
    let mut found: Vec<Finding> = both
        .iter()
        .filter(|(account, _)| account.is_none())
        .map(|(_, name)| missing("user", name))
        .collect();
    match (broker_group, &users.keystore) {
        (None, _) => found.push(missing("group", BROKER_USER)),
        (Some(group), Some(keystore)) if !keystore.groups.contains(&group) => {
            found.push(not_member(keystore));
        }
        (Some(_), _) => {}
    }
    if let (true, Some(broker), Some(keystore)) = (found.is_empty(), &users.broker, &users.keystore)
    {
        let text = format!(
            "{} ({}), {} ({})",
            broker.name, broker.uid, keystore.name, keystore.uid
        );
        found.push(ACCOUNTS.ok(text));
    }
    found
}

fn missing(what: &str, name: &str) -> Finding {
    ACCOUNTS.fail(
        format!("there is no {what} {name}"),
        "run `systemd-sysusers assertd.conf` (the file comes with the package, in \
         /usr/lib/sysusers.d), then `systemctl restart assertd`",
    )
}

fn not_member(keystore: &Account) -> Finding {
    MEMBERSHIP.warn(
        format!(
            "{} is not in group {BROKER_USER}, which may read the configuration; its unit makes up \
             for it, a command that you run as that user does not",
            keystore.name
        ),
        format!("run `usermod -aG {BROKER_USER} {}`", keystore.name),
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    fn account(name: &str, uid: u32, groups: &[u32]) -> Option<Account> {
        Some(Account {
            name: name.into(),
            uid,
            gid: uid,
            groups: groups.to_vec(),
            added: Vec::new(),
        })
    }

    fn bad(broker: Option<Account>, keystore: Option<Account>, group: Option<u32>) -> Vec<Finding> {
        let users = Ok(Users { broker, keystore });
        let found = findings(&Runner::Units, &users, group);
        found
            .into_iter()
            .filter(|it| it.severity != Severity::Ok)
            .collect()
    }

    #[test]
    fn missing_users_groups_and_memberships_are_found() {
        let broker = || account("assertd", 990, &[990]);
        let keystore = || account("assertd-pkcs11", 991, &[991, 990]);
        assert_eq!(bad(broker(), keystore(), Some(990)), []);
        for (found, id, phrase) in [
            (bad(None, keystore(), Some(990)), "D10", "systemd-sysusers"),
            (bad(broker(), None, Some(990)), "D10", "systemd-sysusers"),
            (bad(broker(), keystore(), None), "D10", "systemd-sysusers"),
            (
                bad(broker(), account("assertd-pkcs11", 991, &[991]), Some(990)),
                "D11",
                "usermod -aG assertd assertd-pkcs11",
            ),
        ] {
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].id, id);
            let remedy = found[0].remedy.as_deref().unwrap();
            assert!(remedy.contains(phrase), "{remedy}");
        }
        let silent = findings(&Runner::Units, &Err("no answer".into()), None);
        assert_eq!((silent[0].id, silent.len()), ("D10", 1));
    }
}
