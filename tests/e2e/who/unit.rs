//! Units by the cgroup that the kernel shows: names below a delegated one are its owner's choice, and a
//! process may be moved between two requests. With a real systemd: `units`, the checks of identity.

use super::{config, decisions, with_unit};
use crate::fallback;
use crate::world::serves;
use harness::caller::Caller;
use harness::cgroup::{self, Slice, Unit};
use harness::user::ALICE;
use harness::{Config, Daemon, Token};

/// Asks for the targets that an order names, on one connection, and says what came of each.
const ASKS: &str = "
s = connect()
say('connected')
while True:
    targets = told().split()
    if targets == ['whoami']:
        say(whoami(s).strip())
    elif targets:
        results = []
        for target in targets:
            ask(s, target)
            results.append(str(status(s)))
        say(' '.join(results))
    else:
        break
";

/// Alice may have `hers` in payments.service, and `web` in web.service.
fn with_units(token: &Token) -> Config {
    let config = with_unit(config(token), "payments", "payments.service", "salary");
    with_unit(config, "web", "web.service", "web")
}

/// The process is in that unit now, by the kernel, and is told that of each target.
#[track_caller]
fn is_served(caller: &mut Caller, unit: &Unit, expected: &str) {
    unit.take(caller.pid());
    assert_eq!(cgroup::of(caller.pid()), unit.path());
    caller.tell("salary web");
    assert_eq!(caller.line(), expected, "{}", unit.path());
}

/// What assertd says of the caller where it is now.
fn whoami(caller: &mut Caller) -> serde_json::Value {
    caller.tell("whoami");
    serde_json::from_str(&caller.line()).unwrap()
}

#[test]
fn second_request_on_a_connection_is_attested_again() {
    let token = Token::new();
    attested_again(Daemon::with_keys(with_units(&token)));
}

/// As before Linux 6.13.
#[test]
fn so_it_is_where_only_files_say_what_a_process_is() {
    let token = Token::new();
    attested_again(fallback::start(&with_units(&token), "files"));
}

fn attested_again(mut daemon: Daemon) {
    let slice = Slice::new();
    let [payments, web, other] =
        ["payments.service", "web.service", "other.service"].map(|name| slice.unit(name));
    let mut caller = Caller::start(ALICE, &daemon.socket(), ASKS);
    caller.expect("connected");
    for (unit, expected) in [
        (&payments, "200 403"),
        (&web, "403 200"),
        (&other, "403 403"),
        (&payments, "200 403"),
    ] {
        is_served(&mut caller, unit, expected);
        assert_eq!(whoami(&mut caller)["unit"], unit.path());
    }
    // All of it was one connection.
    assert_eq!(daemon.status().connections, 1);
    let records = daemon.audit_records().into_iter();
    let granted: Vec<String> = records
        .filter(|record| record["kind"] == "decision")
        .map(|record| record["unit"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(granted, [payments.path(), web.path(), payments.path()]);
    drop(caller);
    serves(&mut daemon);
}

#[test]
fn user_manager_unit_with_the_same_name_is_refused() {
    let (token, slice) = (Token::new(), Slice::new());
    let daemon = Daemon::with_keys(with_units(&token));
    let manager = format!("user.slice/user-{ALICE}.slice/user@{ALICE}.service");
    let mut caller = Caller::start(ALICE, &daemon.socket(), ASKS);
    caller.expect("connected");
    for below in [
        "app.slice/payments.service",
        "payments.service",
        "app.slice/payments.scope",
    ] {
        let unit = slice.unit(&format!("{manager}/{below}"));
        is_served(&mut caller, &unit, "403 403");
        let who = whoami(&mut caller);
        let path = format!("{}/{manager}", slice.path());
        assert_eq!((&who["unit"], &who["nested"]), (&path.into(), &true.into()));
    }
    assert_eq!(decisions(&daemon), 0);
    is_served(&mut caller, &slice.unit("payments.service"), "200 403");
}

#[test]
fn nested_cgroup_resolves_to_the_outer_unit() {
    let (token, slice) = (Token::new(), Slice::new());
    let daemon = Daemon::with_keys(with_units(&token));
    let mut caller = Caller::start(ALICE, &daemon.socket(), ASKS);
    caller.expect("connected");
    for (unit, expected) in [
        ("web.service/payments.service", "403 200"),
        ("web.service/a.slice/payments.service", "403 200"),
        ("web.service/system.slice/x/payments.service", "403 200"),
        ("payments.service/web.service", "200 403"),
    ] {
        is_served(&mut caller, &slice.unit(unit), expected);
        let records = daemon.audit_records();
        let granted = records.iter().rfind(|it| it["kind"] == "decision").unwrap();
        let outer = format!("{}/{}", slice.path(), unit.split('/').next().unwrap());
        assert_eq!(granted["unit"], outer, "{granted}");
        assert_eq!(granted["nested"], true, "{granted}");
    }
    // Below what systemd did not name there is no unit, whatever it is called.
    is_served(&mut caller, &slice.unit("pod/payments.service"), "403 403");
    assert!(whoami(&mut caller)["unit"].is_null());
}
