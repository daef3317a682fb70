//! Whom does a probe trust? The system's authorities, those of one file, or anybody.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lidless_core::check::FailureKind;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::HttpSettingsError;
use crate::check::verdict::Trouble;

/// How certificates are judged.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TlsSettings {
    /// Whether the certificate must be valid, and for this host.
    pub verify: bool,
    /// Trusts the authorities in this PEM file instead of the system's.
    pub ca_file: Option<PathBuf>,
}

impl Default for TlsSettings {
    fn default() -> Self {
        TlsSettings { verify: true, ca_file: None }
    }
}

/// What checks with equal TLS settings share. One for a whole configuration; a new one reads the files anew.
#[derive(Debug, Default)]
pub struct TlsConfigs {
    made: Mutex<BTreeMap<TlsSettings, Arc<ClientConfig>>>,
}

impl TlsConfigs {
    pub(super) fn connector(&self, settings: &TlsSettings) -> Result<TlsConnector, HttpSettingsError> {
        // Nothing is left half done under the lock, so a poisoned one is as good as any.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = made.get(settings) {
            return Ok(TlsConnector::from(config.clone()));
        }
        let config = Arc::new(make(settings)?);
        made.insert(settings.clone(), config.clone());
        Ok(TlsConnector::from(config))
    }
}

fn make(settings: &TlsSettings) -> Result<ClientConfig, HttpSettingsError> {
    // Given here, not installed for the process: a driver leaves no global state behind.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(HttpSettingsError::Tls)?;
    let builder = match (settings.verify, &settings.ca_file) {
        (false, _) => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody { provider })),
        (true, Some(path)) => builder.with_root_certificates(authorities(path)?),
        (true, None) => builder.with_platform_verifier().map_err(HttpSettingsError::Tls)?,
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session shows no certificate: a probe must see the one that is served now.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn authorities(path: &Path) -> Result<RootCertStore, HttpSettingsError> {
    let unreadable = |err| HttpSettingsError::CaFile { path: path.into(), err };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        roots.add(certificate.map_err(unreadable)?).map_err(HttpSettingsError::Tls)?;
    }
    if roots.is_empty() {
        return Err(HttpSettingsError::NoAuthorities { path: path.into() });
    }
    Ok(roots)
}

pub(super) async fn handshake(
    connector: &TlsConnector,
    name: &ServerName<'static>,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, Trouble> {
    connector.connect(name.clone(), stream).await.map_err(|err| {
        let text = match Trouble::from_io(&err) {
            ours @ Trouble::Ours { .. } => return ours,
            // The handshake's own errors come wrapped, and say best for themselves what was wrong.
            Trouble::Target { .. } if err.get_ref().is_some() => err.to_string(),
            Trouble::Target { detail, .. } => detail,
        };
        Trouble::target(FailureKind::Tls, format!("TLS handshake failed: {text}"))
    })
}

/// Trusts any certificate, yet still checks that the server holds its key.
#[derive(Debug)]
struct Anybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
