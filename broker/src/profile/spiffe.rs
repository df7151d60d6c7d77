//! SPIFFE IDs (SPIFFE-ID §2), read strictly: the scheme and the trust domain in lower case, no
//! port, query or fragment, and a path of segments that are none of `.`, `..` and the empty one.
//! What a URL library would forgive is refused: two spellings of one workload are two workloads.

/// Longest trust domain in bytes (SPIFFE-ID §2.3).
pub const TRUST_DOMAIN_LEN_MAX: usize = 255;

/// The trust domain of a workload's SPIFFE ID.
///
/// # Errors
/// What is wrong with it, as the end of a sentence.
pub fn trust_domain_of(id: &str) -> Result<&str, &'static str> {
    let rest = id
        .strip_prefix("spiffe://")
        .ok_or("it begins with spiffe://")?;
    let (trust_domain, path) = rest.split_once('/').ok_or("a workload's has a path")?;
    is_trust_domain(trust_domain)?;
    let is_segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
    };
    if !path.split('/').all(is_segment) {
        return Err(
            "between two slashes there are letters, digits, `.`, `-` and `_`, and neither \
                    nothing nor `.` or `..` alone",
        );
    }
    Ok(trust_domain)
}

/// Whether this is the name of a trust domain.
///
/// # Errors
/// What is wrong with it, as the end of a sentence.
pub fn is_trust_domain(name: &str) -> Result<(), &'static str> {
    let is_name = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
    };
    if name.is_empty() || name.len() > TRUST_DOMAIN_LEN_MAX || !name.bytes().all(is_name) {
        return Err("a trust domain is 1 to 255 lower-case letters, digits, `.`, `-` and `_`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_the_standard_has_it() {
        for good in [
            "spiffe://example.org/payments",
            "spiffe://example.org/ns/prod/sa/Pay_ments-1.2",
            "spiffe://a_b-c.9/x",
        ] {
            assert!(trust_domain_of(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "example.org/payments",
            "SPIFFE://example.org/payments",
            "https://example.org/payments",
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe:///payments",
            "spiffe://Example.org/payments",
            "spiffe://example.org:443/payments",
            "spiffe://me@example.org/payments",
            "spiffe://example.org/payments/",
            "spiffe://example.org//payments",
            "spiffe://example.org/./payments",
            "spiffe://example.org/../payments",
            "spiffe://example.org/payments?x",
            "spiffe://example.org/payments#x",
            "spiffe://example.org/pay%20ments",
            "spiffe://example.org/pay ments",
            "spiffe://example.org/zahlungsverkehr\u{e4}",
        ] {
            assert!(trust_domain_of(bad).is_err(), "{bad}");
        }
        let long = |len: usize| format!("spiffe://{}/x", "a".repeat(len));
        assert!(trust_domain_of(&long(TRUST_DOMAIN_LEN_MAX)).is_ok());
        assert!(trust_domain_of(&long(TRUST_DOMAIN_LEN_MAX + 1)).is_err());
    }
}
