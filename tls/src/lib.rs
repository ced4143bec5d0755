//! TLS of the relay: to its clients, to others, and of its client. What is trusted, what is shown, and by
//! which provider it is done, in one place.
//!
//! It must not know who is spoken to, what is said, or where the files of certificates are.
//!
//! | file | owns |
//! |---|---|
//! | `server` | what the relay shows to its clients |
//! | `session` | one connection of a client, without its socket |
//! | `pinned` | a server that is known by its certificate |
//! | `inspected` | what a server shows of itself, for who does not speak to it |
//! | `told` | what is wrong with a certificate, in words |
//!
//! **Invariant:** a server's certificate is always checked: with its host name against what is trusted, or
//! byte by byte against the one that is expected. There is no way to leave that out: who looks at one that is not trusted
//! sends nothing to its server.

mod inspected;
mod pinned;
mod server;
mod session;
mod told;

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

pub use inspected::{Inspected, inspect};
pub use pinned::pinned_to;
pub use rustls::Error as ProtocolError;
pub use server::{IdentityError, ServerIdentity, ServerTls};
pub use session::{PLAIN_BYTES_MAX, RECORD_BYTES_MAX, ServerSession};
pub use tokio_rustls::client::TlsStream;
pub use told::untrusted;

/// What a client trusts, and what it shows. By default it trusts what the system does and shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientTls<'a> {
    /// Certificates (PEM) to trust in place of the system's.
    pub roots_pem: Option<&'a [u8]>,
    /// The certificate to show to a server that asks for one.
    pub identity: Option<&'a ClientIdentity>,
}

/// A client certificate with its private key. `Debug` shows neither.
#[derive(Clone)]
pub struct ClientIdentity {
    /// The certificate chain (PEM).
    pub certificate_pem: Vec<u8>,
    /// The private key (PEM).
    pub key_pem: Vec<u8>,
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientIdentity(***)")
    }
}

/// Why a connection is not encrypted, told by who can mend it. The texts hold nothing of a key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// What the server is to be checked against is no host name or address: change that.
    #[error(transparent)]
    Host(#[from] InvalidDnsNameError),
    /// What is trusted or shown cannot be read: change the certificates or the key.
    #[error(transparent)]
    Pem(#[from] pem::Error),
    /// What is trusted or shown cannot be used, or the system's certificates cannot be found.
    #[error(transparent)]
    Setup(#[from] rustls::Error),
    /// The two sides do not come to terms, or the connection broke meanwhile.
    #[error(transparent)]
    Handshake(#[from] io::Error),
}

impl ClientTls<'_> {
    /// Encrypts an open connection to `host`.
    ///
    /// # Errors
    /// See [`TlsError`]; the connection is closed.
    pub async fn connect<S>(self, host: &str, stream: S) -> Result<TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned())?;
        let connector = TlsConnector::from(Arc::new(self.config()?));
        Ok(connector.connect(name, stream).await?)
    }

    fn config(self) -> Result<ClientConfig, TlsError> {
        // Named, because a process may hold more providers than one, and then has no default.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let builder = match self.roots_pem {
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    roots.add(certificate?)?;
                }
                builder.with_root_certificates(roots)
            }
            None => builder.with_platform_verifier()?,
        };
        Ok(match self.identity {
            Some(identity) => {
                let chain = CertificateDer::pem_slice_iter(&identity.certificate_pem);
                let key = PrivateKeyDer::from_pem_slice(&identity.key_pem)?;
                builder.with_client_auth_cert(chain.collect::<Result<_, _>>()?, key)?
            }
            None => builder.with_no_client_auth(),
        })
    }
}

#[cfg(test)]
mod tests;
