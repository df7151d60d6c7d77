//! Two teams with a file each, and what one of them tries in order to reach what is the other's.
//! What they are shown is tested word for word: they cannot read the administrator's file.

use super::load;
use std::path::Path;

const MAIN: &str = r#"
[keystore.pay]
backend = "pkcs11"
module = "/m.so"
token = { label = "pay" }
pin = { credential = "p" }

[keystore.rep]
backend = "pkcs11"
module = "/m.so"
token = { label = "rep" }
pin = { credential = "r" }

[issuer.pay]
url = "https://pay.example"
subjects = ["pay-*", "rep-*"]
keystore = "pay"
alg = "RS256"

[issuer.rep]
url = "https://rep.example"
subjects = ["pay-*", "rep-*"]
keystore = "rep"
alg = "RS256"

[bounds.pay]
files = ["pay.toml", "pay-*.toml"]
workloads = ["pay", "pay-*"]
units = ["pay.service", "pay@*.service"]
issuers = "pay"
subjects = "pay-*"
keystores = "pay"

[bounds.rep]
files = "rep.toml"
workloads = "rep"
units = "rep.service"
users = "root"
issuers = "rep"
subjects = "rep-*"
keystores = "rep"
"#;

const PAY: &str = r#"
[workload.pay]
match = { unit = "pay.service" }
[workload.pay.target.aws]
profile = "aws-oidc"
issuer = "pay"
subject = "pay-1"
audience = "sts.amazonaws.com"
[workload.pay.target.bank]
profile = "rfc7523"
authorization_server = "https://as.bank.example"
client_id = "pay"
keystore = "pay"
"#;

const REP: &str = r#"
[workload.rep]
match = { unit = "rep.service", user = "root" }
[workload.rep.target.aws]
profile = "aws-oidc"
issuer = "rep"
subject = "rep-1"
audience = "sts.amazonaws.com"
"#;

/// What a team is shown that changes one thing in its file.
fn refused_in(name: &str, file: &str, from: &str, to: &str) -> String {
    assert_eq!(file.matches(from).count(), 1, "{from}");
    load(MAIN, &[(name, &file.replace(from, to))]).expect_err(to)
}

fn pay_refused(from: &str, to: &str) -> String {
    refused_in("pay.toml", PAY, from, to)
}

fn rep_refused(from: &str, to: &str) -> String {
    refused_in("rep.toml", REP, from, to)
}

#[test]
fn files_that_stay_inside_are_served() {
    let config = load(MAIN, &[("pay.toml", PAY), ("rep.toml", REP)]).unwrap();
    assert_eq!(config.workloads.len(), 2);
    for unit in [
        "pay@1.service",
        "pay@*.service",
        "pay@a*.service",
        "/system.slice/pay.service",
        "/system.slice/system-pay.slice/pay@*.service",
        "/pay*.slice/pay.service",
    ] {
        load(MAIN, &[("pay-x.toml", &PAY.replace("pay.service", unit))]).expect(unit);
    }
    let by_uid = REP.replace("user = \"root\"", "uid = 0");
    load(MAIN, &[("rep.toml", &by_uid)]).unwrap();
}

#[test]
fn the_main_file_is_the_administrators_and_not_bound() {
    let config = load(
        &format!("{MAIN}{}", PAY.replace("pay.service", "rep.service")),
        &[],
    );
    assert_eq!(config.unwrap().workloads.len(), 1);
}

#[test]
fn another_teams_subject_is_out_of_reach() {
    assert_eq!(
        pay_refused("\"pay-1\"", "\"rep-1\""),
        r#"conf.d/pay.toml:7:11: subject `rep-1` is outside of [bounds.pay]
    7 | subject = "rep-1"
      |           ^~~~~~~ its `subjects` are pay-*; only an administrator may add to them"#
    );
}

#[test]
fn another_teams_unit_is_out_of_reach_by_its_name() {
    assert_eq!(
        pay_refused("\"pay.service\"", "\"rep.service\""),
        r#"conf.d/pay.toml:3:18: unit `rep.service` is outside of [bounds.pay]
    3 | match = { unit = "rep.service" }
      |                  ^~~~~~~~~~~~~ its `units` are pay.service, pay@*.service; only an administrator may add to them"#
    );
}

#[test]
fn another_teams_unit_is_out_of_reach_by_its_path() {
    assert_eq!(
        pay_refused("\"pay.service\"", "\"/system.slice/rep.service\""),
        r#"conf.d/pay.toml:3:18: unit `/system.slice/rep.service` is outside of [bounds.pay]
    3 | match = { unit = "/system.slice/rep.service" }
      |                  ^~~~~~~~~~~~~~~~~~~~~~~~~~~ its `units` are pay.service, pay@*.service; only an administrator may add to them"#
    );
    // Names that only look like the own one.
    for unit in [
        "/pay.service/rep.service",
        "/system.slice/*.service",
        "/system.slice/xpay.service",
        "/system.slice/pay*.service",
    ] {
        let shown = pay_refused("pay.service", unit);
        assert!(
            shown.contains(&format!("unit `{unit}` is outside of [bounds.pay]")),
            "{shown}"
        );
    }
}

/// The cgroup of memory.service is called _memory.service, and that of _memory.service has two.
#[test]
fn another_teams_unit_is_out_of_reach_by_the_name_of_its_cgroup() {
    let main = MAIN.replace("\"pay@*.service\"", "\"_*.service\"");
    let with = |unit: &str| load(&main, &[("pay.toml", &PAY.replace("pay.service", unit))]);
    for unit in [
        "_memory.service",
        "_m*.service",
        "/system.slice/__memory.service",
    ] {
        with(unit).expect(unit);
    }
    for unit in ["/system.slice/_memory.service", "/system.slice/_*.service"] {
        let shown = with(unit).expect_err(unit);
        assert!(
            shown.starts_with(&format!("conf.d/pay.toml:3:18: unit `{unit}` ")),
            "{shown}"
        );
    }
}

/// Bounds that name paths mean those: the same name elsewhere is another unit.
#[test]
fn bounds_by_path_hold_that_path_alone() {
    let bound = "units = [\"/system.slice/pay.service\", \"/pay.slice/pay@*.service\"]";
    let main = MAIN.replace("units = [\"pay.service\", \"pay@*.service\"]", bound);
    assert!(main.contains(bound));
    let with = |unit: &str| load(&main, &[("pay.toml", &PAY.replace("pay.service", unit))]);
    for unit in [
        "/system.slice/pay.service",
        "/pay.slice/pay@1.service",
        "/pay.slice/pay@a*.service",
    ] {
        with(unit).expect(unit);
    }
    for unit in [
        "pay.service",
        "pay@1.service",
        "/pay.slice/pay.service",
        "/p*.slice/pay@1.service",
    ] {
        let shown = with(unit).expect_err(unit);
        assert!(shown.starts_with("conf.d/pay.toml:3:18: unit `"), "{shown}");
    }
}

#[test]
fn another_teams_unit_is_out_of_reach_by_a_pattern_that_covers_it() {
    assert_eq!(
        pay_refused("\"pay.service\"", "\"r*.service\""),
        r#"conf.d/pay.toml:3:18: unit `r*.service` is outside of [bounds.pay]
    3 | match = { unit = "r*.service" }
      |                  ^~~~~~~~~~~~ its `units` are pay.service, pay@*.service; only an administrator may add to them"#
    );
}

#[test]
fn a_pattern_that_is_inside_in_part_is_outside() {
    assert_eq!(
        pay_refused("\"pay.service\"", "\"pay*.service\""),
        r#"conf.d/pay.toml:3:18: unit `pay*.service` fits more units than [bounds.pay]
    3 | match = { unit = "pay*.service" }
      |                  ^~~~~~~~~~~~~~ its `units` are pay.service, pay@*.service; only an administrator may add to them"#
    );
    for unit in ["pay@*.scope", "pay@1.scope", "p*.service", "pay@*e"] {
        let shown = load(MAIN, &[("pay.toml", &PAY.replace("pay.service", unit))]).expect_err(unit);
        assert!(shown.starts_with("conf.d/pay.toml:3:18: "), "{shown}");
    }
}

#[test]
fn a_slice_alone_reaches_whatever_runs_in_it() {
    assert_eq!(
        pay_refused("unit = \"pay.service\"", "slice = \"system.slice\""),
        r#"conf.d/pay.toml:3:9: no `unit` in this match: [bounds.pay] demands one
    3 | match = { slice = "system.slice" }
      |         ^~~~~~~~~~~~~~~~~~~~~~~~~~ its `units` are pay.service, pay@*.service; only an administrator may add to them"#
    );
}

#[test]
fn a_user_alone_reaches_whatever_that_user_runs() {
    assert_eq!(
        pay_refused("unit = \"pay.service\"", "uid = 990"),
        r#"conf.d/pay.toml:3:9: no `unit` in this match: [bounds.pay] demands one
    3 | match = { uid = 990 }
      |         ^~~~~~~~~~~~~ its `units` are pay.service, pay@*.service; only an administrator may add to them"#
    );
}

#[test]
fn a_users_own_unit_is_no_unit_of_a_teams() {
    assert_eq!(
        pay_refused(
            "unit = \"pay.service\"",
            "user_unit = \"pay.service\", uid = 990"
        ),
        r#"conf.d/pay.toml:3:9: no `unit` in this match: [bounds.pay] demands one
    3 | match = { user_unit = "pay.service", uid = 990 }
      |         ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~ its `units` are pay.service, pay@*.service; only an administrator may add to them"#
    );
}

#[test]
fn another_teams_user_is_out_of_reach() {
    assert_eq!(
        rep_refused("user = \"root\"", "uid = 990"),
        r#"conf.d/rep.toml:3:39: uid 990 is outside of [bounds.rep]
    3 | match = { unit = "rep.service", uid = 990 }
      |                                       ^~~ its `users` are root (0); only an administrator may add to them"#
    );
    assert!(
        rep_refused("\"root\"", "\"daemon\"").contains("user `daemon` is outside of [bounds.rep]")
    );
    assert_eq!(
        rep_refused(", user = \"root\"", ""),
        r#"conf.d/rep.toml:3:9: no `user` in this match: [bounds.rep] demands one
    3 | match = { unit = "rep.service" }
      |         ^~~~~~~~~~~~~~~~~~~~~~~~ its `users` are root (0); only an administrator may add to them"#
    );
}

#[test]
fn another_teams_issuer_is_out_of_reach() {
    assert_eq!(
        pay_refused("issuer = \"pay\"", "issuer = \"rep\""),
        r#"conf.d/pay.toml:6:10: issuer `rep` is outside of [bounds.pay]
    6 | issuer = "rep"
      |          ^~~~~ its `issuers` are pay; only an administrator may add to them"#
    );
}

#[test]
fn another_teams_keystore_is_out_of_reach() {
    assert_eq!(
        pay_refused("keystore = \"pay\"", "keystore = \"rep\""),
        r#"conf.d/pay.toml:13:12: keystore `rep` is outside of [bounds.pay]
   13 | keystore = "rep"
      |            ^~~~~ its `keystores` are pay; only an administrator may add to them"#
    );
}

/// Not to name it does not make it one's own.
#[test]
fn the_only_keystore_is_bound_too() {
    let main = "[keystore.hsm]\nbackend = \"pkcs11\"\nmodule = \"/m.so\"\ntoken = { label = \"t\" }\n\
                pin = { credential = \"p\" }\n[bounds.pay]\nfiles = \"pay.toml\"\nworkloads = \"pay\"\n\
                units = \"pay.service\"\n";
    let pay = "[workload.pay]\nmatch = { unit = \"pay.service\" }\n[workload.pay.target.bank]\n\
               profile = \"rfc7523\"\nauthorization_server = \"a\"\nclient_id = \"c\"\n";
    assert_eq!(
        load(main, &[("pay.toml", pay)]).unwrap_err(),
        r#"conf.d/pay.toml:3:22: keystore `hsm`, the only one, is outside of [bounds.pay]
    3 | [workload.pay.target.bank]
      |                      ^~~~ its `keystores` name none; only an administrator may add to them"#
    );
    load(
        &format!("{main}keystores = \"hsm\"\n"),
        &[("pay.toml", pay)],
    )
    .unwrap();
}

#[test]
fn another_teams_workload_cannot_be_written_nor_extended() {
    let theirs = PAY.replace("workload.pay", "workload.rep");
    let shown = r#"conf.d/pay.toml:2:11: workload `rep` is outside of [bounds.pay]
    2 | [workload.rep]
      |           ^~~ its `workloads` are pay, pay-*; only an administrator may add to them"#;
    assert_eq!(load(MAIN, &[("pay.toml", &theirs)]).unwrap_err(), shown);
    let beside = format!("{PAY}[workload.rep.target.mine]\nprofile = \"rfc7523\"\n");
    let shown = load(MAIN, &[("pay.toml", &beside), ("rep.toml", REP)]).unwrap_err();
    assert!(
        shown.starts_with("conf.d/pay.toml:14:") && shown.contains("match"),
        "{shown}"
    );
}

/// Every section and every target is held to them, not the first alone.
#[test]
fn what_follows_is_bound_as_well() {
    let second = PAY
        .replace("pay]", "pay-2]")
        .replace("pay.target", "pay-2.target");
    let second = second
        .replace("\"pay-1\"", "\"pay-2\"")
        .replace("pay.service", "rep.service");
    let shown = load(MAIN, &[("pay.toml", &format!("{PAY}{second}"))]).unwrap_err();
    assert!(
        shown.starts_with("conf.d/pay.toml:16:18: unit `rep.service` is outside"),
        "{shown}"
    );
    let target = PAY.replace("subject = \"pay-1\"", "subject = \"rep-1\"");
    let target = target.replace("target.aws", "target.zzz");
    let shown = load(MAIN, &[("pay.toml", &target)]).unwrap_err();
    assert!(
        shown.starts_with("conf.d/pay.toml:7:11: subject `rep-1`"),
        "{shown}"
    );
}

#[test]
fn a_team_cannot_write_its_own_bounds() {
    let wider = format!("{PAY}[bounds.pay]\nfiles = \"*\"\nunits = \"*\"\n");
    let shown = load(MAIN, &[("pay.toml", &wider)]).unwrap_err();
    assert!(
        shown.starts_with("conf.d/pay.toml:14:2: `bounds` is for the main file alone"),
        "{shown}"
    );
}

#[test]
fn a_file_that_no_bounds_name_is_refused_once_there_are_bounds() {
    let empty = "# nothing yet\n";
    assert_eq!(
        load(MAIN, &[("other.toml", empty)]).unwrap_err(),
        "conf.d/other.toml: no [bounds.…] of the main file names this file, and once there are bounds \
         every file needs some; an administrator adds it to the `files` of its team's"
    );
    let without = &MAIN[..MAIN.find("[bounds.pay]").unwrap()];
    load(without, &[("other.toml", PAY)]).unwrap();
}

#[test]
fn a_file_that_two_bounds_name_is_refused() {
    let both = MAIN.replace(
        "files = \"rep.toml\"",
        "files = [\"rep.toml\", \"pay*.toml\"]",
    );
    assert_eq!(
        load(&both, &[("pay-x.toml", PAY)]).unwrap_err(),
        "conf.d/pay-x.toml: [bounds.pay] and [bounds.rep] of the main file both name this file; an \
         administrator takes it out of the `files` of one"
    );
    load(&both, &[("pay.toml", PAY)]).unwrap(); // a star is one character at least
}

#[test]
fn bounds_say_whom_their_files_may_match() {
    let without = MAIN.replace("units = \"rep.service\"\nusers = \"root\"\n", "");
    assert_eq!(
        load(&without, &[]).unwrap_err(),
        r#"assertd.toml:34:9: bounds `rep` need `units` or `users`: whom the files may match
   34 | [bounds.rep]
      |         ^~~"#
    );
    let nobody = MAIN.replace("[\"pay.service\", \"pay@*.service\"]", "[]");
    let shown = load(&nobody, &[("pay.toml", PAY)]).unwrap_err();
    assert!(
        shown.contains("its `units` name none; only an administrator may"),
        "{shown}"
    );
    let users = MAIN.replace("units = \"rep.service\"\n", "");
    let any_unit = REP.replace("rep.service", "pay.service");
    load(&users, &[("rep.toml", &any_unit)]).unwrap(); // of that user alone
}

#[test]
fn what_is_no_pattern_is_shown() {
    let shown = |files: &str| {
        let main = MAIN.replace("files = \"rep.toml\"", &format!("files = \"{files}\""));
        load(&main, &[]).expect_err(files)
    };
    assert_eq!(
        shown("*.toml"),
        r#"assertd.toml:35:9: a pattern has a text before its `*`, or it would fit nearly everything
   35 | files = "*.toml"
      |         ^~~~~~~~"#
    );
    assert_eq!(
        shown("rep-*-*.toml"),
        r#"assertd.toml:35:9: a pattern has one `*` at most
   35 | files = "rep-*-*.toml"
      |         ^~~~~~~~~~~~~~"#
    );
}

#[test]
fn bounds_name_units_with_their_kind_or_all_that_begin_so_and_files_without_their_directory() {
    let main = |from: &str, to: &str| MAIN.replace(from, to);
    let open = main("units = \"rep.service\"", "units = \"rep*\"");
    load(&open, &[("rep.toml", REP)]).unwrap();
    let scope = REP.replace("rep.service", "rep-1.scope");
    load(&open, &[("rep.toml", &scope)]).unwrap();
    for (from, to) in [
        ("units = \"rep.service\"", "units = \"rep\""),
        ("files = \"rep.toml\"", "files = \"conf.d/rep.toml\""),
        ("files = \"rep.toml\"", "files = \"rep\""),
    ] {
        let shown = load(&main(from, to), &[("rep.toml", REP)]).expect_err(to);
        assert!(shown.contains(to), "{shown}");
    }
}

#[test]
fn a_star_alone_is_everything_where_an_administrator_means_it() {
    let wide = "[bounds.all]\nfiles = \"*\"\nworkloads = \"*\"\nunits = \"*\"\nissuers = \"*\"\n\
                subjects = \"*\"\nkeystores = \"*\"\n";
    let main = format!("{}{wide}", &MAIN[..MAIN.find("[bounds.pay]").unwrap()]);
    for unit in [
        "rep.service",
        "r*.service",
        "/system.slice/x.service",
        "/system.slice/*.service",
    ] {
        let file = PAY.replace("pay.service", unit);
        load(&main, &[("anything.toml", &file), ("rep.toml", REP)]).expect(unit);
    }
    // Everything of one key is not everything of another.
    let main = main.replace("keystores = \"*\"", "keystores = \"rep\"");
    let shown = load(&main, &[("a.toml", PAY)]).unwrap_err();
    assert!(
        shown.contains("keystore `pay` is outside of [bounds.all]"),
        "{shown}"
    );
}

/// What is no `*.toml` is not read, and what begins with a dot neither; what is has to be named letter by letter.
#[test]
fn a_name_that_resembles_a_teams_is_another_file() {
    for name in [
        "pay.toml~",
        "pay.toml.bak",
        "pay.TOML",
        ".toml",
        ".pay.toml",
        ".#pay.toml",
        "pay.toml#",
    ] {
        let config = load(MAIN, &[(name, REP), ("pay.toml", PAY)]).expect(name);
        assert_eq!(config.workloads.len(), 1, "{name}");
    }
    for name in [
        "PAY.toml",
        "pay.toml.toml",
        " pay.toml",
        "pay-.toml",
        "rep-x.toml",
    ] {
        let shown = load(MAIN, &[(name, PAY)]).expect_err(name);
        let wanted = format!("conf.d/{name}: no [bounds.…] of the main file names this file");
        assert!(shown.starts_with(&wanted), "{shown}");
    }
}

/// A link is bound by its own name: who could make one here writes the configuration anyway, but a
/// mistake must not lend one team's bounds to another's file.
#[test]
fn a_link_to_another_teams_file_is_bound_by_its_own_name() {
    let dir = tempfile::tempdir().unwrap();
    let conf_d = dir.path().join("conf.d");
    std::fs::create_dir(&conf_d).unwrap();
    let put = |path: &Path, text: &str| {
        use std::io::Write;
        let mut new = std::fs::OpenOptions::new();
        new.create_new(true)
            .write(true)
            .open(path)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    };
    let main = dir.path().join("assertd.toml");
    put(&main, MAIN);
    put(&dir.path().join("theirs"), REP);
    std::os::unix::fs::symlink(dir.path().join("theirs"), conf_d.join("pay.toml")).unwrap();
    let shown = super::Config::load(&main).unwrap_err().to_string();
    assert!(
        shown.contains("conf.d/pay.toml:2:11: workload `rep` is outside of"),
        "{shown}"
    );
    std::fs::rename(conf_d.join("pay.toml"), conf_d.join("rep.toml")).unwrap();
    assert_eq!(super::Config::load(&main).unwrap().workloads.len(), 1);
}
