//! How a command ends when it does not do what was asked: an exit code for programs, a sentence
//! with the object and the remedy for people.

use assertd_client::Error as ClientError;
use keystore::Kind;
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access, geteuid};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;

/// Exit codes; those from 64 on are sysexits(3)'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Refused, or a check failed.
    Refused = 1,
    /// The command line is not understood.
    Usage = 2,
    /// assertd or a keystore is not there, or has no room now. May be tried again.
    Unavailable = 69,
    /// A defect of ours.
    Internal = 70,
    /// Not this user.
    NotPermitted = 77,
    /// The configuration is wrong.
    Configuration = 78,
}

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    /// Its kind.
    pub exit: Exit,
    /// The sentence.
    pub message: String,
}

/// As whom assertd was asked; the remedies differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A process that wants an assertion.
    Workload,
    /// Root, on the administrators' socket.
    Administrator,
}

impl Failure {
    /// A failure of one kind with its sentence.
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure {
            exit,
            message: message.into(),
        }
    }

    /// What the client of assertd's sockets says.
    pub fn from_client(error: &ClientError, asker: Asker) -> Failure {
        match error {
            ClientError::Unreachable { socket, .. } => unreachable_socket(socket, asker, error),
            ClientError::Refused { problem, .. } => {
                let exit = match (problem.status, asker) {
                    (403, Asker::Administrator) => Exit::NotPermitted,
                    (429 | 503 | 504, _) => Exit::Unavailable,
                    (500, _) => Exit::Internal,
                    _ => Exit::Refused,
                };
                Failure::new(exit, error.to_string())
            }
            ClientError::Garbled(_) => Failure::new(Exit::Internal, error.to_string()),
        }
    }

    /// What a keystore says.
    pub fn from_keystore(error: &keystore::Error) -> Failure {
        let exit = match error.kind() {
            Kind::Unavailable | Kind::Absent | Kind::Locked | Kind::BadPin | Kind::Clock => {
                Exit::Unavailable
            }
            Kind::Protocol | Kind::Internal => Exit::Internal,
            Kind::NotFound
            | Kind::Exists
            | Kind::Mismatch
            | Kind::Corrupt
            | Kind::Unsupported
            | Kind::Unhealthy
            | Kind::Refused => Exit::Refused,
        };
        Failure::new(exit, error.to_string())
    }
}

/// Nobody answered: is the socket missing, closed to this user, or silent?
fn unreachable_socket(socket: &Path, asker: Asker, error: &ClientError) -> Failure {
    let shown = socket.display();
    match (access(socket, AccessFlags::W_OK), asker) {
        (Err(Errno::ENOENT | Errno::ENOTDIR), _) => Failure::new(
            Exit::Unavailable,
            format!(
                "{shown}: there is no such socket; is assertd running? (`systemctl status \
                 assertd`, or `-s` for another place)"
            ),
        ),
        (Err(Errno::EACCES | Errno::EPERM), Asker::Workload) => Failure::new(
            Exit::NotPermitted,
            format!(
                "{shown}: uid {} may not open this socket; the service may hide it \
                 (`InaccessiblePaths=`, `RootDirectory=`), or an administrator has closed it",
                geteuid()
            ),
        ),
        (Err(Errno::EACCES | Errno::EPERM), Asker::Administrator) => not_root(socket),
        (_, Asker::Administrator) if !may_administer(socket) => not_root(socket),
        _ => Failure::new(Exit::Unavailable, error.to_string()),
    }
}

/// Whether this user is root or the one that assertd runs as, by the owner of its socket.
pub fn may_administer(admin_socket: &Path) -> bool {
    let owner = std::fs::metadata(admin_socket).map(|metadata| metadata.uid());
    geteuid().is_root() || owner.is_ok_and(|uid| uid == geteuid().as_raw())
}

/// The administrators' socket is root's.
pub fn not_root(socket: &Path) -> Failure {
    let text = format!(
        "{}: this command is for root, not for uid {}; run it by sudo",
        socket.display(),
        geteuid()
    );
    Failure::new(Exit::NotPermitted, text)
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use assertd_client::api::Problem;

    fn refused(status: u16) -> ClientError {
        let problem = Problem {
            r#type: "urn:assertd:problem:denied".into(),
            title: "denied".into(),
            status,
            detail: "ask an administrator".into(),
            id: "01JD8K".into(),
        };
        ClientError::Refused {
            problem,
            retry_after_s: None,
        }
    }

    #[test]
    fn a_denial_and_a_full_queue_are_told_apart_by_the_exit_code() {
        let exit = |status, asker| Failure::from_client(&refused(status), asker).exit;
        assert_eq!(exit(403, Asker::Workload), Exit::Refused);
        assert_eq!(exit(403, Asker::Administrator), Exit::NotPermitted);
        assert_eq!(exit(400, Asker::Workload), Exit::Refused);
        assert_eq!(exit(500, Asker::Workload), Exit::Internal);
        for status in [429, 503] {
            assert_eq!(exit(status, Asker::Workload), Exit::Unavailable);
        }
    }

    #[test]
    fn a_socket_that_is_not_there_names_the_remedy() {
        let socket = Path::new("/nonexistent/assertd.sock");
        let error = ClientError::Unreachable {
            socket: socket.into(),
            reason: "gone".into(),
        };
        let failure = Failure::from_client(&error, Asker::Workload);
        assert_eq!(failure.exit, Exit::Unavailable);
        assert!(
            failure.message.contains("is assertd running?"),
            "{}",
            failure.message
        );
    }
}
