//! Where does a URL lead, and how is one request sent there? Shared by everything that speaks HTTP.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Uri};
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::HttpSettingsError;
use super::connect::Progress;
use super::exchange::{self, Audience};
use super::settings::ResolverKind;
use super::tls::{self, TlsConfigs, TlsSettings};
use crate::check::reach::{self, Target};
use crate::check::verdict::Trouble;

/// The server that a URL names.
pub(crate) struct Endpoint {
    secure: bool,
    authority: Authority,
    target: Target,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Endpoint {
    /// Finds out whom a URL means. Looks nothing up: that is part of each request.
    pub(crate) fn new(
        uri: &Uri,
        tls: &TlsSettings,
        resolver: ResolverKind,
        shared: &TlsConfigs,
    ) -> Result<Self, HttpSettingsError> {
        let Some(authority) = uri.authority() else { return Err(HttpSettingsError::NoHost) };
        let (port, secure) = match uri.scheme_str() {
            Some("http") => (80, false),
            Some("https") => (443, true),
            other => return Err(HttpSettingsError::Scheme { scheme: other.unwrap_or_default().into() }),
        };
        let host = authority.host();
        if host.is_empty() {
            return Err(HttpSettingsError::NoHost);
        }
        let tls = if secure {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let name = ServerName::try_from(bare.to_owned())
                .map_err(|_| HttpSettingsError::ServerName { name: bare.into() })?;
            Some((shared.connector(tls)?, name))
        } else {
            None
        };
        let target = match resolver {
            ResolverKind::System => Target::new(host, authority.port_u16().unwrap_or(port)),
        };
        Ok(Endpoint { secure, authority: authority.clone(), target, tls })
    }

    /// Returns the URL of a path here, without user name and password.
    pub(crate) fn url(&self, path: &str) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}{path}", address(&self.authority))
    }

    /// Makes a request that is ready to send. `path` may have a query.
    pub(crate) fn request<'a>(
        &self,
        method: &str,
        path: &str,
        more: impl IntoIterator<Item = (&'a str, &'a str)>,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, HttpSettingsError> {
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| HttpSettingsError::Method { method: method.to_owned() })?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(HttpSettingsError::Url)?;

        let headers = request.headers_mut();
        let host = HeaderValue::from_str(address(&self.authority)).map_err(|_| HttpSettingsError::NoHost)?;
        headers.insert(header::HOST, host);
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("lidless/", env!("CARGO_PKG_VERSION"))),
        );
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        // The server may forget us at once: there is one request a connection.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        if let Some((userinfo, _)) = self.authority.as_str().rsplit_once('@') {
            headers.insert(header::AUTHORIZATION, basic(userinfo)?);
        }
        let mut replaced: Vec<HeaderName> = Vec::new();
        for (name, value) in more {
            let wrong = || HttpSettingsError::Header { name: name.to_owned() };
            let key: HeaderName = name.parse().map_err(|_| wrong())?;
            let value: HeaderValue = value.parse().map_err(|_| wrong())?;
            // The user's first one replaces ours; a second one of that name is meant as a second one.
            if replaced.contains(&key) {
                headers.append(key, value);
            } else {
                headers.insert(key.clone(), value);
                replaced.push(key);
            }
        }
        Ok(request)
    }

    /// Connects, sends one request, and lets somebody hear the answer. The deadline is the caller's.
    ///
    /// `timeout` is what is left until then: the addresses share it.
    pub(crate) async fn ask(
        &self,
        request: Request<Full<Bytes>>,
        audience: &mut (impl Audience + Send),
        progress: &mut Progress,
        timeout: Duration,
    ) -> Result<(), Trouble> {
        let addresses = self.target.addresses().await?;
        progress.steps.resolved(self.target.is_named());
        let stream = reach::connect(&addresses, progress.steps.started, timeout).await?;
        progress.steps.connected();
        match &self.tls {
            None => exchange::exchange(stream, request, audience, progress).await,
            // On the heap: a TLS stream is large, and the plain probe should not pay for it.
            Some((connector, name)) => {
                Box::pin(async {
                    let stream = tls::handshake(connector, name, stream).await?;
                    progress.steps.secured();
                    exchange::exchange(stream, request, audience, progress).await
                })
                .await
            }
        }
    }
}

/// Returns host and port, without user name and password.
pub(super) fn address(authority: &Authority) -> &str {
    authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, address)| address)
}

/// Returns the header for `user:password`, each percent-encoded as in a URL.
fn basic(userinfo: &str) -> Result<HeaderValue, HttpSettingsError> {
    let encoded = format!("Basic {}", base64(&percent_decoded(userinfo)));
    let mut value = HeaderValue::try_from(encoded).map_err(|_| HttpSettingsError::NoHost)?;
    value.set_sensitive(true);
    Ok(value)
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (first, tail) {
            (b'%', [high, low, after @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                decoded.push(hex(*high).unwrap_or_default() << 4 | hex(*low).unwrap_or_default());
                rest = after;
            }
            (byte, tail) => {
                decoded.push(*byte);
                rest = tail;
            }
        }
    }
    decoded
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |place: usize| u32::from(chunk.get(place).copied().unwrap_or_default());
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = (group >> (18 - 6 * place)) & 63;
            text.push(if place <= chunk.len() { char::from(DIGITS[digit as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_decoded_and_encoded() {
        assert_eq!(
            ["", "f", "fo", "foo", "foob"].map(|text| base64(text.as_bytes())),
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]
        );
        assert_eq!(percent_decoded("a%zz%4"), b"a%zz%4");
    }
}
