//! By which name was the web port asked? Only by an address or as localhost: a web page may reach loopback by another one.
//!
//! A page from `evil.example` may let that name point to 127.0.0.1 (DNS rebinding), and its scripts then read what answers
//! there as if it were its own. The browser says in `Host` whom it believes to ask, and names of ours there are none.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Refuses whoever asks another host than this one.
pub(super) async fn only_ours(request: Request, next: Next) -> Response {
    if is_ours(request.uri(), request.headers()) {
        next.run(request).await
    } else {
        let why = "ask by an IP address or as localhost: this port serves no other name\n";
        (StatusCode::MISDIRECTED_REQUEST, why).into_response()
    }
}

/// Nobody named is fine: no browser leaves it out.
fn is_ours(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    uri.host().is_none_or(is_address_or_localhost)
        && hosts.all(|host| {
            let authority = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
            authority.is_some_and(|authority| is_address_or_localhost(authority.host()))
        })
}

fn is_address_or_localhost(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => host.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok() || host.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_ours_by(host: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().expect("a header"));
        is_ours(&Uri::from_static("/metrics"), &headers)
    }

    #[test]
    fn addresses_and_localhost_are_ours_and_names_are_not() {
        for host in ["127.0.0.1:7433", "127.0.0.1", "localhost:7433", "LocalHost", "[::1]:7433", "[::1]"] {
            assert!(is_ours_by(host), "{host}");
        }
        let names = ["evil.example:7433", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example"];
        for host in names.into_iter().chain(["", "::1", "evil@", "[evil]:80", "127.0.0.1:7433, evil.example"])
        {
            assert!(!is_ours_by(host), "{host}");
        }
    }

    #[test]
    fn every_host_that_is_named_counts() {
        assert!(is_ours(&Uri::from_static("/metrics"), &HeaderMap::new()), "HTTP/1.0 names none");
        let absolute = Uri::from_static("http://evil.example/metrics");
        assert!(!is_ours(&absolute, &HeaderMap::new()));
        let mut headers = HeaderMap::new();
        for host in ["localhost", "evil.example"] {
            headers.append(header::HOST, host.parse().expect("a header"));
        }
        assert!(!is_ours(&Uri::from_static("/metrics"), &headers));
    }
}
