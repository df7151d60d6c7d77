//! What the courier says of everything that can be found where access tokens should be given: whether there was one,
//! and if not why, in a word; and nothing of what was answered.

use super::*;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;

/// Says `iss` and `sub` "the client", `aud` "https://as.example".
const ASSERTION: &str = concat!(
    "eyJhbGciOiJFUzI1NiJ9.",
    "eyJpc3MiOiJ0aGUgY2xpZW50Iiwic3ViIjoidGhlIGNsaWVudCIsImF1ZCI6Imh0dHBzOi8vYXMuZXhhbXBs",
    "ZSIsImp0aSI6IkFBQUFBQUFBQUFBQUFBQUFBQUFBQUEiLCJpYXQiOjEsImV4cCI6Mn0.",
    "c2ln"
);

/// A configuration with a target for each of these, by name and token endpoint.
fn with_targets<'a>(
    publisher: &Publisher,
    targets: impl IntoIterator<Item = (&'a str, String)>,
) -> String {
    let mut text = configured(&format!("ca = {:?}", publisher.ca()), []);
    text.push_str("[workload.ours]\nmatch = { uid = 0 }\n");
    for (name, url) in targets {
        write!(
            text,
            "[workload.ours.target.{name}]\nprofile = \"rfc7523\"\nclient_id = \"the client\"\n\
             authorization_server = \"https://as.example\"\nrotation = {{ activation = \"canary\", canary = {{ \
             token_endpoint = \"{url}\", scope = \"api:read api:write\", audience = \"https://api.example\" }} }}\n"
        )
        .unwrap();
    }
    text
}

fn redeem(courier: &Courier, target: &str) -> Value {
    redeem_this(courier, target, ASSERTION)
}

fn redeem_this(courier: &Courier, target: &str, assertion: &str) -> Value {
    let canary = json!({ "workload": "ours", "target": target, "assertion": assertion });
    let question = json!({ "version": 2, "canary": canary });
    let answer = exchange(&courier.socket(), &question.to_string());
    answer.unwrap_or_else(|| panic!("{target}: hung up on\n{}", courier.process.stderr()))
}

#[test]
fn an_assertion_is_redeemed_by_what_the_configuration_says_and_the_token_goes_nowhere() {
    let publisher = Publisher::start();
    let url = publisher.url("right", "token");
    let courier = Courier::start(&with_targets(&publisher, [("bank", url.clone())]));
    assert_eq!(
        redeem(&courier, "bank"),
        json!({ "accepted": { "url": url } })
    );
    let (port, version) = (publisher.ports["right"], env!("CARGO_PKG_VERSION"));
    let form = format!(
        "grant_type=client_credentials&client_id=the%20client&client_assertion_type=\
         urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion={ASSERTION}\
         &scope=api%3Aread%20api%3Awrite&audience=https%3A%2F%2Fapi.example"
    );
    let length = form.len();
    assert_eq!(
        publisher.requests(),
        [format!(
            "POST /token HTTP/1.1\r\nhost: localhost:{port}\r\naccept: application/json\r\n\
             accept-encoding: identity\r\ncontent-type: application/x-www-form-urlencoded\r\n\
             user-agent: assertd-courier/{version}\r\nconnection: close\r\ncontent-length: {length}"
        )]
    );
    let forms = std::fs::read_to_string(publisher.dir().join("forms.log")).unwrap();
    assert_eq!(forms, form + "\n");
    for unknown in ["other", "", "../bank"] {
        let answer = redeem(&courier, unknown);
        assert_eq!(answer["failed"]["kind"], "target", "{answer}");
    }
    assert_eq!(publisher.requests().len(), 1, "nobody was asked");
    let said = courier.process.stderr();
    assert!(
        !said.contains(ASSERTION) && !said.contains("an access token"),
        "{said}"
    );
}

/// A broker that was taken over has assertions of every target, and every target's endpoint has its name here.
#[test]
fn what_says_another_client_or_audience_is_carried_nowhere() {
    let publisher = Publisher::start();
    let courier = Courier::start(&with_targets(
        &publisher,
        [("bank", publisher.url("right", "token"))],
    ));
    let saying = |iss: &str, sub: &str, aud: &str| {
        let claims = json!({ "iss": iss, "sub": sub, "aud": aud, "iat": 1, "exp": 2 });
        format!("e30.{}.c2ln", BASE64URL.encode(claims.to_string()))
    };
    let (ours, server) = ("the client", "https://as.example");
    for other in [
        saying("another", ours, server),
        saying(ours, "another", server),
        saying(ours, ours, "https://other.example"),
        "e30.e30.c2ln".to_owned(),
        "none".to_owned(),
    ] {
        let answer = redeem_this(&courier, "bank", &other);
        assert_eq!(answer["failed"]["kind"], "target", "{answer}");
    }
    assert_eq!(publisher.requests(), Vec::<String>::new());
    let answer = redeem_this(&courier, "bank", &saying(ours, ours, server));
    assert_ne!(answer["accepted"], Value::Null, "{answer}");
}

#[test]
fn what_is_no_access_token_is_a_failure_and_nothing_of_it_is_told() {
    let publisher = Publisher::start();
    let cases: [(&str, Value, &str); 15] = [
        ("no-token", json!("no_token"), "no access token"),
        ("page-as-json", json!("no_token"), "no access token"),
        ("page", json!("no_token"), "no access token"),
        (
            "invalid-client",
            json!({ "refused": 401 }),
            "401 invalid_client",
        ),
        ("odd-error", json!({ "refused": 400 }), "answers 400"),
        ("500", json!({ "refused": 500 }), "answers 500"),
        ("404", json!({ "refused": 404 }), "answers 404"),
        ("redirect", json!({ "redirect": 302 }), "redirect"),
        ("307", json!({ "redirect": 307 }), "redirect"),
        ("token-large", json!("too_large"), "65536"),
        ("endless", json!("too_large"), "65536"),
        ("huge", json!("too_large"), "65536"),
        ("gzip", json!("not_json"), "gzip"),
        ("garbage", json!("http"), "cannot be read"),
        ("nothing", json!("http"), "cannot be read"),
    ];
    let name = |path: &str| format!("at-{path}");
    let names: Vec<String> = cases.iter().map(|(path, ..)| name(path)).collect();
    let targets = names.iter().zip(&cases);
    let targets = targets.map(|(name, (path, ..))| (name.as_str(), publisher.url("right", path)));
    let courier = Courier::start(&with_targets(&publisher, targets));
    for (path, kind, part) in &cases {
        let started = Instant::now();
        let answer = redeem(&courier, &name(path));
        let (failed, took) = (&answer["failed"], started.elapsed());
        let message = failed["message"].as_str().unwrap_or_default();
        let right = failed["kind"] == *kind && message.contains(part);
        assert!(right, "{path} is to be {kind} with {part:?}: {answer}");
        assert!(took < SOON, "{path}: {took:?}");
        let word = match *path {
            "invalid-client" => json!("invalid_client"),
            _ => Value::Null,
        };
        assert_eq!(failed["error"], word, "{answer}");
        assert!(
            !answer.to_string().contains("nobody is to read"),
            "{answer}"
        );
        std::thread::sleep(Duration::from_millis(100)); // ten a second for all
    }
    let requests = publisher.requests();
    assert_eq!(requests.len(), cases.len(), "no redirect was followed");
}

/// An answer that never comes, or never ends, is given up; meanwhile others are answered.
#[test]
fn a_token_endpoint_that_hangs_is_waited_for_and_not_for_ever() {
    let publisher = Publisher::start();
    let targets = ["hang-answer", "hang-document", "trickle"];
    let urls = targets.map(|name| (name, publisher.url("right", name)));
    let bank = ("bank", publisher.url("right", "token"));
    let courier = &Courier::start(&with_targets(&publisher, urls.into_iter().chain([bank])));
    std::thread::scope(|threads| {
        for target in targets {
            threads.spawn(move || {
                let started = Instant::now();
                let answer = redeem(courier, target);
                let took = started.elapsed();
                assert_eq!(answer["failed"]["kind"], "timeout", "{target}: {answer}");
                let least = Duration::from_secs(10);
                let most = least + Duration::from_secs(3);
                assert!((least..most).contains(&took), "{target}: {took:?}");
            });
        }
        std::thread::sleep(Duration::from_secs(1));
        let started = Instant::now();
        assert_ne!(redeem(courier, "bank")["accepted"], Value::Null);
        assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    });
}
