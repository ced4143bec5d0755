//! Opening a wire: TCP or TLS, then the login, the name and the database in one turn.
//!
//! The rules of TLS are those that `connect` gives the client library: the server's certificate and host
//! name are checked, against the system's certificates or against those that are named alone.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls_platform_verifier::BuilderVerifierExt as _;
use secrecy::ExposeSecret as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Carrier, Parts, Request, Wire};
use crate::storage::valkey::connect::ConnectError;
use crate::storage::valkey::options::ValkeyOptions;
use crate::storage::valkey::target::Target;

impl Wire {
    /// Connects to the server under a name that `CLIENT LIST` shows, within the time for connecting.
    pub(in crate::storage::valkey) async fn open(
        options: &ValkeyOptions,
        name: &str,
    ) -> Result<(Self, Carrier), ConnectError> {
        let within = options.connect_timeout;
        timeout(within, open(options, name)).await.map_err(|_| ConnectError::TimedOut(within))?
    }
}

async fn open(options: &ValkeyOptions, name: &str) -> Result<(Wire, Carrier), ConnectError> {
    let target = &options.target;
    let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
    stream.set_nodelay(true)?;
    let (wire, mut carrier) = if target.tls {
        let stream = encrypt(options, stream).await?;
        let (reader, writer) = tokio::io::split(stream);
        Wire::new(Box::new(reader), Box::new(writer), true)
    } else {
        let (reader, writer) = stream.into_split();
        Wire::new(Box::new(reader), Box::new(writer), false)
    };
    greet(&wire, &mut carrier, &greeting(target, name), options).await?;
    Ok((wire, carrier))
}

async fn greet(
    wire: &Wire,
    carrier: &mut Carrier,
    greeting: &Request,
    options: &ValkeyOptions,
) -> Result<(), ConnectError> {
    let mut greeted = std::pin::pin!(wire.exchange(greeting, options.connect_timeout));
    let mut unasked = |_: Parts<'_>| {};
    let replies = tokio::select! {
        biased;
        replies = &mut greeted => replies,
        reason = carrier.read_all(&mut unasked) => {
            wire.close(&reason);
            // A server that says why it closes has said so before.
            greeted.await
        }
    };
    let replies = replies.map_err(|error| ConnectError::Refused(error.to_string()))?;
    match replies.iter().find_map(|reply| reply.error()) {
        Some(refusal) => Err(ConnectError::Refused(refusal)),
        None => Ok(()),
    }
}

/// Returns what is said first. No text of ours repeats it: it holds the password.
fn greeting(target: &Target, name: &str) -> Request {
    let mut request = Request::default();
    let name: [&[u8]; 2] = [b"SETNAME", name.as_bytes()];
    if let Some(password) = &target.password {
        // Servers refuse HELLO with an empty user name.
        let user = target.username.as_deref().unwrap_or("default");
        let password = password.expose_secret().as_bytes();
        request.add(&[b"HELLO", b"3", b"AUTH", user.as_bytes(), password, name[0], name[1]]);
    } else {
        request.add(&[b"HELLO", b"3", name[0], name[1]]);
    }
    if target.database != 0 {
        request.begin(2).arg(b"SELECT").number(u64::from(target.database));
    }
    request
}

async fn encrypt(
    options: &ValkeyOptions,
    stream: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ConnectError> {
    let config = tls_config(options).map_err(|error| ConnectError::Attempt(error.to_string()))?;
    let name = ServerName::try_from(options.target.host.clone())
        .map_err(|error| ConnectError::Attempt(error.to_string()))?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.map_err(|error| ConnectError::Refused(error.to_string()))
}

fn tls_config(options: &ValkeyOptions) -> Result<ClientConfig, Box<dyn std::error::Error + Send + Sync>> {
    // Named, because a process may hold more providers than one, and then has no default.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match &options.ca_pem {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                roots.add(certificate?)?;
            }
            builder.with_root_certificates(roots)
        }
        None => builder.with_platform_verifier()?,
    };
    Ok(match &options.client_identity {
        Some(identity) => {
            let chain = CertificateDer::pem_slice_iter(&identity.certificate_pem);
            let key = PrivateKeyDer::from_pem_slice(&identity.key_pem)?;
            builder.with_client_auth_cert(chain.collect::<Result<_, _>>()?, key)?
        }
        None => builder.with_no_client_auth(),
    })
}
