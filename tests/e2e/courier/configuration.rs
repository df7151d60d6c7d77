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
    let ca = format!("ca = {:?}", publisher.ca());
    let courier = Courier::start("[issuer");
    refused(
        &courier,
        "a",
        &json!("configuration"),
        "assertctl config check",
    );
    write(&courier, &configured(&ca, urls()));
    let mended = wait_until(DEADLINE, || !courier.ask("a")["document"].is_null());
    assert!(mended, "{}", courier.process.stderr());
    // Under /etc, where the courier's sandbox lets it look for another.
    write(
        &courier,
        &configured("ca = \"/etc/assertd-there-is-none.pem\"", urls()),
    );
    std::thread::sleep(READ_AGE);
    refused(
        &courier,
        "a",
        &json!("configuration"),
        "assertd-there-is-none.pem",
    );
}

/// In its own sandbox, without any unit's.
#[test]
fn it_reads_its_configuration_and_nothing_of_the_brokers() {
    let publisher = Publisher::start();
    let secret = public_dir();
    std::fs::copy(publisher.ca(), secret.path().join("ca.pem")).unwrap();
    let ca = format!("ca = {:?}", publisher.ca());
    let urls = || [("a", publisher.url("right", "new"))];
    let courier = Courier::start(&configured(&ca, urls()));
    courier.process.wait_for_stderr("fully enforced");
    assert_eq!(courier.fetch("a"), publisher.document("new"));
    // A file that it did not know of when it closed itself in, readable to everybody.
    let other = format!("ca = {:?}", secret.path().join("ca.pem"));
    write(&courier, &configured(&other, urls()));
    std::thread::sleep(READ_AGE);
    refused(&courier, "a", &json!("configuration"), "Permission denied");
}
