//! The relay's own side of TLS: what it shows to its clients, and which protocols it offers them.
//!
//! It must not know where certificate and key come from, nor what connections carry.

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error, InconsistentKeys, ServerConfig};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::session::{H2, ServerSession};

/// What HTTP/1.1 is called where a protocol is agreed on (RFC 7301 section 6).
pub(crate) const HTTP_1_1: &[u8] = b"http/1.1";

/// A certificate with its key, ready to be shown. `Debug` shows neither.
#[derive(Clone)]
pub struct ServerIdentity {
    config: Arc<ServerConfig>,
    good_until: Option<u64>,
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerIdentity(***)")
    }
}

/// Why a certificate and a key cannot be shown. The texts go on behind a file's name, and hold nothing of
/// a key.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is no certificate.
    #[error("has no PEM block `-----BEGIN CERTIFICATE-----`")]
    NoCertificate,
    /// A certificate cannot be read.
    #[error("has a certificate that cannot be read")]
    BadCertificate,
    /// There is no key.
    #[error(
        "has no PEM block `-----BEGIN PRIVATE KEY-----` (or `RSA` or `EC PRIVATE KEY`); a key behind a passphrase is none"
    )]
    NoKey,
    /// The key is of a kind that is not known, or too short.
    #[error("has a key that cannot be used; RSA from 2048 bits on, ECDSA and Ed25519 can")]
    BadKey,
    /// The two do not fit together.
    #[error("is not the key of the certificate")]
    OtherKey,
    /// The provider of cryptography refuses.
    #[error("cannot be used")]
    Setup(#[source] Error),
}

impl IdentityError {
    /// Returns whether it is the key that is wrong, rather than the certificate.
    #[must_use]
    pub const fn is_of_key(&self) -> bool {
        match self {
            Self::NoCertificate | Self::BadCertificate | Self::Setup(_) => false,
            Self::NoKey | Self::BadKey | Self::OtherKey => true,
        }
    }
}

impl ServerIdentity {
    /// Returns the certificate chain and its key, both in PEM.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<_, _>>()
            .map_err(|_| IdentityError::BadCertificate)?;
        if chain.is_empty() {
            return Err(IdentityError::NoCertificate);
        }
        let good_until = good_until(&chain[0]);
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| IdentityError::NoKey)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let key = provider.key_provider.load_private_key(key).map_err(|_| IdentityError::BadKey)?;
        let identity = CertifiedKey::new(chain, key);
        match identity.keys_match() {
            // Of a kind of key that cannot tell.
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => return Err(IdentityError::OtherKey),
            Err(_) => return Err(IdentityError::BadCertificate),
        }
        let config = config(provider, identity).map_err(IdentityError::Setup)?;
        Ok(Self { config: Arc::new(config), good_until })
    }

    /// Returns the last second at which the certificate is good, since the beginning of 1970 (RFC 5280, 4.1.2.5:
    /// `notAfter`); `None` where it does not tell. It is that of the first one alone: what stands behind it may
    /// have another end, and be of no use to some clients.
    #[must_use]
    pub const fn good_until(&self) -> Option<u64> {
        self.good_until
    }
}

pub(crate) fn good_until(certificate: &CertificateDer<'_>) -> Option<u64> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    u64::try_from(certificate.validity().not_after.timestamp()).ok()
}

fn config(provider: Arc<CryptoProvider>, identity: CertifiedKey) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    config.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec()];
    // Who comes again brings what is needed for that along: nothing is kept here for those who do not.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// What is shown to clients, which can be replaced while they are connected. Clones are the same.
#[derive(Clone, Debug)]
pub struct ServerTls(Arc<RwLock<ServerIdentity>>);

impl ServerTls {
    /// Returns TLS that shows this.
    #[must_use]
    pub fn new(identity: ServerIdentity) -> Self {
        Self(Arc::new(RwLock::new(identity)))
    }

    /// Shows something else to those who come from now on.
    pub fn replace(&self, identity: ServerIdentity) {
        *self.0.write() = identity;
    }

    /// Begins to agree on keys with a client.
    ///
    /// # Errors
    /// The library refuses, which it does not with what was checked before.
    pub fn session(&self) -> Result<ServerSession, Error> {
        let config = self.0.read().config.clone();
        ServerSession::new(config)
    }
}
