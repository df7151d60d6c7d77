//! What lies in a key file or comes from a TPM, read by itself: the file, the public area in it, and
//! the response code of a command. `tpm_response` answers a whole keystore with such things.
//!
//! Asserted: a key file is read only in the spelling it is written in; a public area is taken for one
//! of our signing keys, or for the storage primary, exactly if its bytes say so, compared here with
//! the numbers of TPM 2.0 Part 2; whatever a response code is, its error names it, and one that is
//! about a wrong auth value, a lockout or a strange key is never to be tried again.

use super::input::Input;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use keystore::{Alg, Kind, PublicKey};
use keystore_tpm::fuzzed::{
    Code, Cure, FILE_LEN_MAX, KeyFile, Layer, explain, is_storage_primary, marshalled, name,
    read_signing_key, signing_key, storage_primary, unmarshalled,
};
use tss_esapi::structures::Private;

/// Longest of the parts of a key file that is made up: a private part has a few hundred bytes.
const PART_LEN_MAX: usize = 700;

/// Runs one input.
pub fn check(data: &[u8]) {
    let mut input = Input::of(data);
    match input.choice(6) {
        0 => key_file(&String::from_utf8_lossy(input.rest())),
        1 => key_file(&pem(input.rest())),
        2 => made_up_key_file(&mut input),
        3 => public_area(input.rest()),
        4 => changed_template(&mut input),
        _ => response_code(input.number(4) as u32),
    }
}

/// As a key file has it: a label, lines of 64.
fn pem(der: &[u8]) -> String {
    let base64 = BASE64.encode(der);
    let mut text = "assertd/payments/bank/1\n-----BEGIN TSS2 PRIVATE KEY-----\n".to_owned();
    for line in base64.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text + "-----END TSS2 PRIVATE KEY-----\n"
}

fn key_file(text: &str) {
    let Ok(file) = KeyFile::parse(text) else {
        return;
    };
    assert!(text.len() <= FILE_LEN_MAX);
    assert_eq!(file.encode(), text, "one key has one file");
    public_area(&file.public);
    // As the directory of key files reads it; one that is too long is refused there.
    let private = Private::try_from(file.private.clone());
    assert!(private.is_ok_and(|it| it.to_vec() == file.private) || file.private.len() > 1000);
}

fn made_up_key_file(input: &mut Input<'_>) {
    let file = KeyFile {
        bond: None,
        label: input.text(300),
        parent: input.number(4) as u32,
        public: input.bytes(PART_LEN_MAX).to_vec(),
        private: input.bytes(PART_LEN_MAX).to_vec(),
    };
    let is_label = file.label.len() <= 256 && !file.label.contains(char::is_control);
    match KeyFile::parse(&file.encode()) {
        Ok(read) => {
            assert!(is_label);
            assert_eq!(read, file);
        }
        Err(wrong) => assert!(!is_label, "{wrong}: {file:?}"),
    }
}

/// TPMT_PUBLIC of a signing key, up to what is unique about it: type, SHA-256, fixedTPM fixedParent
/// sensitiveDataOrigin userWithAuth noDA sign, no policy, no symmetric algorithm; for EC ECDSA with
/// its hash, curve, no KDF; for RSA the scheme with SHA-256, 2048 bits and the usual exponent.
const SIGNING: [(Alg, &[u8]); 4] = [
    (
        Alg::ES256,
        b"\x00\x23\x00\x0b\x00\x04\x04\x72\0\0\x00\x10\x00\x18\x00\x0b\x00\x03\x00\x10",
    ),
    (
        Alg::ES384,
        b"\x00\x23\x00\x0b\x00\x04\x04\x72\0\0\x00\x10\x00\x18\x00\x0c\x00\x04\x00\x10",
    ),
    (
        Alg::RS256,
        b"\x00\x01\x00\x0b\x00\x04\x04\x72\0\0\x00\x10\x00\x14\x00\x0b\x08\0\0\0\0\0",
    ),
    (
        Alg::PS256,
        b"\x00\x01\x00\x0b\x00\x04\x04\x72\0\0\x00\x10\x00\x16\x00\x0b\x08\0\0\0\0\0",
    ),
];

/// The storage primary before its policy, with restricted and decrypt in place of sign; and after
/// it: AES-128-CFB, no scheme, P-256, no KDF.
const STORAGE: (&[u8], &[u8]) = (
    b"\x00\x23\x00\x0b\x00\x03\x04\x72",
    b"\x00\x06\0\x80\x00\x43\x00\x10\x00\x03\x00\x10",
);

fn public_area(bytes: &[u8]) {
    let Ok(public) = unmarshalled(bytes) else {
        return;
    };
    assert_eq!(
        marshalled(&public).expect("it was read"),
        bytes,
        "one public area has one form"
    );
    let named = name(&public).expect("it was read");
    assert_eq!((named.len(), &named[..2]), (34, &[0, 0x0b][..]));

    let claimed = SIGNING
        .into_iter()
        .find_map(|(alg, head)| Some((alg, bytes.strip_prefix(head)?)));
    let expected = claimed.and_then(|(alg, unique)| Some((alg, unique_key(alg, unique)?)));
    match read_signing_key(&public) {
        Ok((alg, key)) => {
            assert!(key.fits(alg));
            assert_eq!(Some((alg, key)), expected);
        }
        Err(wrong) => {
            assert_eq!(expected, None, "{wrong}");
            assert!(
                !wrong.contains(char::is_control) && wrong.len() < 300,
                "{wrong}"
            );
        }
    }
    let after_policy = bytes.strip_prefix(STORAGE.0).and_then(|rest| {
        let (size, rest) = rest.split_first_chunk::<2>()?;
        rest.get(usize::from(u16::from_be_bytes(*size))..)
    });
    let is_storage = after_policy.is_some_and(|rest| rest.starts_with(STORAGE.1));
    assert_eq!(is_storage_primary(&public), is_storage);
    assert!(!is_storage || expected.is_none(), "no key is both");
}

/// The key in TPM2B_ECC_PARAMETER twice, or in TPM2B_PUBLIC_KEY_RSA.
fn unique_key(alg: Alg, bytes: &[u8]) -> Option<PublicKey> {
    let sized = |bytes: &[u8]| -> Option<(Vec<u8>, usize)> {
        let (size, rest) = bytes.split_first_chunk::<2>()?;
        let content = rest.get(..usize::from(u16::from_be_bytes(*size)))?;
        Some((content.to_vec(), 2 + content.len()))
    };
    let (first, length) = sized(bytes)?;
    let width = match alg {
        Alg::ES256 => 32,
        Alg::ES384 => 48,
        _ => return PublicKey::from_rsa(&first, &[1, 0, 1]).ok(),
    };
    let (second, _) = sized(&bytes[length..])?;
    let mut point = vec![4];
    for number in [first, second] {
        let digits: Vec<u8> = number.into_iter().skip_while(|byte| *byte == 0).collect();
        point.extend(vec![0; usize::checked_sub(width, digits.len())?]);
        point.extend(digits);
    }
    PublicKey::from_sec1(&point).ok()
}

/// One of our own templates with some bytes changed: near to what must be told from it.
fn changed_template(input: &mut Input<'_>) {
    let template = match input.choice(5) {
        0 => storage_primary(),
        n => signing_key(Alg::ALL[usize::from(n) - 1]).expect("a TPM has the first four"),
    };
    let mut bytes = marshalled(&template).expect("our template can be written");
    if let Some(point) = super::ecpoint::point_of(input.take(32))
        && let Some(without) = bytes.strip_suffix(&[0; 4])
    {
        bytes = [without, &[0, 32], &point[1..33], &[0, 32], &point[33..]].concat();
    }
    for _ in 0..input.choice(4) {
        let at = usize::from(input.byte()) % bytes.len();
        bytes[at] ^= input.byte();
    }
    public_area(&bytes);
}

fn response_code(raw: u32) {
    let error = tss_esapi::Error::Tss2Error(raw.into());
    let Some(code) = Code::of(&error) else {
        assert_eq!(raw, 0, "every code but success is one");
        return;
    };
    assert_eq!(code.raw, raw);
    let explained = explain("TPM device:/dev/tpmrm0", "signing", &error);
    let (kind, cure) = (explained.kind(), code.cure());
    let is_final = matches!(cure, Cure::Forget | Cure::None);
    let text = explained.to_string();
    assert!(
        text.starts_with("TPM device:/dev/tpmrm0: signing: "),
        "{text}"
    );
    assert!(text.contains(&format!("{raw:#x}")), "{text}");
    assert!(
        !text.contains(char::is_control) && text.len() < 500,
        "{text}"
    );

    // Twelve bits of the TPM's, or the same of a resource manager that speaks for it.
    let of_tpm = raw < 0x1000 || (0x000b_0000..0x000b_1000).contains(&raw);
    assert_eq!(code.layer == Layer::Tpm, of_tpm, "{raw:#x}");
    if matches!(
        kind,
        Kind::Locked | Kind::BadPin | Kind::Mismatch | Kind::Refused
    ) {
        assert!(of_tpm, "only the TPM says so: {raw:#x} {kind:?}");
        assert!(is_final, "{raw:#x} is {kind:?} and is never tried again");
    }
    if !is_final {
        let again = matches!(kind, Kind::Unavailable | Kind::Absent);
        assert!(
            again,
            "{raw:#x} is {kind:?}: what may be cured may be asked again"
        );
    }
    assert!(
        !code.is_no_such_handle() || cure == Cure::Reconnect,
        "{raw:#x}"
    );
    assert!(
        !code.is_unsupported() || kind == Kind::Unsupported,
        "{raw:#x}"
    );
}
