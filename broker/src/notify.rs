//! Messages to the service manager, sent beside the event loop: the call waits for a manager that
//! does not read, and nothing else may wait for it. How they are sent is [`keystore::notify`]'s.

use sd_notify::NotifyState;

/// Tells the service manager. A failure is a line in the log, never more.
pub async fn notify(states: &[NotifyState<'_>]) {
    let text = keystore::notify::text(states);
    let sent = tokio::task::spawn_blocking(move || keystore::notify::send(&text));
    if let Ok(Err(error)) = sent.await {
        eprintln!("assertd: {error}");
    }
}
