//! Messages to the service manager (sd_notify(3)). Owns how they are sent; what is said, and when,
//! is `daemon`'s. Must never stop service, whatever is at the other end.

use sd_notify::NotifyState;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How long a message may wait for room: a service manager reads them between its other work. A
/// drain waits so long at most before it begins.
const NOTIFY_WAIT: Duration = Duration::from_secs(3);

/// Tells the service manager. One that has gone or does not read costs three seconds and a line
/// in the log, never service (reliability row 50); sd_notify's own call would wait for ever.
pub async fn notify(states: &[NotifyState<'_>]) {
    #[expect(
        clippy::disallowed_methods,
        reason = "it is the service manager's to say"
    )]
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let text: String = states.iter().map(|state| format!("{state}\n")).collect();
    let sent = async {
        let address = match path.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?, // sd_notify(3)
            None => SocketAddr::from_pathname(&path)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.set_nonblocking(true)?;
        let socket = tokio::net::UnixDatagram::from_std(socket)?;
        socket.send(text.as_bytes()).await.map(drop)
    };
    match tokio::time::timeout(NOTIFY_WAIT, sent).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => eprintln!("assertd: NOTIFY_SOCKET: {error}"),
        Err(_) => eprintln!("assertd: NOTIFY_SOCKET: the service manager does not read it"),
    }
}
