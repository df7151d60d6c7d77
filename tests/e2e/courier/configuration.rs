//! What the courier fetches is what the files say, now.

use super::*;
use harness::wait_until;
use nix::sys::signal::Signal;

/// Older than that the courier reads the files anew.
const READ_AGE: Duration = Duration::from_millis(1100);

fn write(courier: &Courier, text: &str) {
    let new = courier.config().with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, courier.config()).unwrap();
}

#[test]
fn a_change_is_followed_and_a_mistake_changes_nothing() {
    let publisher = Publisher::start();
    let ca = format!("ca = {:?}", publisher.ca());
    let text = |issuers: &[(&'static str, &str)]| {
        let urls = issuers
            .iter()
            .map(|(name, path)| (*name, publisher.url("right", path)));
        configured(&ca, urls.collect::<Vec<_>>())
    };
    let courier = Courier::start(&text(&[("a", "old")]));
    assert_eq!(courier.fetch("a"), publisher.document("old"));
    refused(&courier, "b", &json!("issuer"), "verify_url");
    write(&courier, &text(&[("a", "new"), ("b", "other")]));
    std::thread::sleep(READ_AGE);
    assert_eq!(
        courier.fetch("b"),
        publisher.document("other"),
        "an issuer that it did not know"
    );
    let answer = courier.ask("a");
    assert_eq!(
        answer["document"]["url"],
        publisher.url("right", "new"),
        "another URL"
    );
    write(&courier, "[issuer");
    std::thread::sleep(READ_AGE);
    assert_eq!(
        courier.fetch("a"),
        publisher.document("new"),
        "the last that could be read holds"
    );
    courier.process.wait_for_stderr("courier: configuration: ");
    write(&courier, &text(&[("a", "old")]));
    courier.process.signal(Signal::SIGHUP);
    courier.process.wait_for_stderr("can be read again");
    assert_eq!(courier.fetch("a"), publisher.document("old"));
    refused(&courier, "b", &json!("issuer"), "verify_url");
}

#[test]
fn without_a_configuration_or_authorities_nothing_is_fetched_and_everything_is_said() {
    let publisher = Publisher::start();
    let urls = || [("a", publisher.url("right", "new"))];
    let courier = Courier::start("[issuer");
    let beside = courier.config().with_file_name("ca.pem");
    std::fs::copy(publisher.ca(), &beside).unwrap();
    let ca = format!("ca = {beside:?}");
    refused(
        &courier,
        "a",
        &json!("configuration"),
        "assertctl config check",
    );
    write(&courier, &configured(&ca, urls()));
    let mended = wait_until(DEADLINE, || !courier.ask("a")["document"].is_null());
    assert!(mended, "{}", courier.process.stderr());
    let none = configured("ca = \"/etc/assertd-there-is-none.pem\"", urls());
    let courier = Courier::start(&none);
    let kind = json!("configuration");
    refused(&courier, "a", &kind, "assertd-there-is-none.pem");
    std::thread::sleep(READ_AGE);
    refused(&courier, "a", &kind, "No such file");
}

/// In its own sandbox, without any unit's.
#[test]
fn it_reads_its_configuration_and_whom_to_trust_and_ends_to_read_what_its_sandbox_hides() {
    let publisher = Publisher::start();
    let elsewhere = public_dir();
    let other = elsewhere.path().join("ca.pem");
    std::fs::copy(publisher.ca(), &other).unwrap();
    let configured = |ca: &Path| {
        let url = publisher.url("right", "new");
        configured(&format!("ca = {ca:?}"), [("a", url)])
    };
    let mut courier = Courier::start(&configured(&publisher.ca()));
    courier.process.wait_for_stderr("fully enforced");
    assert_eq!(courier.fetch("a"), publisher.document("new"));
    // A file that it did not know of when it closed itself in, readable to everybody.
    write(&courier, &configured(&other));
    std::thread::sleep(READ_AGE);
    let question = r#"{"version":2,"issuer":"a"}"#;
    assert_eq!(exchange(&courier.socket(), question), None);
    assert_eq!(courier.process.wait(DEADLINE).code(), Some(0));
    let said = courier.process.stderr();
    assert!(said.contains("Permission denied"), "{said}");
    let courier = Courier::start(&configured(&other));
    assert_eq!(courier.fetch("a"), publisher.document("new"));
}
