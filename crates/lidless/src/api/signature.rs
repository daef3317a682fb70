//! Did somebody who knows the secret sign this, and just now?

use axum::http::HeaderMap;
use ring::hmac;

/// Our own form: `t=<unix seconds>,v1=<hex of the HMAC-SHA256 over "t.body">`.
const OURS: &str = "x-lidless-signature";
/// GitHub's form: `sha256=<hex of the HMAC-SHA256 over the body>`. It has no time.
const GITHUB: &str = "x-hub-signature-256";
/// A signature whose time is further from ours than this, in seconds, is none.
pub(super) const AGE_MAX_S: i64 = 300;
/// While a secret is changed a sender may sign with the old one and the new one.
const SIGNATURES_MAX: usize = 4;

/// A good signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signed {
    /// It, in hex.
    pub(super) hex: String,
    /// When it was made, in seconds since the Unix epoch; none where its form does not tell.
    pub(super) at_s: Option<i64>,
}

/// Returns the signature of a body, if it is good and new.
pub(super) fn check(headers: &HeaderMap, body: &[u8], secret: &str, now_s: i64) -> Option<Signed> {
    if headers.contains_key(OURS) {
        ours(only(headers, OURS)?, body, secret, now_s)
    } else {
        github(headers, body, secret)
    }
}

fn ours(header: &str, body: &[u8], secret: &str, now_s: i64) -> Option<Signed> {
    let (mut time, mut signatures) = (None, Vec::new());
    for part in header.split(',') {
        match part.trim().split_once('=')? {
            ("t", text) if time.is_none() => time = Some(text),
            ("t", _) => return None,
            ("v1", hex) => signatures.push(hex),
            // A later version may sign in more than one way.
            _ => {}
        }
    }
    let time = time.filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))?;
    let at_s: i64 = time.parse().ok()?;
    if at_s.abs_diff(now_s) > AGE_MAX_S.unsigned_abs() || signatures.len() > SIGNATURES_MAX {
        return None;
    }
    let message = [time.as_bytes(), b".", body].concat();
    let good = signatures.into_iter().find(|hex| is_of(hex, &message, secret))?;
    Some(Signed { hex: good.to_ascii_lowercase(), at_s: Some(at_s) })
}

fn github(headers: &HeaderMap, body: &[u8], secret: &str) -> Option<Signed> {
    let hex = only(headers, GITHUB)?.strip_prefix("sha256=")?;
    is_of(hex, body, secret).then(|| Signed { hex: hex.to_ascii_lowercase(), at_s: None })
}

/// Compared in a time that does not tell how much of it was right.
fn is_of(hex: &str, message: &[u8], secret: &str) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    bytes(hex).is_some_and(|tag| hmac::verify(&key, message, &tag).is_ok())
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        hex.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len() == 64)?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// A header's value; none where it is not there once.
pub(super) fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    value.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    // From `printf '1795564800.{"a":1}' | openssl dgst -sha256 -hmac secret`, and the same without the time.
    const TIMED: &str = "b291847e1e316f53620aa977f4b6b550be2c416f23e1fb27ef4085d79b6539ef";
    const BARE: &str = "aa9e2e3575f5d7098b6caccd790888c36d5fdb63342a73bada2d6a51747a8494";
    const NOW: i64 = 1_795_564_800;
    const BODY: &[u8] = b"{\"a\":1}";

    fn signed(name: &'static str, value: &str, body: &[u8], now_s: i64) -> Option<Signed> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().expect("a header"));
        check(&headers, body, "secret", now_s)
    }

    #[test]
    fn both_forms_are_known() {
        let ours = format!("t={NOW},v1={TIMED}");
        assert_eq!(signed(OURS, &ours, BODY, NOW), Some(Signed { hex: TIMED.to_owned(), at_s: Some(NOW) }));
        let rotated = format!("t={NOW}, v1={BARE}, v0=x, v1={}", TIMED.to_uppercase());
        assert!(signed(OURS, &rotated, BODY, NOW).is_some(), "one of two secrets is enough");
        let theirs = format!("sha256={BARE}");
        assert_eq!(signed(GITHUB, &theirs, BODY, 0), Some(Signed { hex: BARE.to_owned(), at_s: None }));
    }

    #[test]
    fn what_is_old_or_was_touched_is_not_signed() {
        let ours = format!("t={NOW},v1={TIMED}");
        for now in [NOW + AGE_MAX_S, NOW - AGE_MAX_S] {
            assert!(signed(OURS, &ours, BODY, now).is_some());
        }
        for now in [NOW + AGE_MAX_S + 1, NOW - AGE_MAX_S - 1] {
            assert_eq!(signed(OURS, &ours, BODY, now), None);
        }
        assert_eq!(signed(OURS, &ours, b"{\"a\":2}", NOW), None);
        for wrong in [
            format!("t={},v1={TIMED}", NOW + 1),
            format!("t={NOW},t={NOW},v1={TIMED}"),
            format!("v1={TIMED}"),
            format!("t={NOW},v1={}", &TIMED[..62]),
            format!("t={NOW},v1={}", TIMED.replace('5', "6")),
            format!("t=+{NOW},v1={TIMED}"),
            format!("t={NOW}{}", format!(",v1={BARE}").repeat(5)),
            format!("t={NOW},v1={TIMED}").replace('=', ":"),
            String::new(),
        ] {
            assert_eq!(signed(OURS, &wrong, BODY, NOW), None, "{wrong}");
        }
        assert_eq!(signed(GITHUB, BARE, BODY, NOW), None);
        let mut both = HeaderMap::new();
        both.insert(OURS, "t=1,v1=00".parse().expect("a header"));
        both.insert(GITHUB, format!("sha256={BARE}").parse().expect("a header"));
        assert_eq!(check(&both, BODY, "secret", NOW), None, "a bad one is not made good by another");
    }
}
