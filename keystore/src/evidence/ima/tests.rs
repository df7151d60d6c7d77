use super::*;

pub fn entry(template: &str, data: &[u8]) -> Vec<u8> {
    with_digest(&Bank::Sha1.of(&[data]), template, data)
}

fn with_digest(digest: &[u8], template: &str, data: &[u8]) -> Vec<u8> {
    let mut entry = 10u32.to_le_bytes().to_vec();
    entry.extend(digest);
    for part in [template.as_bytes(), data] {
        entry.extend((part.len() as u32).to_le_bytes());
        entry.extend(part);
    }
    entry
}

fn file(name: &str, digest: &[u8]) -> Vec<u8> {
    let digest = [b"sha256:\0", digest].concat();
    let name = [name.as_bytes(), b"\0"].concat();
    let sized = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes(), bytes].concat();
    [sized(&digest), sized(&name)].concat()
}

fn extended(digests: &[Vec<u8>]) -> PcrValue {
    let extend = |value: Vec<u8>, digest: &Vec<u8>| Bank::Sha256.of(&[&value, digest]);
    PcrValue::new(&digests.iter().fold(vec![0; 32], extend))
}

#[test]
fn a_list_may_be_longer_than_what_was_quoted() {
    let data: Vec<Vec<u8>> = ["boot_aggregate", "/bin/a", "/bin/b"]
        .map(|it| file(it, &[7; 32]))
        .to_vec();
    let list: Vec<u8> = data.iter().flat_map(|it| entry("ima-ng", it)).collect();
    let list = List::parse(&list).unwrap();
    let digests: Vec<Vec<u8>> = data.iter().map(|it| Bank::Sha256.of(&[it])).collect();
    for count in 0..=3 {
        let quoted = extended(&digests[..count]);
        let replayed = list.replay(Bank::Sha256, &[0; 32], &quoted);
        assert_eq!(replayed, Replay::Entries(count));
    }
    let other = extended(&digests[1..]);
    assert_eq!(list.replay(Bank::Sha256, &[0; 32], &other), Replay::None);
    assert_eq!(list.boot_aggregate(), Some((Bank::Sha256, &[7; 32][..])));
}

#[test]
fn a_violation_is_one_only_if_it_was_quoted() {
    let data = [file("/bin/a", &[1; 32]), file("/bin/b", &[2; 32])];
    let list = [
        entry("ima-ng", &data[0]),
        with_digest(&[0; 20], "ima-ng", &data[1]),
    ]
    .concat();
    let list = List::parse(&list).unwrap();
    let first = Bank::Sha256.of(&[&data[0]]);
    let replay = |digests: &[Vec<u8>]| list.replay(Bank::Sha256, &[0; 32], &extended(digests));
    assert_eq!(replay(std::slice::from_ref(&first)), Replay::Entries(1));
    assert_eq!(replay(&[first, vec![0xff; 32]]), Replay::Violation(1));
}

#[test]
fn a_strange_list_is_refused() {
    let whole = entry("ima-ng", &file("/bin/a", &[1; 32]));
    for length in 0..=whole.len() {
        let is_end = length == 0 || length == whole.len();
        assert_eq!(List::parse(&whole[..length]).is_ok(), is_end, "{length}");
    }
    let mut other = whole.clone();
    other[0] = 11;
    assert!(List::parse(&other).is_err());
    assert!(List::parse(&entry("ima", b"data")).is_err());
    assert!(List::parse(&entry("ima-ng", &vec![0; DATA_LEN_MAX + 1])).is_err());
}
