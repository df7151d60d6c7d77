//! What the courier says of everything that can be found where a document should be (issue 8, done when
//! 4; reliability row 53).

use super::*;

/// Most resident memory in KiB, ever: what was sent without end was not kept.
const RESIDENT_MAX_KIB: u64 = 64 * 1024;

#[test]
fn a_document_is_brought_as_it_is_and_the_request_says_nothing_more_than_it_must() {
    let publisher = Publisher::start();
    let ca = format!("ca = {:?}", publisher.ca());
    let issuers = ["new", "old", "other", "plain-file", "largest"];
    let urls = issuers.map(|name| (name, publisher.url("right", name)));
    let tls12 = ("tls12", publisher.url("tls12", "new"));
    let query = ("query", publisher.url("right", "new?a=b"));
    let all = urls.into_iter().chain([tls12, query.clone()]);
    // Nothing of the environment is a way in or out.
    let proxies = [
        ("https_proxy", "http://127.0.0.1:1/"),
        ("HTTPS_PROXY", "http://127.0.0.1:1/"),
        ("ALL_PROXY", "http://127.0.0.1:1/"),
    ];
    let courier = Courier::start_as(0, 0, &configured(&ca, all), &proxies);
    for name in ["new", "old", "other"] {
        let started = Instant::now();
        assert_eq!(courier.fetch(name), publisher.document(name));
        assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    }
    for name in ["plain-file", "tls12"] {
        assert_eq!(courier.fetch(name), publisher.document("new"));
    }
    assert_eq!(courier.fetch("largest").len(), BODY_LEN_MAX);
    let (_, url) = query;
    let answer = courier.ask("query"); // no such document, and asked for as it is written
    assert_eq!(answer["failed"]["kind"], "http", "{answer}");
    let requests = publisher.requests();
    let port = publisher.ports["right"];
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        requests[0],
        format!(
            "GET /new HTTP/1.1\r\nhost: localhost:{port}\r\naccept: application/jwk-set+json, \
             application/json\r\naccept-encoding: identity\r\nuser-agent: assertd-courier/{version}\r\n\
             connection: close"
        )
    );
    let last = requests.last().unwrap();
    assert!(
        url.ends_with("/new?a=b") && last.starts_with("GET /new?a=b HTTP/1.1\r\n"),
        "{last}"
    );
}

#[test]
fn what_is_no_document_is_refused_at_once_and_costs_no_memory() {
    let publisher = Publisher::start();
    let cases: [(&str, Value, &str); 20] = [
        ("page", json!("not_json"), "text/html"),
        ("500", json!({ "status": 500 }), "500"),
        ("404", json!({ "status": 404 }), "404"),
        ("204", json!({ "status": 204 }), "204"),
        ("redirect", json!({ "redirect": 302 }), "redirect"),
        ("moved", json!({ "redirect": 301 }), "redirect"),
        ("huge", json!("too_large"), "262144"),
        ("large", json!("too_large"), "262144"),
        ("endless", json!("too_large"), "262144"),
        ("endless-until-closed", json!("too_large"), "262144"),
        ("endless-chunk-extension", json!("http"), "cannot be read"),
        ("endless-head", json!("http"), "too large"),
        ("gzip", json!("not_json"), "gzip"),
        ("garbage", json!("http"), "cannot be read"),
        ("short", json!("http"), "cannot be read"),
        ("two-lengths", json!("http"), "cannot be read"),
        ("escape", json!("http"), "cannot be read"),
        ("nothing", json!("http"), "cannot be read"),
        ("nowhere", json!("dns"), "nowhere.invalid"),
        ("closed", json!("connect"), "refused"),
    ];
    let url = |name: &str| match name {
        "nowhere" => "https://nowhere.invalid/jwks.json".to_owned(),
        "closed" => publisher.url("closed", "new"),
        path => publisher.url("right", path),
    };
    let good = ["new", "page-as-json"].map(|name| (name, publisher.url("right", name)));
    let urls = cases
        .iter()
        .map(|(name, ..)| (*name, url(name)))
        .chain(good);
    let ca = format!("ca = {:?}", publisher.ca());
    let courier = Courier::start(&configured(&ca, urls));
    let descriptors = || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", courier.process.pid()));
        open.unwrap().count()
    };
    courier.fetch("new");
    let before = descriptors();
    for (name, kind, part) in &cases {
        let took = refused(&courier, name, kind, part);
        assert!(took < SOON, "{name}: {took:?}");
        std::thread::sleep(Duration::from_millis(100)); // ten a second for all issuers
    }
    // What calls itself JSON is brought: the judgement reads it.
    assert!(
        courier
            .fetch("page-as-json")
            .starts_with(b"<!DOCTYPE html>")
    );
    assert_eq!(
        courier.fetch("new"),
        publisher.document("new"),
        "it stays up"
    );
    let followed = publisher
        .requests()
        .iter()
        .filter(|it| it.starts_with("GET /new "))
        .count();
    assert_eq!(followed, 2, "no redirect was followed");
    assert!(
        courier.status("VmHWM:") < RESIDENT_MAX_KIB,
        "{} KiB",
        courier.status("VmHWM:")
    );
    let closed = harness::wait_until(DEADLINE, || descriptors() <= before);
    assert!(closed, "{} descriptors, {before} before", descriptors());
}

#[test]
fn who_is_not_who_it_should_be_is_not_believed() {
    let publisher = Publisher::start();
    let cases = [
        ("other_name", "not valid for name"),
        ("expired", "expired"),
        ("early", "not valid yet"),
        ("other_ca", "not trusted"),
        ("self_signed", "not accepted"),
        ("tls11", "handshake failed"),
        ("plain", "speaks no TLS"),
        ("noise", "speaks no TLS"),
    ];
    let urls = cases.map(|(port, _)| (port, publisher.url(port, "new")));
    let ca = format!("ca = {:?}", publisher.ca());
    let courier = Courier::start(&configured(&ca, urls));
    for (port, part) in cases {
        let took = refused(&courier, port, &json!("tls"), part);
        assert!(took < SOON, "{port}: {took:?}");
    }
    assert_eq!(
        publisher.requests(),
        [""; 0],
        "nothing was asked of any of them"
    );
    // The host's authorities do not know the test's.
    let urls = [("right", publisher.url("right", "new"))];
    let courier = Courier::start(&configured("", urls));
    refused(&courier, "right", &json!("tls"), "set `ca`");
}

/// Each stage has its end, and nobody waits for another's: four are fetched at a time.
#[test]
fn a_server_that_hangs_is_waited_for_and_not_for_ever() {
    let publisher = Publisher::start();
    let url = |port, path| publisher.url(port, path);
    let stages = [
        ("deaf", url("deaf", "new"), 5, "nobody took the connection"),
        ("hang", url("hang", "new"), 5, "handshake"),
        ("hang-answer", url("right", "hang-answer"), 10, "no answer"),
        ("hang-head", url("right", "hang-head"), 10, "no answer"),
        (
            "hang-document",
            url("right", "hang-document"),
            10,
            "document",
        ),
        ("trickle", url("right", "trickle"), 10, "document"),
        (
            "endless-continue",
            url("right", "endless-continue"),
            10,
            "no answer",
        ),
    ];
    let new = ("new", publisher.url("right", "new"));
    let urls = stages.iter().map(|(name, url, ..)| (*name, url.clone()));
    let ca = format!("ca = {:?}", publisher.ca());
    let courier = &Courier::start(&configured(&ca, urls.chain([new])));
    // Three at a time leave a place for whoever answers.
    for stages in stages.chunks(3) {
        std::thread::scope(|threads| {
            for (name, _, seconds, part) in stages {
                threads.spawn(move || {
                    let took = refused(courier, name, &json!("timeout"), part);
                    let least = Duration::from_secs(*seconds);
                    let most = least + Duration::from_secs(3);
                    assert!((least..most).contains(&took), "{name}: {took:?}");
                });
            }
            std::thread::sleep(Duration::from_secs(1));
            let started = Instant::now();
            assert_eq!(courier.fetch("new"), publisher.document("new"));
            assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
        });
    }
    assert!(courier.status("VmHWM:") < RESIDENT_MAX_KIB);
}

/// Whoever could ask as the broker does cannot use it against a publisher: ten at once and one a second
/// of one issuer, twenty at once and ten a second of all.
#[test]
fn nobody_can_be_flooded_by_it() {
    let publisher = Publisher::start();
    let ca = format!("ca = {:?}", publisher.ca());
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut before = 0;
    for (names, at_once, a_second) in [(&names[..1], 10, 1), (&names[..], 20, 10)] {
        let urls = names
            .iter()
            .map(|name| (*name, publisher.url("right", "new")));
        let courier = Courier::start(&configured(&ca, urls));
        let started = Instant::now();
        let (mut brought, mut busy) = (0, 0);
        while started.elapsed() < Duration::from_secs(2) {
            for name in names {
                let answer = courier.ask(name);
                match answer["failed"]["kind"].as_str() {
                    None => brought += 1,
                    Some("busy") => busy += 1,
                    Some(_) => panic!("{answer}"),
                }
            }
        }
        let seconds = usize::try_from(started.elapsed().as_secs()).unwrap() + 1;
        let most = at_once + a_second * seconds;
        assert!(brought >= at_once && busy > 50, "{brought} and {busy}");
        assert!(
            brought <= most,
            "{brought} in {seconds} s of {}",
            names.len()
        );
        let arrived = publisher.requests().len();
        assert_eq!(arrived - before, brought);
        before = arrived;
    }
}
