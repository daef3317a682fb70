//! How is one request of a step made and sent, and what came back?

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Request, Response, Uri};

use super::body::Body;
use super::settings::{HeaderSource, HttpRequestSettings, HttpStepError};
use super::template::{Misread, Template, Way, Written, text_of, write};
use crate::check::http::{
    Audience, BODY_MAX, Endpoint, HttpSettingsError, Progress, ResolverKind, StatusWanted, TlsConfigs,
    TlsSettings, Trouble,
};
use crate::process::launch::chain;
use crate::step::Call;

/// A secret shorter than this is not looked for in answers: it would be found everywhere.
const SECRET_MIN: usize = 4;

/// A request that is ready to be filled.
pub(super) struct Asking {
    method: String,
    endpoint: Endpoint,
    /// With the query.
    path: Template,
    headers: Vec<(String, Header)>,
    body: Option<Body>,
}

enum Header {
    Template(Template),
    /// Says what the body is.
    Kind(&'static str),
    Secret(String),
}

impl Header {
    fn fill(&self, call: &Call) -> Result<String, String> {
        match self {
            Header::Template(template) => template.fill(call, Written::Plainly),
            Header::Kind(kind) => Ok((*kind).to_owned()),
            Header::Secret(secret) => Ok(secret.clone()),
        }
    }

    fn try_out(&self) -> String {
        match self {
            Header::Template(template) => template.try_out(),
            Header::Kind(kind) => (*kind).to_owned(),
            Header::Secret(secret) => secret.clone(),
        }
    }
}

/// A request that is ready to send.
pub(super) struct Ready {
    request: Request<Full<Bytes>>,
    /// "POST http://host/path", without query, user name and password.
    pub(super) shown: String,
}

/// What became of a request.
pub(super) enum Asked {
    Answered(Reply),
    /// No answer, or only a part of one.
    Lost {
        reason: String,
        /// Whether anything of the request may have left.
        sent: bool,
    },
}

/// An answer.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// At most [`BODY_MAX`] of it, without the secrets that were sent.
    pub(super) body: Vec<u8>,
    /// Whether there was more.
    pub(super) is_cut: bool,
}

impl Asking {
    /// Reads what a user says. `within` stands before the name of what is wrong: "confirm.".
    pub(super) fn new(
        settings: &HttpRequestSettings,
        key_header: Option<&str>,
        within: &str,
        tls: &TlsSettings,
        shared: &TlsConfigs,
    ) -> Result<Asking, HttpStepError> {
        let place = |name: &str| format!("{within}{name}");
        let template = |name: &str, text: &str| {
            Template::parse(text).map_err(|misread| HttpStepError::template(place(name), misread))
        };
        let unsendable = |err| {
            let name = if within.is_empty() { "request" } else { within.trim_end_matches('.') };
            HttpStepError::Request { place: name.to_owned(), err }
        };

        let (base, path) = split(template("url", &settings.url)?)
            .map_err(|misread| HttpStepError::template(place("url"), misread))?;
        let uri: Uri = base.parse().map_err(HttpSettingsError::Url).map_err(unsendable)?;
        let endpoint = Endpoint::new(&uri, tls, ResolverKind::default(), shared).map_err(unsendable)?;
        let body = settings.body.as_ref().map(Body::new).transpose().map_err(|(within_body, misread)| {
            HttpStepError::template(place(&format!("body{within_body}")), misread)
        })?;

        let mut headers = Vec::new();
        // The user's own come last: they replace these.
        if let Some(name) = key_header {
            headers.push((name.to_owned(), Header::Template(template("key_header", "{{ key }}")?)));
        }
        if let Some(kind) = body.as_ref().and_then(Body::content_type) {
            headers.push(("Content-Type".to_owned(), Header::Kind(kind)));
        }
        headers.retain(|(ours, _)| !settings.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(ours)));
        for (name, source) in &settings.headers {
            let value = match source {
                HeaderSource::Template(text) => Header::Template(template(&format!("headers.{name}"), text)?),
                HeaderSource::Secret(secret) => Header::Secret(secret.clone()),
            };
            headers.push((name.clone(), value));
        }

        let asking = Asking { method: settings.method.clone(), endpoint, path, headers, body };
        // What is written by hand in it must be fit to be sent, whatever the values are.
        let tried = asking.headers.iter().map(|(name, value)| (&**name, value.try_out())).collect();
        asking.request(&asking.path.try_out(), tried, Bytes::new()).map_err(unsendable)?;
        Ok(asking)
    }

    /// Puts a call's values in. An `Err` says why it cannot be sent.
    pub(super) fn fill(&self, call: &Call) -> Result<Ready, String> {
        let path = self.path.fill_with(|way, before| {
            let text = text_of(way, &*way.value(call)?)?;
            if text.is_empty() && !before.contains('?') {
                // `DELETE /orders/` is another order than `DELETE /orders/7`.
                return Err(format!("`{way}` is empty, and stands in the path"));
            }
            Ok(write(&text, Written::Encoded))
        })?;
        let bare = path.split_once('?').map_or(&*path, |(bare, _)| bare);
        if !self.path.is_fixed() && bare.split('/').any(|part| part == "." || part == "..") {
            return Err("a value makes `.` or `..` a part of the path".to_owned());
        }
        let headers = self.headers.iter().map(|(name, value)| Ok((&**name, value.fill(call)?)));
        let headers = headers.collect::<Result<Vec<_>, String>>()?;
        let body = self.body.as_ref().map(|body| body.fill(call)).transpose()?.unwrap_or_default();
        let request = self.request(&path, headers, body).map_err(|err| chain(&err))?;
        Ok(Ready { request, shown: format!("{} {}", self.method, self.endpoint.url(bare)) })
    }

    fn request(
        &self,
        path: &str,
        headers: Vec<(&str, String)>,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, HttpSettingsError> {
        let headers = headers.iter().map(|(name, value)| (*name, &**value));
        self.endpoint.request(&self.method, path, headers, body)
    }

    /// Sends a request and takes its answer, within `timeout`.
    ///
    /// `by_status` are those after which nobody looks at the body.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        by_status: Option<&StatusWanted>,
        timeout: Duration,
    ) -> Asked {
        let mut progress = Progress::start();
        let mut listener = Listener { reply: Reply::default(), by_status };
        let asking = self.endpoint.ask(request, &mut listener, &mut progress, timeout);
        let asked = tokio::time::timeout(timeout, asking).await;
        let trouble = match asked {
            Ok(Ok(())) => None,
            Ok(Err(trouble)) => Some(trouble),
            Err(_) => Some(progress.overdue(timeout)),
        };
        let Listener { mut reply, .. } = listener;
        self.mask(&mut reply.body);
        match trouble {
            None => Asked::Answered(reply),
            // That it did not do it needs no explanation to be complete.
            Some(_) if (400..500).contains(&reply.status) => {
                reply.is_cut = true;
                Asked::Answered(reply)
            }
            Some(Trouble::Target { detail: reason, .. } | Trouble::Ours { reason }) => {
                Asked::Lost { reason, sent: progress.is_sent() }
            }
        }
    }

    /// Takes the secrets out of an answer: some servers send back what they were sent.
    fn mask(&self, body: &mut Vec<u8>) {
        let secrets = self.headers.iter().filter_map(|(_, header)| match header {
            Header::Secret(secret) => Some(secret),
            Header::Template(_) | Header::Kind(_) => None,
        });
        // `Bearer 123`: the word itself is as secret.
        let secrets =
            secrets.flat_map(|secret| [Some(&**secret), secret.split_whitespace().last()]).flatten();
        for secret in secrets.filter(|secret| secret.len() >= SECRET_MIN) {
            if crate::check::http::contains(body, secret.as_bytes()) {
                *body = String::from_utf8_lossy(body).replace(secret, "***").into_bytes();
            }
        }
    }

    /// Returns what it asks of a call.
    pub(super) fn ways(&self) -> Vec<&Way> {
        let headers = self.headers.iter().flat_map(|(_, header)| match header {
            Header::Template(template) => template.ways().collect(),
            Header::Secret(_) | Header::Kind(_) => Vec::new(),
        });
        let body = self.body.iter().flat_map(Body::ways);
        self.path.ways().chain(headers).chain(body).collect()
    }
}

impl Ready {
    /// Returns the request itself.
    pub(super) fn into_request(self) -> Request<Full<Bytes>> {
        self.request
    }
}

/// Cuts a URL into what names the server, and the path with the query.
fn split(url: Template) -> Result<(String, Template), Misread> {
    let beginning = url.beginning();
    let scheme = beginning.find("://").map_or(0, |at| at + 3);
    let end = match beginning[scheme..].find(['/', '?', '#']) {
        Some(at) => scheme + at,
        None if url.is_fixed() => beginning.len(),
        None => {
            let reason = "a value must not stand before the path: it would choose the server".to_owned();
            return Err(Misread { at: beginning.len(), reason });
        }
    };
    let base = beginning[..end].to_owned();
    let root = if beginning[end..].starts_with('/') { "" } else { "/" };
    Ok((base, url.with_beginning(root, end)))
}

/// Keeps an answer.
struct Listener<'a> {
    reply: Reply,
    by_status: Option<&'a StatusWanted>,
}

impl Audience for Listener<'_> {
    fn head(&mut self, head: &Response<Incoming>) -> Result<(), Trouble> {
        self.reply.status = head.status().as_u16();
        self.reply.headers = head.headers().clone();
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.reply.is_cut || self.by_status.is_some_and(|by_status| by_status.holds(self.reply.status))
    }

    fn take(&mut self, data: &[u8]) {
        let room = BODY_MAX - self.reply.body.len();
        self.reply.body.extend_from_slice(&data[..data.len().min(room)]);
        self.reply.is_cut |= data.len() > room;
    }
}
