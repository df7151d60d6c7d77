//! Parsing what `/proc` and systemd show, hostile names included.

use super::proc::{parse_cgroup, parse_start_time, parse_status, parse_terminal, terminal};
use super::session::Terminal;
use super::*;
use crate::audit::Sha256;
use proptest::prelude::*;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

fn unit(path: &str) -> Option<(String, String, bool)> {
    Unit::of_cgroup(path).map(|unit| (unit.name().into(), unit.path().into(), unit.nested()))
}

fn some(name: &str, path: &str, nested: bool) -> Option<(String, String, bool)> {
    Some((name.into(), path.into(), nested))
}

#[test]
fn the_unit_is_the_outermost_one_below_the_slices() {
    let path = "/system.slice/payments.service";
    assert_eq!(unit(path), some("payments.service", path, false));
    assert_eq!(
        unit("/system.slice/system-app.slice/app@1.service"),
        some(
            "app@1.service",
            "/system.slice/system-app.slice/app@1.service",
            false
        )
    );
    assert_eq!(
        unit("/init.scope"),
        some("init.scope", "/init.scope", false)
    );
}

#[test]
fn a_cgroup_with_an_escaped_name_is_the_unit_of_the_plain_one() {
    for (path, name) in [
        ("/system.slice/_memory.service", "memory.service"),
        ("/system.slice/__memory.service", "_memory.service"),
        ("/_cpu.slice/_io.scope", "io.scope"),
    ] {
        assert_eq!(unit(path), some(name, path, false));
    }
    let slices = Unit::of_cgroup("/_cpu.slice/cpu-a.slice/a.service").unwrap();
    assert_eq!(
        slices.slices().collect::<Vec<_>>(),
        ["cpu.slice", "cpu-a.slice"]
    );
    assert_eq!(unit("/system.slice/_.service"), None);
    // Of a user's manager too.
    let path = "/user.slice/user@7.service/app.slice/_io.service";
    let own = Unit::of_cgroup(path).unwrap();
    assert_eq!(own.of_user(), Some((7, "io.service")));
}

#[test]
fn nested_cgroup_resolves_to_the_outer_unit() {
    assert_eq!(
        unit("/system.slice/web.service/payments.service"),
        some("web.service", "/system.slice/web.service", true)
    );
    assert_eq!(
        unit("/machine.slice/web.service/libpod-payload-1/x.slice/payments.service"),
        some("web.service", "/machine.slice/web.service", true)
    );
}

#[test]
fn a_user_managers_unit_never_equals_a_system_unit() {
    assert_eq!(
        unit("/user.slice/user-1000.slice/user@1000.service/app.slice/payments.service"),
        some(
            "user@1000.service",
            "/user.slice/user-1000.slice/user@1000.service",
            true
        )
    );
}

#[test]
fn what_systemd_did_not_name_is_no_unit() {
    for path in [
        "/",
        "",
        "payments.service",
        "/docker/abc",
        "/.service",
        "/x/payments.service",
        "/a.slice",
    ] {
        assert_eq!(unit(path), None, "{path}");
    }
}

#[test]
fn the_unified_line_is_found_among_others() {
    assert_eq!(parse_cgroup("9:name=systemd:/a\n0::/b\n"), Some("/b"));
    assert_eq!(parse_cgroup("9:name=systemd:/0::/a\n"), None);
    assert_eq!(parse_cgroup("0::\n"), None);
}

#[test]
fn status_is_read_by_its_lines() {
    let text =
        "Name:\tUid:\\n0\nUid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\nGroups:\t8 9 \nNSpid:\t100\t1\n";
    let status = parse_status(text).unwrap();
    assert_eq!(
        (
            status.uids,
            status.gids,
            status.groups,
            status.pid_namespaces
        ),
        ([7; 4], [8; 4], vec![8, 9], 2)
    );
    let right = "Uid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\nGroups:\t\nNSpid:\t1\n";
    assert!(parse_status(right).is_some_and(|status| status.groups.is_empty()));
    for (from, to) in [
        ("Uid:\t7", "Uid:\t"),
        ("Uid:\t7", "Uid:\t-7"),
        ("Gid", "Gud"),
        ("Groups:\t", "Groups:\tx"),
        ("Groups", "G"),
        ("NSpid", "N"),
    ] {
        assert!(parse_status(&right.replacen(from, to, 1)).is_none(), "{to}");
    }
}

/// The kernel writes each of them once. Should it ever be otherwise, who comes later adds nothing.
#[test]
fn of_lines_that_come_twice_the_first_is_meant() {
    let text = "Uid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\nGroups:\t9\nUid:\t0\t0\t0\t0\n\
                Gid:\t0\t0\t0\t0\nGroups:\t0\nNSpid:\t5\t1\nNSpid:\t5\n";
    let status = parse_status(text).unwrap();
    let ids = (status.uids, status.gids, status.groups);
    assert_eq!(ids, ([7; 4], [8; 4], vec![9]));
    assert_eq!(status.pid_namespaces, 2);
}

/// A directory with files as `/proc/PID` has them.
fn files(status: &[u8], cgroup: &[u8]) -> Files {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in [("status", status), ("cgroup", cgroup)] {
        let mut file = File::create_new(dir.path().join(name)).unwrap();
        file.write_all(bytes).unwrap();
    }
    Files::open(File::open(dir.path()).unwrap().as_fd()).unwrap()
}

#[test]
fn a_file_is_read_to_its_end_up_to_a_limit() {
    const LEN_MAX: usize = 64 * 1024;
    let line = |length: usize| {
        let mut line = b"0::/".to_vec();
        line.resize(length, b'a');
        line
    };
    for length in [5, 4095, 4096, 4097, 16_384, 16_385, LEN_MAX - 1] {
        let path = files(b"", &line(length)).cgroup().unwrap();
        assert_eq!(path.len(), length - 3, "{length}");
    }
    for length in [LEN_MAX, LEN_MAX + 1] {
        let refused = files(b"", &line(length)).cgroup().unwrap_err();
        assert_eq!(refused, "cgroup: longer than 65536 bytes");
    }
}

#[test]
fn what_is_no_text_or_not_understood_is_no_identity() {
    let broken = files(b"Uid:\t7\n", b"0::/system.slice/\xff.service\n");
    assert_eq!(broken.status().unwrap_err(), "status: not understood");
    let unit = unit(&broken.cgroup().unwrap()).unwrap();
    assert_eq!(unit.0, "\u{fffd}.service");
    let v1 = files(b"", b"1:name=systemd:/a.service\n").cgroup();
    assert!(v1.unwrap_err().contains("needs cgroup v2"));
}

/// This process, as its own `/proc` shows it to whoever opens it in another way.
#[test]
fn what_is_read_is_what_proc_shows() {
    let dir = File::open("/proc/self").unwrap();
    let files = Files::open(dir.as_fd()).unwrap();
    let text = |name: &str| std::fs::read_to_string(Path::new("/proc/self").join(name)).unwrap();
    assert_eq!(
        files.cgroup().as_deref().ok(),
        parse_cgroup(&text("cgroup"))
    );
    assert_eq!(files.status().ok(), parse_status(&text("status")));
    let stat = text("stat");
    assert_eq!(start_time(dir.as_fd()).ok(), parse_start_time(&stat));
    assert!(start_time(dir.as_fd()).is_ok_and(|ticks| ticks > 1));
    let ours = terminal(std::process::id());
    assert_eq!(ours.ok(), parse_terminal(&stat));
}

#[test]
fn why_a_peer_is_no_workload_is_a_word_for_records_and_a_sentence() {
    let unreadable = Unattested::Unreadable("status: EIO".to_owned());
    for (unattested, word, part) in [
        (Unattested::Gone, "peer_gone", "has died"),
        (Unattested::ChangedUser, "peer_changed_user", "user"),
        (
            Unattested::ChangedProgram,
            "peer_changed_program",
            "program",
        ),
        (unreadable, "peer_unreadable", "status: EIO"),
    ] {
        assert_eq!(unattested.reason(), word);
        let said = unattested.to_string();
        assert!(
            said.starts_with("the peer") && said.contains(part),
            "{said}"
        );
    }
}

#[test]
fn a_program_is_shown_by_its_digest_or_by_what_hides_it() {
    let is = Program::Is {
        path: None,
        sha256: Sha256::ZERO,
    };
    let hidden = Program::NotAttestable("it has ended".to_owned());
    let shown = [Program::Unread, is, hidden].map(|program| program.to_string());
    let zeros = "0".repeat(64);
    assert_eq!(shown, ["not read", &zeros, "not attestable: it has ended"]);
}

#[test]
fn a_command_name_cannot_forge_a_start_time() {
    let fields = "S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
    assert_eq!(parse_start_time(&format!("7 (sh) {fields}")), Some(4242));
    let forged = "7 (x) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 0 0 0 0 1 (y) ";
    assert_eq!(parse_start_time(&format!("{forged}{fields}")), Some(4242));
    assert_eq!(parse_start_time("7 (sh"), None);
}

proptest! {
    #[test]
    fn nothing_in_proc_panics_us(text in "\\PC{0,200}") {
        let _ = (parse_status(&text), parse_cgroup(&text), parse_start_time(&text));
        let _ = parse_terminal(&text);
        let _ = Unit::of_cgroup(&text);
    }

    /// Whatever is built below a unit, the unit stays the same.
    #[test]
    fn nothing_below_a_unit_changes_it(below in "(/[a-z.@-]{1,20}){0,4}") {
        let unit = Unit::of_cgroup(&format!("/system.slice/web.service{below}")).unwrap();
        prop_assert_eq!(unit.path(), "/system.slice/web.service");
        prop_assert_eq!(unit.nested(), !below.is_empty());
    }
}

#[test]
fn a_terminal_and_a_login_session_are_interactive() {
    let stat = |tty: i32| format!("7 (a) b) S 1 1 1 {tty} -1 4194560 1 0");
    assert_eq!(parse_terminal(&stat(0)), Some(Terminal::None));
    assert_eq!(parse_terminal(&stat(34816)), Some(Terminal::Controlling));
    assert_eq!(parse_terminal("7 (a) S 1"), None);
    let session = |path: &str, terminal| {
        let unit = Unit::of_cgroup(path);
        Session::of(terminal, unit.as_ref()).is_interactive()
    };
    let (login, service) = (
        "/user.slice/user-7.slice/session-3.scope",
        "/system.slice/a.service",
    );
    assert!(session(login, Terminal::None));
    // Half of such a name is none: logind alone names session-*.scope.
    for other in [
        "/user.slice/user-7.slice/run-3.scope",
        "/system.slice/session-3.service",
    ] {
        assert!(!session(other, Terminal::None), "{other}");
    }
    assert!(session(service, Terminal::Controlling));
    assert!(!session(service, Terminal::None));
}

#[test]
fn slices_end_where_the_unit_begins() {
    let unit =
        Unit::of_cgroup("/system.slice/system-a.slice/a@1.service/b.slice/c.service").unwrap();
    assert_eq!(
        unit.slices().collect::<Vec<_>>(),
        ["system.slice", "system-a.slice"]
    );
}
