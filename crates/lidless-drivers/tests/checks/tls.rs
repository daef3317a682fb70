//! Does the HTTP check trust whom it should, and nobody else?

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use lidless_core::check::FailureKind;
use lidless_drivers::check::http::{HttpCheck, HttpSettings, TlsSettings};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::server::Server;
use super::{PLENTY, SHORT, assert_took, kind, shown};

struct Certificate {
    chain: PathBuf,
    key: PathBuf,
}

/// Makes a self-signed certificate. `None` where there is no openssl.
fn self_signed(dir: &Path, names: &str) -> Option<Certificate> {
    let (chain, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=lidless test", "-addext", &format!("subjectAltName={names}")])
        // Not an authority: rustls takes no authority for a server.
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&chain)
        .output();
    match made {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(Certificate { chain, key })
        }
        Err(err) => {
            println!("skipped: openssl cannot be run: {err}");
            None
        }
    }
}

/// Serves 200 over TLS, and returns its port.
async fn serve(certificate: &Certificate) -> (u16, JoinSet<()>) {
    let chain = CertificateDer::pem_file_iter(&certificate.chain).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&certificate.key).unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A probe that does not trust us ends the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    });
    (port, tasks)
}

#[tokio::test]
async fn a_certificate_passes_only_where_it_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let Some(certificate) = self_signed(dir.path(), "DNS:localhost") else { return };
    let (port, _server) = serve(&certificate).await;
    let probe = async |host: &str, tls: TlsSettings| {
        let settings = HttpSettings { tls, ..HttpSettings::new(format!("https://{host}:{port}/")) };
        HttpCheck::new(settings).unwrap().probe_detailed(PLENTY).await
    };
    let trusting = || TlsSettings { ca_file: Some(certificate.chain.clone()), ..TlsSettings::default() };
    let blind = TlsSettings { verify: false, ca_file: None };

    let (outcome, phases) = probe("localhost", trusting()).await;
    assert_eq!(shown(&outcome), "pass");
    assert!(phases.tls.is_some());
    assert_eq!(shown(&probe("127.0.0.1", blind).await.0), "pass");

    let (outcome, _) = probe("127.0.0.1", trusting()).await;
    assert_eq!(kind(&outcome), Some(FailureKind::Tls), "the name is another one: {outcome:?}");
    assert!(
        shown(&outcome).starts_with("tls: TLS handshake failed: invalid peer certificate: "),
        "{outcome:?}"
    );

    let settings = HttpSettings::new(format!("https://localhost:{port}/"));
    match HttpCheck::new(settings) {
        Ok(check) => {
            let (outcome, _) = check.probe_detailed(PLENTY).await;
            assert_eq!(kind(&outcome), Some(FailureKind::Tls), "nobody vouches for it: {outcome:?}");
        }
        Err(err) => println!("one part skipped: this system trusts nobody: {err}"),
    }
}

#[tokio::test]
async fn a_plain_server_fails_the_handshake() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        // Until the probe hangs up: to close with its handshake unread would reset what we just wrote.
        while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
    });
    let tls = TlsSettings { verify: false, ca_file: None };
    let check = HttpCheck::new(HttpSettings { tls, ..HttpSettings::new(url) }).unwrap();
    let (outcome, _) = check.probe_detailed(PLENTY).await;
    assert_eq!(kind(&outcome), Some(FailureKind::Tls), "{outcome:?}");
}

#[tokio::test]
async fn a_handshake_that_hangs_fails_at_the_deadline() {
    let server = Server::silent().await;
    let tls = TlsSettings { verify: false, ca_file: None };
    let settings = HttpSettings { tls, ..HttpSettings::new(format!("https://{}/", server.address)) };
    let (outcome, _) = HttpCheck::new(settings).unwrap().probe_detailed(SHORT).await;
    assert_took(&outcome, SHORT);
    assert!(shown(&outcome).ends_with(" TLS handshake not complete)"), "{outcome:?}");
}

#[tokio::test]
async fn a_file_without_certificates_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (empty, missing) = (dir.path().join("empty.pem"), dir.path().join("missing.pem"));
    std::fs::write(&empty, "nothing").unwrap();
    for (file, begins) in [(empty, "no certificate in `"), (missing, "cannot read the certificates in `")] {
        let tls = TlsSettings { verify: true, ca_file: Some(file) };
        let err = HttpCheck::new(HttpSettings { tls, ..HttpSettings::new("https://host/") }).unwrap_err();
        assert!(err.to_string().starts_with(begins), "{err}");
    }
}
