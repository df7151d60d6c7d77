//! What code inside the process can do: tried as a file says, and written down in another. It is
//! how a test knows what a module could do that has been taken over. One attempt per line:
//!
//! ```text
//! read PATH        open a file and read a byte; of a directory its first file
//! list PATH        list a directory
//! link PATH        read a symbolic link; /proc/PID/exe asks what ptrace(2) would
//! write PATH       open a file for appending, made if it is missing
//! truncate PATH    cut a file to nothing
//! remove PATH      remove a file
//! exec PATH        run a program
//! tcp ADDRESS      connect
//! listen ADDRESS   bind a TCP port
//! unix PATH        connect to a socket in the file system
//! abstract NAME    connect to a socket in the abstract namespace
//! signal PID       ask with signal 0 whether a signal could be sent
//! ```
//!
//! The report repeats each line with ` = ok` or ` = ` and the error's number behind it.

use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Does what `P11SHIM_PROBE` and `P11SHIM_REPORT` name. A test that told us to and gets no report
/// must not pass.
pub fn ordered() {
    let file = |name| std::env::var_os(name).map(PathBuf::from);
    let files = file("P11SHIM_PROBE").zip(file("P11SHIM_REPORT"));
    let tried = files.map(|(orders, report)| run(&orders, &report));
    if !matches!(tried, Some(Ok(()))) {
        eprintln!("pkcs11-shim: probe: {tried:?}");
        std::process::abort();
    }
}

/// Tries what stands in the file at `orders` and puts the report at `report`, whole or not at all.
///
/// # Errors
/// If either file cannot be used, or a line is no attempt.
pub fn run(orders: &Path, report: &Path) -> io::Result<()> {
    let mut said = String::new();
    for line in fs::read_to_string(orders)?.lines() {
        let outcome = match attempt(line)? {
            Ok(()) => "ok".to_owned(),
            Err(error) => match error.raw_os_error() {
                Some(number) => number.to_string(),
                None => error.to_string(),
            },
        };
        said.push_str(&format!("{line} = {outcome}\n"));
    }
    let unfinished = report.with_extension("new");
    fs::write(&unfinished, said)?;
    fs::rename(unfinished, report)
}

/// The outcome of one attempt; the outer error is a line that is none.
fn attempt(line: &str) -> io::Result<io::Result<()>> {
    let no_attempt = || io::Error::other(format!("not an attempt: {line}"));
    let (verb, what) = line.split_once(' ').ok_or_else(no_attempt)?;
    let path = Path::new(what);
    Ok(match verb {
        "read" => first_file(path).and_then(|path| File::open(path)?.read(&mut [0]).map(drop)),
        "link" => fs::read_link(path).map(drop),
        "list" => fs::read_dir(path).map(drop),
        "write" => (OpenOptions::new().append(true).create(true).open(path)).map(drop),
        "truncate" => (OpenOptions::new().write(true).truncate(true).open(path)).map(drop),
        "remove" => fs::remove_file(path),
        "exec" => Command::new(path).stdin(Stdio::null()).status().map(drop),
        "tcp" => TcpStream::connect(what).map(drop),
        "listen" => TcpListener::bind(what).map(drop),
        "unix" => UnixStream::connect(path).map(drop),
        "abstract" => SocketAddr::from_abstract_name(what)
            .and_then(|address| UnixStream::connect_addr(&address))
            .map(drop),
        "signal" => {
            let pid = what.parse().map_err(|_| no_attempt())?;
            kill(Pid::from_raw(pid), None).map_err(io::Error::from)
        }
        _ => return Err(no_attempt()),
    })
}

fn first_file(path: &Path) -> io::Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            return Ok(entry.path());
        }
    }
    Err(io::Error::other("no file there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_works_is_ok_and_what_does_not_has_a_number() {
        let dir = tempfile::tempdir().unwrap();
        let (orders, report) = (dir.path().join("orders"), dir.path().join("report"));
        let here = dir.path().display();
        let lines = [
            format!("write {here}/made"),
            format!("read {here}/made"),
            format!("remove {here}/made"),
            format!("read {here}/made"),
            "exec /bin/true".to_owned(),
            "listen 127.0.0.1:0".to_owned(),
            format!("signal {}", std::process::id()),
            format!("unix {here}/none"),
        ];
        fs::write(&orders, lines.join("\n")).unwrap();
        run(&orders, &report).unwrap();
        let outcomes: Vec<String> = (fs::read_to_string(&report).unwrap().lines())
            .map(|line| line.rsplit_once(" = ").unwrap().1.to_owned())
            .collect();
        assert_eq!(outcomes, ["ok", "ok", "ok", "2", "ok", "ok", "ok", "2"]);
    }

    #[test]
    fn a_line_with_a_typo_is_no_attempt() {
        for line in ["", "read", "raed /etc/passwd", "signal me"] {
            assert!(attempt(line).is_err(), "{line}");
        }
    }
}
