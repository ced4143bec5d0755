//! What a server shows of itself, for who wants to know and not to speak to it: until when its certificate is good, and
//! whether it is trusted.
//!
//! The one way on which a certificate that is not trusted ends nothing: nothing is sent to its server, and the connection
//! is closed.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::TlsError;
use super::server::{HTTP_1_1, good_until};
use super::session::H2;

/// What a server shows.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// The last second at which its certificate is good, since the beginning of 1970; `None` where it does not tell.
    pub good_until: Option<u64>,
    /// How many certificates it sends, its own among them.
    pub certificates: usize,
    /// Why it is not trusted, as the library says it; [`untrusted`](super::untrusted) has it in words.
    pub refusal: Option<String>,
    /// Whether it takes HTTP/2.
    pub is_http2: bool,
}

/// What was seen of a certificate.
#[derive(Debug, Default)]
struct Seen {
    good_until: Option<u64>,
    certificates: usize,
    refusal: Option<Error>,
}

/// Looks at certificates, and lets all of them pass.
#[derive(Debug)]
struct Looking {
    inner: Arc<dyn ServerCertVerifier>,
    seen: Arc<Mutex<Seen>>,
}

/// Returns what the server of an open connection to `host` shows; `roots_pem` is trusted in place of what the system trusts.
///
/// # Errors
/// See [`TlsError`]: there is no session at all.
pub async fn inspect<S>(host: &str, stream: S, roots_pem: Option<&[u8]>) -> Result<Inspected, TlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(host.to_owned())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let seen = Arc::new(Mutex::new(Seen::default()));
    let looking = Looking { inner: verifier(roots_pem, &provider)?, seen: seen.clone() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(looking))
        .with_no_client_auth();
    config.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec()];
    let session = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let is_http2 = session.get_ref().1.alpn_protocol() == Some(H2);
    let Seen { good_until, certificates, refusal } = std::mem::take(&mut *seen.lock());
    Ok(Inspected { good_until, certificates, refusal: refusal.map(|error| error.to_string()), is_http2 })
}

/// Returns what decides who is trusted.
fn verifier(
    roots_pem: Option<&[u8]>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let Some(pem) = roots_pem else { return Ok(Arc::new(Verifier::new(provider.clone())?)) };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate?)?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    Ok(verifier.map_err(io::Error::other)?)
}

impl ServerCertVerifier for Looking {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let trusted = self.inner.verify_server_cert(end_entity, intermediates, name, ocsp, now);
        *self.seen.lock() = Seen {
            good_until: good_until(end_entity),
            certificates: 1 + intermediates.len(),
            refusal: trusted.err(),
        };
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
