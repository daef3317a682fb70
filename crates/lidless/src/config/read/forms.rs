//! What forms may addresses, URLs and the like have?

use std::net::SocketAddr;

use super::super::units::Refused;

/// Parses where to listen; only loopback, as there is no authentication yet.
pub(super) fn listen(text: &str) -> Result<SocketAddr, Refused> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(address),
        Ok(address) => Err(Refused::new(
            "is not a loopback address",
            "others could reach it",
            format!("write `127.0.0.1:{}`; without authentication, which is not supported yet, lidless serves this machine only", address.port()),
        )
        .part(0..text.rfind(':').unwrap_or(text.len()))),
        Err(_) => {
            let port = text.rsplit(':').next().unwrap_or_default();
            let help = match port.parse::<u16>() {
                Ok(port) => format!("write `127.0.0.1:{port}`"),
                Err(_) => "write an address and a port: `127.0.0.1:7433`".to_owned(),
            };
            Err(Refused::new("is not an address", "expected ADDRESS:PORT", help))
        }
    }
}

/// Refuses `user:password@` in front of a host.
fn userinfo(text: &str, help: &str) -> Result<(), Refused> {
    let begin = text.find("://").map_or(0, |at| at + 3);
    match authority_of(&text[begin..]).rfind('@') {
        Some(at) => Err(Refused::new("has a password in it", "looks like a secret", help)
            .part(begin..begin + at)
            .secret()),
        None => Ok(()),
    }
}

fn authority_of(rest: &str) -> &str {
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

/// Parses HOST:PORT.
pub(super) fn address(text: &str) -> Result<String, Refused> {
    userinfo(text, "remove it: `tcp` only connects")?;
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.split('/').next().unwrap_or_default();
        return Err(
            Refused::new("is a URL", "no scheme here", format!("write `{rest}`")).part(0..scheme.len() + 3)
        );
    }
    let wants_port =
        |host: &str| Refused::new("has no port", "no port", format!("write `{host}:PORT`, as `{host}:5432`"));
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        let help = "write `[ADDRESS]:PORT`, as `[::1]:5432`";
        return Err(Refused::new("is an IPv6 address without brackets", "where does the port begin?", help));
    }
    let Some((host, port)) = text.rsplit_once(':') else { return Err(wants_port(text)) };
    let at_port = host.len() + 1..text.len();
    if port.is_empty() {
        return Err(wants_port(host));
    }
    if !port.bytes().all(|b| b.is_ascii_digit()) || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(
            Refused::new("has a bad port", "not a port", "a port is a number from 1 to 65535").part(at_port)
        );
    }
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return match inner.parse::<std::net::Ipv6Addr>() {
            Ok(_) => Ok(text.to_owned()),
            Err(_) => Err(Refused::new("has a bad host", "not an IPv6 address", "write `[::1]:5432`")
                .part(0..host.len())),
        };
    }
    if host.contains(':') {
        return Err(Refused::new(
            "has a bad host",
            "an IPv6 address needs brackets",
            format!("write `[{host}]:{port}`"),
        )
        .part(0..host.len()));
    }
    check_host(host).map_err(|why| {
        Refused::new("has a bad host", why, "write `HOST:PORT`, as `127.0.0.1:5432`").part(0..host.len())
    })?;
    Ok(text.to_owned())
}

fn check_host(host: &str) -> Result<(), &'static str> {
    if host.is_empty() {
        return Err("no host");
    }
    // Four numbers and dots are meant as an address, and then must be one.
    if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') && host.parse::<std::net::Ipv4Addr>().is_err() {
        return Err("not an IPv4 address");
    }
    if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        return Err("not a host name");
    }
    Ok(())
}

/// Parses the URL of an HTTP check.
pub(super) fn url(text: &str) -> Result<String, Refused> {
    let example = "http://127.0.0.1:8080/healthz";
    // First of all, so that no other message repeats it.
    userinfo(
        text,
        "remove it, and add `headers: { Authorization: { credential: NAME } }`; the URL is shown and journalled",
    )?;
    let Some((scheme, rest)) = text.split_once("://") else {
        let help = if text.is_empty() {
            format!("write a whole URL, as `{example}`")
        } else {
            format!("write `http://{}`", text.trim_start_matches('/'))
        };
        return Err(Refused::new("is not a URL", "no `http://` in front", help));
    };
    if scheme != "http" && scheme != "https" {
        let help = match scheme {
            "tcp" => "use the kind `tcp` in place of `http`".to_owned(),
            _ => format!("write `http://{rest}` or `https://{rest}`"),
        };
        return Err(
            Refused::new("has a scheme that is not HTTP", "not http or https", help).part(0..scheme.len())
        );
    }
    let begin = scheme.len() + 3;
    let authority = authority_of(rest);
    let port_colon =
        authority.rfind(':').filter(|colon| authority.rfind(']').is_none_or(|bracket| bracket < *colon));
    let host = &authority[..port_colon.unwrap_or(authority.len())];
    if let Some(colon) = port_colon
        && !authority[colon + 1..].parse::<u16>().is_ok_and(|port| port > 0)
    {
        // Of `host:` there is only the colon to point at.
        let from = if colon + 1 == authority.len() { colon } else { colon + 1 };
        let part = begin + from..begin + authority.len();
        return Err(
            Refused::new("has a bad port", "not a port", "a port is a number from 1 to 65535").part(part)
        );
    }
    match host
        .strip_prefix('[')
        .map(|host| host.strip_suffix(']').and_then(|h| h.parse::<std::net::Ipv6Addr>().ok()))
    {
        Some(Some(_)) => {}
        Some(None) => {
            return Err(Refused::new("has a bad host", "not an IPv6 address", "write `http://[::1]:8080/`")
                .part(begin..begin + host.len()));
        }
        None => check_host(host).map_err(|why| {
            let part = if host.is_empty() { 0..text.len() } else { begin..begin + host.len() };
            Refused::new("has a bad host", why, format!("write a whole URL, as `{example}`")).part(part)
        })?,
    }
    if text.contains('#') {
        let at = text.find('#').unwrap_or_default();
        return Err(Refused::new(
            "has a fragment",
            "never sent to a server",
            format!("write `{}`", &text[..at]),
        )
        .part(at..text.len()));
    }
    if let Err(err) = text.parse::<hyper::Uri>() {
        return Err(Refused::new(
            "is not a URL",
            err.to_string(),
            format!("write a whole URL, as `{example}`; percent-encode spaces and other signs"),
        ));
    }
    Ok(text.to_owned())
}

/// Parses a request method.
pub(super) fn method(text: &str) -> Result<String, Refused> {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    if known.contains(&text) {
        return Ok(text.to_owned());
    }
    let upper = text.to_ascii_uppercase();
    let help = match known.iter().find(|method| **method == upper) {
        Some(method) => format!("write `{method}`"),
        None => format!("write one of {}", known.join(", ")),
    };
    Err(Refused::new("is not a request method", "no such method", help))
}

/// Returns whether a header usually carries a secret.
pub(super) fn is_secret_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["authorization", "proxy-authorization", "cookie", "x-api-key", "x-auth-token", "api-key"]
        .contains(&name.as_str())
}

/// Checks a unit's name and completes it with `.service`.
pub(super) fn unit(text: &str) -> Result<String, Refused> {
    let kinds = [
        ".service",
        ".socket",
        ".target",
        ".timer",
        ".mount",
        ".path",
        ".scope",
        ".slice",
        ".swap",
        ".device",
        ".automount",
    ];
    let good = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if let Some((at, bad)) = text.char_indices().find(|(_, c)| !good(*c)) {
        let help = "write the unit's name as `systemctl` shows it, as `api.service`";
        return Err(
            Refused::new("is not a unit's name", "not allowed here", help).part(at..at + bad.len_utf8())
        );
    }
    if text.is_empty() || text.len() > 255 || text.starts_with('.') {
        return Err(Refused::new("is not a unit's name", "expected a name", "write `api.service`"));
    }
    let complete = kinds.iter().any(|kind| text.ends_with(kind));
    Ok(if complete { text.to_owned() } else { format!("{text}.service") })
}
