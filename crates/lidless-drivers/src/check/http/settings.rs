//! What may a user say about an HTTP check? Turns it into a request that is ready to send.

use std::fmt;
use std::path::PathBuf;

use hyper::Uri;
use rustls::pki_types;

use super::endpoint::{Endpoint, address};
use super::tls::{TlsConfigs, TlsSettings};
use super::{HttpCheck, StatusWanted, Wanted};

/// The body that is read at most, unless the settings say otherwise.
pub(crate) const BODY_MAX: usize = 1 << 20;

/// What one HTTP check asks, and what it wants to hear.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// `http://` or `https://`. A user name and password in it become an `Authorization` header, and are shown nowhere.
    pub url: String,
    /// The request's method: `GET`.
    pub method: String,
    /// More headers. One named `Host` replaces the URL's.
    pub headers: Vec<(String, String)>,
    /// The body to send.
    pub body: Option<Vec<u8>>,
    /// The statuses that pass.
    pub status: StatusWanted,
    /// A text that the body must contain.
    pub contains: Option<String>,
    /// How many bytes of the body are read at most. A longer body is no failure; the rest is not looked at.
    pub body_max: usize,
    /// How certificates are judged.
    pub tls: TlsSettings,
    /// Who turns the name into addresses.
    pub resolver: ResolverKind,
}

/// Who turns a name into addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ResolverKind {
    /// The C library, and so `/etc/hosts` and `nsswitch.conf`. Each look-up keeps a thread busy.
    #[default]
    System,
}

impl HttpSettings {
    /// Returns the settings of a plain `GET`.
    pub fn new(url: impl Into<String>) -> Self {
        HttpSettings {
            url: url.into(),
            method: "GET".into(),
            headers: Vec::new(),
            body: None,
            status: StatusWanted::default(),
            contains: None,
            body_max: BODY_MAX,
            tls: TlsSettings::default(),
            resolver: ResolverKind::default(),
        }
    }

    pub(super) fn prepare(self, shared: &TlsConfigs) -> Result<HttpCheck, HttpSettingsError> {
        let uri: Uri = self.url.parse().map_err(HttpSettingsError::Url)?;
        let endpoint = Endpoint::new(&uri, &self.tls, self.resolver, shared)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let headers = self.headers.iter().map(|(name, value)| (&**name, &**value));
        let request = endpoint.request(&self.method, path, headers, self.body.unwrap_or_default().into())?;
        let contains = self.contains.map(|text| text.into_bytes().into_boxed_slice());
        let wanted = Wanted { status: self.status, contains, body_max: self.body_max };
        Ok(HttpCheck { url: endpoint.url(path), endpoint, request, wanted })
    }
}

impl fmt::Debug for HttpSettings {
    // Not derived: the URL may hold a password, and so may a header or the body.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uri = self.url.parse::<Uri>().ok();
        let authority = uri.as_ref().and_then(Uri::authority);
        f.debug_struct("HttpSettings")
            .field("host", &authority.map(address))
            .field("method", &self.method)
            .field("headers", &self.headers.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("status", &self.status)
            .field("contains", &self.contains)
            .field("body_max", &self.body_max)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// Why an HTTP request cannot be made. Never shows the URL: a password may be in it, even in one that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HttpSettingsError {
    /// It is not a URL.
    #[error("cannot read the URL")]
    Url(#[source] hyper::http::uri::InvalidUri),
    /// It is a URL of something else.
    #[error("the URL begins with `{scheme}`, wanted `http://` or `https://`")]
    Scheme {
        /// What stands there.
        scheme: String,
    },
    /// There is nothing to connect to.
    #[error("the URL names no host")]
    NoHost,
    /// No certificate can name such a host.
    #[error("`{name}` cannot be the name of a TLS server")]
    ServerName {
        /// The host.
        name: String,
    },
    /// The method cannot be sent.
    #[error("`{method}` is not an HTTP method")]
    Method {
        /// What stands there.
        method: String,
    },
    /// The header cannot be sent.
    #[error("header `{name}` has a name or a value that cannot be sent")]
    Header {
        /// Its name. The value is not shown: it may be a secret.
        name: String,
    },
    /// The file of authorities cannot be read.
    #[error("cannot read the certificates in `{}`", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        err: pki_types::pem::Error,
    },
    /// The file of authorities holds none.
    #[error("no certificate in `{}`", path.display())]
    NoAuthorities {
        /// The file.
        path: PathBuf,
    },
    /// TLS cannot be set up: no authorities in the system, mostly.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
}

#[cfg(test)]
mod tests {
    use hyper::header;

    use super::*;

    fn authorization(url: &str) -> String {
        let check = HttpCheck::new(HttpSettings::new(url)).expect("the URL is good");
        check.request.headers()[header::AUTHORIZATION].to_str().expect("base64 is ASCII").to_owned()
    }

    #[test]
    fn user_and_password_of_the_url_become_a_header() {
        assert_eq!(authorization("http://Aladdin:open%20sesame@h/"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }

    #[test]
    fn a_password_in_the_url_is_shown_nowhere() {
        let mut settings = HttpSettings::new("http://me:hunter2@127.0.0.1:1/path?q=1");
        settings.headers.push(("X-Key".into(), "hunter2".into()));
        assert!(!format!("{settings:?}").contains("hunter2"));
        let check = HttpCheck::new(settings).expect("the settings are good");
        assert!(!format!("{check:?}").contains("hunter2"));
        assert_eq!(check.url(), "http://127.0.0.1:1/path?q=1");
        let err =
            HttpCheck::new(HttpSettings::new("http://me:hunter2@ho st/")).expect_err("a space is in it");
        assert!(!format!("{err} {err:?}").contains("hunter2"));
    }

    #[test]
    fn what_cannot_be_asked_is_refused_with_its_reason() {
        let refused = |settings| HttpCheck::new(settings).expect_err("it is wrong").to_string();
        assert_eq!(
            refused(HttpSettings::new("ftp://host/")),
            "the URL begins with `ftp`, wanted `http://` or `https://`"
        );
        assert_eq!(refused(HttpSettings::new("/health")), "the URL names no host");
        let with_method = HttpSettings { method: "G E T".into(), ..HttpSettings::new("http://host/") };
        assert_eq!(refused(with_method), "`G E T` is not an HTTP method");
        let headers = vec![("X-Key".into(), "a\nb".into())];
        let with_header = HttpSettings { headers, ..HttpSettings::new("http://host/") };
        assert_eq!(refused(with_header), "header `X-Key` has a name or a value that cannot be sent");
    }
}
