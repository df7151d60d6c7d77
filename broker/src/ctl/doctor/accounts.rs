//! The users that the units run as.

use super::finding::{ACCOUNTS, Finding, MEMBERSHIP};
use super::site::{BROKER_USER, Runner, Users};
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
    let keystores = users.keystores.iter();
    let all: Vec<(&Option<Account>, &str)> = [(&users.broker, BROKER_USER)]
        .into_iter()
        .chain(keystores.map(|(kind, account)| (account, kind.user())))
        .collect();
    let mut found: Vec<Finding> = all
        .iter()
        .filter(|(account, _)| account.is_none())
        .map(|(_, name)| missing("user", name))
        .collect();
    match broker_group {
        None => found.push(missing("group", BROKER_USER)),
        Some(group) => {
            let keystores = users.keystores.values().flatten();
            let outside = keystores.filter(|it| !it.groups.contains(&group));
            found.extend(outside.map(not_member));
        }
    }
    if found.is_empty() {
        let accounts = all.iter().filter_map(|(account, _)| account.as_ref());
        let named: Vec<String> = accounts
            .map(|account| format!("{} ({})", account.name, account.uid))
            .collect();
        found.push(ACCOUNTS.ok(named.join(", ")));
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
    use keystore::config::BackendKind;

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
        let keystores = [(BackendKind::Pkcs11, keystore)].into();
        let users = Ok(Users { broker, keystores });
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
        let keystores = [(BackendKind::Pkcs11, keystore()), (BackendKind::Tpm, None)];
        let tpm = Users {
            broker: broker(),
            keystores: keystores.into(),
        };
        let found = findings(&Runner::Units, &Ok(tpm), Some(990));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(
            found[0].text.contains("user assertd-tpm"),
            "{}",
            found[0].text
        );
        let silent = findings(&Runner::Units, &Err("no answer".into()), None);
        assert_eq!((silent[0].id, silent.len()), ("D10", 1));
    }
}
