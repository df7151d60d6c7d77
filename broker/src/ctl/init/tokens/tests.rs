//! Which tokens are offered, and what is said of the others.

use super::*;
use keystore::Alg;
use keystore::inventory::FORMAT;

pub fn token(label: &str, serial: &str) -> Token {
    Token {
        slot: 0,
        label: label.into(),
        serial: serial.into(),
        manufacturer: String::new(),
        model: String::new(),
        initialized: true,
        login_required: true,
        write_protected: false,
        pin_pad: false,
        pin: PinState::Ready,
        pin_len_min: 4,
        pin_len_max: 8,
        algs: vec![Alg::ES256],
    }
}

pub fn looked(module: &str, tokens: Vec<Token>) -> Looked {
    Looked {
        module: module.into(),
        environment: Environment::new(),
        inventory: Ok(Inventory {
            format: FORMAT,
            module: module.into(),
            library: String::new(),
            tokens,
            unreadable: Vec::new(),
        }),
    }
}

fn chosen(candidates: Vec<Candidate>, wanted: Option<&str>) -> Result<String, String> {
    choose(candidates, wanted, Consent::Given)
        .map(|c| c.token.serial)
        .map_err(|failure| failure.message)
}

#[test]
fn a_token_that_a_pin_could_lock_is_not_offered() {
    assert_eq!(obstacle(&token("a", "1")), None);
    for pin in [
        PinState::FinalTry,
        PinState::Locked,
        PinState::NotSet,
        PinState::ToBeChanged,
    ] {
        let token = Token {
            pin,
            ..token("a", "1")
        };
        assert!(obstacle(&token).is_some(), "{pin:?}");
        // Where no login is needed, there is nothing to lock.
        let open = Token {
            login_required: false,
            ..token
        };
        assert_eq!(obstacle(&open), None);
    }
}

#[test]
fn a_token_without_a_use_is_not_offered() {
    for token in [
        Token {
            initialized: false,
            ..token("a", "1")
        },
        Token {
            write_protected: true,
            ..token("a", "1")
        },
        Token {
            pin_pad: true,
            ..token("a", "1")
        },
        Token {
            algs: Vec::new(),
            ..token("a", "1")
        },
    ] {
        assert!(obstacle(&token).is_some(), "{token:?}");
        assert_eq!(candidates(&[looked("/m", vec![token])]), []);
    }
}

#[test]
fn one_token_through_two_modules_is_offered_once() {
    let both = [
        looked("/m", vec![token("a", "1")]),
        looked("/n", vec![token("a", "1"), token("a", "2")]),
    ];
    let serials: Vec<String> = candidates(&both)
        .into_iter()
        .map(|c| c.token.serial)
        .collect();
    assert_eq!(serials, ["1", "2"]);
}

#[test]
fn a_label_that_two_have_is_not_enough() {
    let both = candidates(&[looked("/m", vec![token("a", "1"), token("a", "2")])]);
    assert!(both.iter().all(|c| c.label == Label::Ambiguous));
    assert!(
        chosen(both.clone(), Some("a"))
            .unwrap_err()
            .contains("1, 2")
    );
    assert_eq!(chosen(both.clone(), Some("2")).unwrap(), "2");
    assert!(chosen(both.clone(), None).is_err());
    assert!(chosen(both, Some("b")).unwrap_err().contains("`b`"));
    let unnamed = candidates(&[looked("/m", vec![token("", "1")])]);
    assert_eq!(unnamed[0].label, Label::Ambiguous);
    assert_eq!(chosen(unnamed, None).unwrap(), "1");
}

#[test]
fn nothing_found_says_where_it_looked_and_how_to_make_one() {
    let locked = Token {
        pin: PinState::Locked,
        ..token("edge", "7")
    };
    let failed = Looked {
        inventory: Err("crashed (SIGSEGV)".into()),
        ..looked("/broken.so", Vec::new())
    };
    let all = [
        looked("/m.so", Vec::new()),
        failed,
        looked("/n.so", vec![locked]),
    ];
    let said = none(&all).message;
    for part in [
        "/m.so: no initialised token",
        "/broken.so: crashed (SIGSEGV)",
        "token \"edge\" (serial 7) the user PIN is locked; unlock",
        "softhsm2-util --init-token",
        "with network = true",
    ] {
        assert!(said.contains(part), "{part}:\n{said}");
    }
    let known = none(&[looked("/usr/lib/softhsm/libsofthsm2.so", Vec::new())]).message;
    assert!(!known.contains("network"), "{known}");
    assert_eq!(none(&all).exit, Exit::Unavailable);
}
