//! Does a URL answer as it should? One request on one connection, within one deadline.
//!
//! No pool, no retry, no redirect: a probe that repairs what it measures would hide what users feel. Everything that can be
//! prepared is prepared once, so that ten thousand targets a second cost little more than their packets.

mod connect;
mod endpoint;
mod exchange;
mod judge;
mod settings;
mod tls;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use lidless_core::check::CheckOutcome;

pub use self::connect::HttpPhases;
pub use self::judge::StatusWanted;
pub use self::settings::{HttpSettings, HttpSettingsError, ResolverKind};
pub use self::tls::{TlsConfigs, TlsSettings};

pub(crate) use self::connect::Progress;
pub(crate) use self::endpoint::Endpoint;
pub(crate) use self::exchange::Audience;
pub(crate) use self::judge::contains;
pub(crate) use self::settings::BODY_MAX;
pub(crate) use super::verdict::Trouble;

use super::verdict;
use super::{BoxFuture, Check};

/// Asks whether a URL answers as it should.
pub struct HttpCheck {
    url: String,
    endpoint: Endpoint,
    request: Request<Full<Bytes>>,
    wanted: Wanted,
}

/// What an answer must look like.
#[derive(Debug)]
struct Wanted {
    status: StatusWanted,
    contains: Option<Box<[u8]>>,
    body_max: usize,
}

impl HttpCheck {
    /// Prepares a check.
    pub fn new(settings: HttpSettings) -> Result<Self, HttpSettingsError> {
        HttpCheck::with_tls(settings, &TlsConfigs::default())
    }

    /// Prepares a check that shares its certificate authorities with others.
    ///
    /// Those of the system take some hundred kilobytes and milliseconds to load: do it once, not for each check.
    pub fn with_tls(settings: HttpSettings, shared: &TlsConfigs) -> Result<Self, HttpSettingsError> {
        settings.prepare(shared)
    }

    /// Returns the URL, without user name and password.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks once, and says how long each phase took. Ends within `timeout`.
    pub async fn probe_detailed(&self, timeout: Duration) -> (CheckOutcome, HttpPhases) {
        let mut progress = Progress::start();
        let mut reader = self.wanted.body_reader();
        let asking = self.endpoint.ask(self.request.clone(), &mut reader, &mut progress, timeout);
        let found = match tokio::time::timeout(timeout, asking).await {
            Ok(found) => found.and_then(|()| reader.judge()),
            Err(_) => Err(progress.overdue(timeout)),
        };
        (verdict::conclude(found, progress.steps.started.elapsed(), timeout), progress.phases())
    }
}

impl Check for HttpCheck {
    fn probe(&self, timeout: Duration) -> BoxFuture<'_, CheckOutcome> {
        Box::pin(async move { self.probe_detailed(timeout).await.0 })
    }
}

impl fmt::Debug for HttpCheck {
    // Not derived: the request holds headers, and a header may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpCheck")
            .field("url", &self.url)
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}
