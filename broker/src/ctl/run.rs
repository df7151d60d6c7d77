//! Waits for what may hang: other programs, and work that the kernel or a name service may never
//! end. Never longer than a deadline. What a program prints is read up to a limit; what it is given
//! stands on its standard input and nowhere else, because a PIN goes this way (an argument or a
//! variable can be read by others in /proc). Our own environment is the caller's, and reaches none.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Most that is read of standard output and of standard error, in bytes: an HSM of 256 slots
/// prints a tenth of it.
const OUTPUT_LEN_MAX: u64 = 1024 * 1024;

/// How often we look whether it has ended.
const POLL: Duration = Duration::from_millis(5);

/// How long its pipes may stay open after its end: a grandchild may hold them. Also how long it may
/// take to be gone after SIGKILL: one that waits for a dead disk is not.
const PIPES: Duration = Duration::from_secs(2);

/// Where programs are, whatever PATH says: root runs them.
const DIRECTORIES: [&str; 4] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];

/// What they find other programs by.
const PATH: &str = "/usr/bin:/usr/sbin:/bin:/sbin";

/// Does something that may hang, elsewhere; nothing if it takes longer than `deadline`. What hangs
/// is left behind: this program ends soon.
pub fn within<T: Send + 'static>(
    deadline: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let _ = send.send(work()); // nobody waits any more: then it was too late
    });
    receive.recv_timeout(deadline).ok()
}

/// What came of it.
#[derive(Debug)]
pub struct Ended {
    status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    stderr: String,
}

/// A program of the system, if it is installed.
pub fn program(name: &str) -> Option<PathBuf> {
    DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.is_file())
}

/// Runs it with this input. Its environment is empty but for PATH and what `command` sets.
///
/// # Errors
/// A sentence without the program's name: it did not start, or did not end in time.
pub fn run(command: &mut Command, input: &[u8], deadline: Duration) -> Result<Ended, String> {
    run_to(command, Stdio::piped(), input, deadline)
}

/// The same, but what it prints is a secret, and comes nowhere near our memory.
pub fn run_blindly(
    command: &mut Command,
    input: &[u8],
    deadline: Duration,
) -> Result<Ended, String> {
    run_to(command, Stdio::null(), input, deadline)
}

fn run_to(
    command: &mut Command,
    stdout: Stdio,
    input: &[u8],
    deadline: Duration,
) -> Result<Ended, String> {
    let end = Instant::now() + deadline;
    let asked: Vec<(OsString, OsString)> = command
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    command
        .env_clear()
        .env("PATH", PATH)
        .envs(asked)
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command
        .spawn()
        .map_err(|error| format!("cannot be started ({error})"))?;
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    // In a thread: a child that does not read must not keep us. It may end without reading.
    let (mut stdin, input) = (child.stdin.take(), Zeroizing::new(input.to_vec()));
    thread::spawn(move || stdin.as_mut().map(|pipe| pipe.write_all(&input)));
    let status = wait(&mut child, end);
    let Some(status) = status.map_err(|error| format!("cannot be waited for ({error})"))? else {
        return Err(format!("did not end within {} s", deadline.as_secs()));
    };
    let text = |pipe: mpsc::Receiver<Vec<u8>>| {
        let bytes = pipe.recv_timeout(PIPES).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Ok(Ended {
        status,
        stdout: text(stdout),
        stderr: text(stderr),
    })
}

/// Its status; nothing if it had to be killed, with whatever it started.
fn wait(child: &mut Child, end: Instant) -> io::Result<Option<ExitStatus>> {
    if let Some(status) = wait_until(child, end)? {
        return Ok(Some(status));
    }
    let group = Pid::from_raw(child.id().cast_signed());
    let _ = killpg(group, Signal::SIGKILL); // it may have ended just now
    wait_until(child, Instant::now() + PIPES)?;
    Ok(None)
}

fn wait_until(child: &mut Child, end: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        let status = child.try_wait()?;
        if status.is_some() || Instant::now() >= end {
            return Ok(status);
        }
        thread::sleep(POLL);
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // What was read before an error is still what it said.
            let _ = pipe.take(OUTPUT_LEN_MAX).read_to_end(&mut bytes);
        }
        let _ = send.send(bytes); // nobody waits any more: it was killed
    });
    receive
}

impl Ended {
    /// Whether its exit code is 0.
    pub fn succeeded(&self) -> bool {
        self.status.success()
    }

    /// Why it failed, in its own words if it said any: the last line of standard error.
    pub fn reason(&self) -> String {
        let said = self.stderr.lines().map(str::trim).rfind(|l| !l.is_empty());
        match (self.status.signal(), self.status.code(), said) {
            (Some(number), _, _) => {
                let name = Signal::try_from(number).map_or("a signal", Signal::as_str);
                format!("crashed ({name})")
            }
            (None, _, Some(said)) => said.to_owned(),
            (None, code, None) => format!("failed with exit code {}", code.unwrap_or(-1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script);
        command
    }

    #[test]
    fn input_goes_in_and_output_comes_out() {
        let ended = run(&mut shell("tr a-z A-Z"), b"pin", SOON).unwrap();
        assert!(ended.succeeded());
        assert_eq!(ended.stdout, "PIN");
        let ended = run_blindly(&mut shell("tr a-z A-Z"), b"pin", SOON).unwrap();
        assert_eq!((ended.succeeded(), ended.stdout.as_str()), (true, ""));
    }

    #[test]
    fn a_program_sees_no_variable_but_path_and_what_it_is_given() {
        // Cargo's variables are in this process's environment.
        let bare = run(&mut Command::new("/usr/bin/env"), b"", SOON).unwrap();
        assert_eq!(bare.stdout, format!("PATH={PATH}\n"));
        let mut given = Command::new("/usr/bin/env");
        let ended = run(given.env("SOFTHSM2_CONF", "/c"), b"", SOON).unwrap();
        assert_eq!(ended.stdout, format!("PATH={PATH}\nSOFTHSM2_CONF=/c\n"));
    }

    #[test]
    fn work_that_hangs_is_left_behind() {
        let (_keep, never) = mpsc::channel::<()>();
        let got = within(Duration::from_millis(20), move || never.recv());
        assert_eq!(got, None);
        assert_eq!(within(SOON, || 7), Some(7));
    }

    #[test]
    fn a_failure_is_told_in_its_own_words() {
        let reason = |script| run(&mut shell(script), b"", SOON).unwrap().reason();
        assert_eq!(reason("echo why >&2; echo >&2; exit 3"), "why");
        assert_eq!(reason("exit 3"), "failed with exit code 3");
        assert_eq!(reason("kill -SEGV $$"), "crashed (SIGSEGV)");
    }

    #[test]
    fn what_hangs_is_ended_with_all_it_started() {
        let started = Instant::now();
        let hung = run(
            &mut shell("sleep 1000 & sleep 1000"),
            b"",
            Duration::from_millis(100),
        );
        assert!(hung.unwrap_err().starts_with("did not end within"));
        assert!(started.elapsed() < Duration::from_secs(100));
    }

    #[test]
    fn one_that_reads_nothing_and_one_that_never_stops_talking_keep_nobody() {
        let long = vec![b'x'; 1 << 20];
        assert!(run(&mut shell("exit 0"), &long, SOON).unwrap().succeeded());
        let chatty = run(&mut shell("yes"), b"", Duration::from_secs(1));
        assert!(chatty.is_err() || !chatty.unwrap().succeeded());
    }
}
