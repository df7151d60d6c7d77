//! The PIN is where it must be and nowhere else: a random one is looked for in everything that
//! processes show, write or keep.

use crate::world::{BANK, bank};
use harness::{Daemon, SoftHsm, Token};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// How often `needle` is in the memory of a process that we may read as root.
fn copies_in_memory(pid: u32, needle: &[u8]) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    maps.lines()
        .map(|line| copies_in_mapping(&memory, line, needle))
        .sum()
}

/// One line of proc_pid_maps(5): `start-end rwxp …`.
fn copies_in_mapping(memory: &File, line: &str, needle: &[u8]) -> usize {
    const PIECE: usize = 1 << 20;
    let (range, rest) = line.split_once(' ').unwrap();
    if !rest.starts_with('r') {
        return 0;
    }
    let (start, end) = range.split_once('-').unwrap();
    let number = |hex| u64::from_str_radix(hex, 16).unwrap();
    let (mut at, end) = (number(start), number(end));
    let (mut found, mut carried) = (0, Vec::new());
    while at < end {
        let mut piece = vec![0; PIECE.min(usize::try_from(end - at).unwrap())];
        let Ok(length) = memory.read_at(&mut piece, at) else {
            break; // [vvar] and device memory cannot be read (proc_pid_mem(5))
        };
        if length == 0 {
            break;
        }
        at += length as u64;
        carried.extend_from_slice(&piece[..length]);
        found += count(&carried, needle);
        // What could be the beginning of one that goes on in the next piece.
        carried.drain(..carried.len().saturating_sub(needle.len() - 1));
    }
    found
}

/// Most of it is zeros, which `contains` passes over quickly.
fn count(bytes: &[u8], needle: &[u8]) -> usize {
    const PAGE: usize = 4096;
    let starts = (0..bytes.len()).step_by(PAGE);
    let in_page = |start: usize| {
        let page = &bytes[start..bytes.len().min(start + PAGE)];
        if !page.contains(&needle[0]) {
            return 0;
        }
        let beyond = bytes.len().min(start + PAGE + needle.len() - 1);
        let windows = bytes[start..beyond].windows(needle.len());
        windows.filter(|window| *window == needle).count()
    };
    starts.map(in_page).sum()
}

fn files(daemon: &Daemon, pids: &[u32]) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for pid in pids {
        for name in ["environ", "cmdline", "status", "maps"] {
            let path = format!("/proc/{pid}/{name}");
            found.push((path.clone(), std::fs::read(path).unwrap()));
        }
    }
    for path in super::below(&daemon.site().state_dir()) {
        if path.is_file() {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    found
}

#[test]
fn the_search_finds_what_crosses_a_page() {
    let mut bytes = vec![0; 3 * 4096];
    for at in [0, 4092, 8190, bytes.len() - 8] {
        bytes[at..at + 8].copy_from_slice(b"12345678");
    }
    assert_eq!(count(&bytes, b"12345678"), 4);
    assert_eq!(count(&bytes, b"12345679"), 0);
    assert_eq!(count(b"1234", b"12345678"), 0);
}

#[test]
fn the_secret_is_nowhere_but_in_the_keystore() {
    let token = Token::new();
    let daemon = Daemon::with_keys(bank(&token));
    assert_eq!(daemon.ask(BANK).status, 200);
    let secret = token.secret();
    let mut seen = files(&daemon, &[daemon.pid(), daemon.keystore_pid()]);
    seen.push(("standard error".into(), daemon.stderr().into_bytes()));
    for command in [
        &["status", "--json"][..],
        &["keys", "--json"],
        &["config", "check"],
        &["config", "diff"],
        &["audit", "verify"],
        &["audit", "show"],
        &["apply", "--yes"],
    ] {
        let output = daemon.assertctl(command);
        seen.push((command.join(" "), [output.stdout, output.stderr].concat()));
    }
    for (place, bytes) in &seen {
        assert_eq!(count(bytes, secret), 0, "{place}");
    }
    assert_eq!(
        copies_in_memory(daemon.pid(), secret),
        0,
        "the broker's memory"
    );

    // The search finds what is there: a word of the configuration, at the broker and in the log.
    assert!(copies_in_memory(daemon.pid(), b"ours-bank") > 0);
    assert!(seen.iter().any(|(_, bytes)| count(bytes, b"ours/bank") > 0));
    // The module keeps what it likes; our own copies are wiped (docs/decisions/0007).
    let left = copies_in_memory(daemon.keystore_pid(), secret);
    println!("copies of it in the keystore's memory after login: {left}");
}

#[test]
fn pkcs11_a_pin_that_is_refused_is_in_no_error() {
    let token = SoftHsm::new();
    let wrong: String = token
        .pin()
        .chars()
        .rev()
        .map(|c| if c == '9' { '0' } else { (c as u8 + 1) as char })
        .collect();
    std::fs::write(token.pin_file(), &wrong).unwrap();
    let daemon = Daemon::start(bank(&token));
    let failed = harness::wait_until(harness::DEADLINE, || {
        daemon.status().keystores[0].state == "failed"
    });
    assert!(failed, "{}", daemon.stderr());
    let mut seen = files(&daemon, &[daemon.pid(), daemon.keystore_pid()]);
    seen.push((
        "the answer".into(),
        daemon.ask(BANK).body().as_bytes().to_vec(),
    ));
    let status = daemon.assertctl(&["status", "--json"]);
    seen.push(("status".into(), [status.stdout, status.stderr].concat()));
    let said = daemon.stderr();
    assert!(said.contains("PIN"), "{said}");
    seen.push(("standard error".into(), said.into_bytes()));
    for (place, bytes) in &seen {
        assert_eq!(count(bytes, wrong.as_bytes()), 0, "{place}");
    }
    assert_eq!(copies_in_memory(daemon.pid(), wrong.as_bytes()), 0);
}
