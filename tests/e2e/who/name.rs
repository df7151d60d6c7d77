//! Text that a peer chooses: the name of its socket (snapd CVE-2019-7304), of its process, of what it
//! asks for (sudo-rs CVE-2023-42456). None of it is an identity, and none becomes a path.

use super::{daemon, decisions};
use crate::world::serves;
use harness::caller::printed;
use harness::cgroup::Slice;
use harness::http::post;
use harness::trace::Trace;
use harness::user::ALICE;
use harness::{DEADLINE, Daemon, Token, public_dir};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

#[test]
fn hostile_socket_names_do_not_matter() {
    let token = Token::new();
    let daemon = daemon(&token);
    let script = r"
import shutil, tempfile
tmp = tempfile.mkdtemp().encode()
names = [
    b'\0;uid=0;', b'\0;uid=0;gid=0;pid=1;', b'\0uid=0\nUid:\t0\t0\t0\t0', b'\0/run/assertd/admin.sock',
    b'\0assertd', b'\0\n\r\n%s%n%x', b'\0' + b'\xff' * 107, b'\0' + b'a' * 107, b'\0\0\0',
    tmp + b'/;uid=0;', tmp + b'/\n0::x', tmp + b'/\x1b]0;root\x07', tmp + b'/' + b'b' * (106 - len(tmp)),
]
longest = 0
for name in names:
    s = connect(name)
    bound = s.getsockname()
    if (os.fsencode(bound) if isinstance(bound, str) else bound) != name:
        sys.exit('bound to %r, not to %r' % (bound, name))
    longest = max(longest, len(name))
    results = []
    for target in ['hers', 'bank']:
        ask(s, target)
        results.append(status(s))
    say(*results)
say(longest)
shutil.rmtree(tmp)
";
    let expected = format!("{}\n108", ["200 403"; 13].join("\n"));
    assert_eq!(printed(ALICE, &daemon.socket(), script), expected);
}

#[test]
fn a_hostile_process_name_means_nothing() {
    let token = Token::new();
    let daemon = daemon(&token);
    let script = r"
s = connect()
for name in ['(x) S 1', 'a\nUid:\t0\t0\t0\t0', ') Z 0 0 0', '\n0::/init.scope', 'NSpid:\t1\t1']:
    with open('/proc/self/comm', 'w') as comm:
        comm.write(name)
    if open('/proc/self/comm').read() != name[:15] + '\n':
        sys.exit('called %r, not %r' % (open('/proc/self/comm').read(), name))
    results = []
    for target in ['hers', 'bank']:
        ask(s, target)
        results.append(status(s))
    say(*results)
";
    assert_eq!(
        printed(ALICE, &daemon.socket(), script),
        ["200 403"; 5].join("\n")
    );
}

/// In all that these callers choose, and in nothing else.
const MARK: &str = "qzmarkzq";

/// Every call that is given a path or the address of a socket.
const PATHS: &str = "--trace=%file,connect,bind";

#[test]
fn names_from_peers_never_reach_the_file_system() {
    let (token, slice) = (Token::new(), Slice::new());
    let mut daemon = daemon(&token);
    let trace = Trace::attach(
        &[daemon.pid(), daemon.keystore_pid()],
        &[PATHS, "--string-limit=8192"],
    );
    let (mut asked, mut refused) = (0, 0);
    for request in requests() {
        assert!(contains(&request, MARK.as_bytes()));
        asked += 1;
        refused += usize::from(is_refused(&daemon, &request));
    }
    let place = public_dir();
    let pid = a_marked_process_asks(&daemon, &slice, place.path());
    serves(&mut daemon);
    let traced = trace.end();

    assert_eq!(refused, asked);
    let denied = daemon.status().requests.denied;
    assert!(denied > 20, "only {denied} went as far as the policy");
    assert!(decisions(&daemon) >= 2, "the controls");
    // It was looking all the time, from the first of them to the last.
    let us = format!("\"/proc/{}\"", std::process::id());
    let looked = traced.lines().filter(|line| line.contains(&us)).count();
    assert!(looked >= asked, "{looked} of {asked}");
    assert!(traced.contains(&format!("\"/proc/{pid}\"")), "{traced}");
    let marked: Vec<&str> = traced.lines().filter(|line| line.contains(MARK)).collect();
    assert!(marked.is_empty(), "{marked:#?}");
    let site = [daemon.site().runtime_dir(), daemon.site().state_dir()];
    for directory in site {
        no_marked_file(&directory);
    }
}

/// Alice's process whose program, directory, name, arguments, environment, socket and cgroup are marked
/// is granted its target; its number.
fn a_marked_process_asks(daemon: &Daemon, slice: &Slice, place: &Path) -> u32 {
    let marked = place.join(MARK);
    std::fs::create_dir(&marked).unwrap();
    let everybodys = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(&marked, everybodys).unwrap();
    let program = marked.join(format!("{MARK}-python3"));
    std::fs::copy("/usr/bin/python3", &program).unwrap();
    let unit = slice.unit(&format!("web.service/{MARK}.service"));
    let everybodys = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(unit.procs(), everybodys).unwrap();
    let script = format!(
        r"
program, marked, unit = sys.argv[2:5]
if len(sys.argv) == 5:
    code = open('/proc/self/cmdline').read().split('\0')[3]
    os.chdir(marked)
    os.execve(program, ['{MARK}', '-I', '-c', code, *sys.argv[1:], '{MARK}'], {{'{MARK}': '{MARK}'}})
say(os.getpid())
told()
with open('/proc/self/comm', 'w') as comm:
    comm.write('{MARK}')
s = connect(os.path.join(marked, '{MARK}').encode())
ask(s, 'hers')
say(status(s), os.readlink('/proc/self/exe') == program, '{MARK}' in open('/proc/self/cgroup').read())
"
    );
    let mut command = harness::caller::script_as(ALICE, &daemon.socket(), &script);
    command.args([&program, &marked, &unit.procs()]);
    let mut caller = harness::caller::Caller::run(&mut command);
    let pid = caller.line();
    unit.take(caller.pid());
    caller.tell("go on");
    caller.expect("200 True True");
    pid.parse().unwrap()
}

/// Whether it got an answer that is a refusal, or was hung up on.
fn is_refused(daemon: &Daemon, request: &[u8]) -> bool {
    let mut raw = daemon.raw();
    let _ = raw.send(request); // it may be hung up on in the middle
    raw.end_sending();
    raw.answer(DEADLINE)
        .is_none_or(|answer| answer.status >= 400)
}

/// Requests in which everything that is the caller's to choose is marked, in many spellings of a path.
fn requests() -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    for name in names() {
        let quoted = serde_json::Value::from(name.clone()).to_string();
        requests.push(post(format!("{{\"target\":{quoted}}}")));
        requests.push(post(format!("{{\"target\":\"bank\",{quoted}:{quoted}}}")));
        let in_line: String = name
            .chars()
            .filter(|it| !it.is_control() && *it != ' ')
            .collect();
        requests.push(format!("GET /v1/{in_line} HTTP/1.1\r\nhost: a\r\n\r\n").into_bytes());
        requests.push(format!("GET {in_line} HTTP/1.1\r\nhost: a\r\n\r\n").into_bytes());
        requests.push(
            format!("DELETE /v1/whoami?{in_line} HTTP/1.1\r\nhost: {in_line}\r\nx-{MARK}: {in_line}\r\n\r\n")
                .into_bytes(),
        );
    }
    requests
}

/// What becomes of the mark in the hands of somebody who wants a file.
fn names() -> Vec<String> {
    let mut names: Vec<String> = [
        "",
        "/",
        "./",
        "../",
        "../../../../etc/",
        "/proc/self/root/",
        "~/",
        "%2e%2e%2f",
    ]
    .iter()
    .flat_map(|before| {
        [
            "", "/", "/..", "/../bank", ".toml", ".log", "\0", "\n", "%00", ";id", "$(id)", "`id`",
            "*",
        ]
        .map(|after| format!("{before}{MARK}{after}"))
    })
    .collect();
    // These are names of targets, but for being nobody's.
    names.extend((0..30).map(|number| format!("{MARK}_{number}-{MARK}")));
    // A generator of numbers is enough for noise that is the same each time.
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let letters: Vec<char> = "abz/.\\-_%@:;\u{0}\u{7f}\u{202e}é".chars().collect();
    for _ in 0..40 {
        let mut noise = |length: usize| -> String {
            let mut letter = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                letters[usize::try_from(state % letters.len() as u64).unwrap()]
            };
            (0..length).map(|_| letter()).collect()
        };
        names.push(format!("{}{MARK}{}", noise(8), noise(12)));
    }
    names
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

fn no_marked_file(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        assert!(!path.to_string_lossy().contains(MARK), "{}", path.display());
        if path.is_dir() {
            no_marked_file(&path);
        }
    }
}
