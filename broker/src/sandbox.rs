//! What the broker can still reach once it serves: its configuration, its state, its audit log, its
//! sockets, what libc looks users up in, and what the kernel says about callers. No other file, no
//! program, no TCP, no process to signal. Owns that list; how it is entered is
//! [`keystore::hardening::sandbox`]'s.
//!
//! Threads that start keystore programs (`isolation: none`) are started before, and stay outside:
//! what they start closes itself in. So in that mode the list holds against mistakes, and not
//! against somebody who runs code in this process (docs/decisions/0007).

use crate::config::{self, Config};
use keystore::hardening::sandbox::{AbstractSockets, Enforced, Network, Sandbox};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Libraries and tables of libc and its name services (nsswitch.conf(5): files, systemd, sss,
/// extrausers, db), and what the kernel says about processes and processors.
const READ: [&str; 13] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc",
    "/nix/store",
    "/proc",
    "/sys/fs/cgroup",
    "/sys/devices/system/cpu",
    "/run/systemd/userdb",
    "/run/userdb",
    "/var/lib/sss",
    "/var/lib/extrausers",
];

const DEVICES: [&str; 3] = ["/dev/null", "/dev/urandom", "/dev/random"];

/// Enters it: this thread and all that it starts from now on. Makes the audit log's directory if it
/// is missing, since a rule needs something to hold on to.
pub fn enter(config: &Config) -> Enforced {
    let mut made = std::fs::DirBuilder::new();
    let _ = made.mode(0o700).create(&config.audit.dir); // opening the log says what is wrong
    of_broker(config).enter()
}

/// What it lets be read, with all that is below.
pub fn readable(config: &Config) -> Vec<PathBuf> {
    let Sandbox { read, write, .. } = of_broker(config);
    [read, write].concat()
}

fn of_broker(config: &Config) -> Sandbox {
    let mut read: Vec<PathBuf> = READ.map(PathBuf::from).to_vec();
    read.extend(configuration(&config.path));
    // Files are replaced by renaming, and rules are made of inodes.
    let holding = config.deny.paths().filter_map(|file| file.parent());
    read.extend(
        holding
            .filter(|it| it.parent().is_some())
            .map(Path::to_owned),
    );
    let mut write = vec![
        config.server.state_dir.clone(),
        config.server.runtime_dir.clone(),
        config.audit.dir.clone(),
    ];
    write.extend(config.publication.iter().map(|it| it.directory.clone()));
    Sandbox {
        read,
        write,
        devices: DEVICES.map(PathBuf::from).to_vec(),
        network: Network::None,
        abstract_sockets: match keystore::notify::has_abstract_socket() {
            true => AbstractSockets::Open,
            false => AbstractSockets::None,
        },
    }
}

/// The directories a reload reads: the main file's, with `conf.d`, and those that links in them
/// lead to now. Never the root.
pub fn configuration(path: &Path) -> Vec<PathBuf> {
    let files = config::files(path).unwrap_or_default();
    let drop_ins = path.with_file_name("conf.d");
    let real = files.iter().filter_map(|file| file.canonicalize().ok());
    let holding = real.filter_map(|file| Some(file.parent()?.to_owned()));
    let mut directories: Vec<PathBuf> = path.parent().map(Path::to_owned).into_iter().collect();
    directories.push(drop_ins);
    directories.extend(holding);
    directories.retain(|directory| directory.parent().is_some());
    directories
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File, OpenOptions};
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixStream};
    use std::process::Command;

    /// A configuration whose directories lie in `dir`, `log` being the audit log's.
    fn config(dir: &Path) -> Config {
        let main = dir.join("etc/assertd.toml");
        fs::create_dir_all(dir.join("etc/conf.d")).unwrap();
        for made in ["run", "state", "elsewhere"] {
            fs::create_dir(dir.join(made)).unwrap();
        }
        let here = dir.display();
        let text = format!(
            "[server]\nruntime_dir = \"{here}/run\"\nstate_dir = \"{here}/state\"\n\
             [audit]\ndir = \"{here}/log\"\n"
        );
        put(&main, &text);
        put(&dir.join("elsewhere/secret"), "s");
        Config::load(&main).unwrap()
    }

    fn put(path: &Path, text: &str) {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).open(path).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    }

    type Attempt = (
        &'static str,
        Box<dyn Fn() -> std::io::Result<()> + Send + Sync>,
    );

    /// What must fail inside and works outside; each can be done twice.
    fn forbidden(dir: &Path, port: u16, name: &str) -> Vec<Attempt> {
        let at = |name: &str| dir.join("elsewhere").join(name);
        let (read, list, write, made) = (at("secret"), at(""), at("secret"), at("made"));
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let test = nix::unistd::getppid();
        vec![
            ("read", Box::new(move || File::open(&read).map(drop))),
            ("list", Box::new(move || fs::read_dir(&list).map(drop))),
            (
                "write",
                Box::new(move || OpenOptions::new().append(true).open(&write).map(drop)),
            ),
            (
                "make",
                Box::new(move || fs::create_dir(&made).and_then(|()| fs::remove_dir(&made))),
            ),
            (
                "exec",
                Box::new(|| Command::new("/bin/true").status().map(drop)),
            ),
            (
                "connect",
                Box::new(move || TcpStream::connect(("127.0.0.1", port)).map(drop)),
            ),
            (
                "listen",
                Box::new(|| TcpListener::bind("127.0.0.1:0").map(drop)),
            ),
            (
                "abstract",
                Box::new(move || UnixStream::connect_addr(&address).map(drop)),
            ),
            (
                "signal",
                Box::new(move || nix::sys::signal::kill(test, None).map_err(Into::into)),
            ),
        ]
    }

    /// What the broker does while it serves.
    fn needed(dir: &Path) -> Vec<Attempt> {
        let path = |name: &str| dir.join(name);
        let (main, drop_ins) = (path("etc/assertd.toml"), path("etc/conf.d"));
        let mut attempts: Vec<Attempt> = vec![
            (
                "configuration",
                Box::new(move || File::open(&main).map(drop)),
            ),
            (
                "conf.d",
                Box::new(move || fs::read_dir(&drop_ins).map(drop)),
            ),
            (
                "caller",
                Box::new(|| File::open("/proc/1/cgroup").map(drop)),
            ),
            ("null", Box::new(|| File::open("/dev/null").map(drop))),
            (
                "users",
                Box::new(|| match nix::unistd::User::from_name("root") {
                    Ok(Some(_)) => Ok(()),
                    other => Err(std::io::Error::other(format!("{other:?}"))),
                }),
            ),
        ];
        for name in ["run", "state", "log"] {
            let (old, new) = (path(name).join("old"), path(name).join("new"));
            attempts.push((
                "own files",
                Box::new(move || {
                    put(&old, "x");
                    fs::rename(&old, &new)?;
                    OpenOptions::new().write(true).truncate(true).open(&new)?;
                    fs::remove_file(&new)
                }),
            ));
        }
        attempts
    }

    /// Only the thread that enters is bound, and so the rest of the test is the control.
    #[test]
    fn what_the_broker_does_not_need_is_refused_and_what_it_needs_is_not() {
        let tmp = tempfile::tempdir().unwrap();
        let config = config(tmp.path());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let name = format!("assertd-sandbox-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let _abstract = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
        let forbidden = forbidden(tmp.path(), port, &name);
        let needed = needed(tmp.path());
        std::thread::scope(|threads| {
            threads.spawn(|| {
                assert_eq!(enter(&config), Enforced::Fully);
                for (what, attempt) in &forbidden {
                    let refused = attempt().unwrap_err();
                    assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{what}");
                }
                for (what, attempt) in &needed {
                    attempt().unwrap_or_else(|error| panic!("{what}: {error}"));
                }
            });
        });
        for (what, attempt) in forbidden.iter().chain(&needed) {
            attempt().unwrap_or_else(|error| panic!("outside: {what}: {error}"));
        }
    }

    #[test]
    fn where_links_of_the_configuration_lead_can_be_read_and_the_root_is_not() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().canonicalize().unwrap();
        config(&dir);
        let main = dir.join("etc/assertd.toml");
        put(&dir.join("elsewhere/team.toml"), "");
        let link = dir.join("etc/conf.d/team.toml");
        std::os::unix::fs::symlink(dir.join("elsewhere/team.toml"), link).unwrap();
        let directories = configuration(&main);
        assert!(directories.contains(&dir.join("elsewhere")));
        assert!(directories.contains(&dir.join("etc/conf.d")));
        assert!(!configuration(Path::new("/assertd.toml")).contains(&PathBuf::from("/")));
    }
}
