//! Connecting: one client of the library, made so that a failed attempt leaves nothing behind.
//!
//! A failed connect of the library leaves a reconnect loop behind that lives on the runtime it was
//! started on, without end where the server refuses the password. So an attempt is first made on a
//! runtime of its own that is thrown away with whatever is left on it, and only what succeeded there
//! is repeated on the relay's. Before that, the port is tried with a plain TCP connect, which is
//! what a server that is down costs.

use std::time::Duration;

use glide::{
    BackoffStrategy, GlideClient, GlideClientConfiguration, GlideError, NodeAddress, ProtocolVersion,
    ServerCredentials, TlsConfig,
};
use secrecy::ExposeSecret as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::options::ValkeyOptions;
use super::resolver::Address;

/// Why no connection could be made. The texts reach the log and the health page; they hold no
/// credentials.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// Nobody knows where it is.
    #[error("the server's address is not known: {0}")]
    Unresolved(String),
    /// The port does not answer.
    #[error("cannot reach the server: {0}")]
    Unreachable(#[from] std::io::Error),
    /// It answers, but not in time.
    #[error("the server did not answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// It answers, but refuses.
    #[error("{0}")]
    Refused(String),
    /// The attempt itself failed.
    #[error("the attempt to connect has failed: {0}")]
    Attempt(String),
}

/// Connects to the server under a name that `CLIENT LIST` shows. The library's connecting is a large
/// future, so it is boxed here.
pub(super) async fn connect(
    options: &ValkeyOptions,
    name: &'static str,
) -> Result<GlideClient, ConnectError> {
    Box::pin(connect_as(options, name)).await
}

/// Returns where the server to dial listens now.
pub(super) async fn primary(options: &ValkeyOptions) -> Result<Address, ConnectError> {
    let within = options.connect_timeout;
    timeout(within, options.resolver.primary_of(&options.target))
        .await
        .map_err(|_| ConnectError::TimedOut(within))?
        .map_err(ConnectError::Unresolved)
}

/// Tries the server's port.
pub(super) async fn dial(options: &ValkeyOptions) -> Result<(), ConnectError> {
    dial_at(options, &primary(options).await?).await
}

async fn dial_at(options: &ValkeyOptions, address: &Address) -> Result<(), ConnectError> {
    let dialing = TcpStream::connect((address.host.as_str(), address.port));
    let outcome = timeout(options.connect_timeout, dialing).await;
    outcome
        .map_err(|_| ConnectError::TimedOut(options.connect_timeout))?
        .map(drop)
        .map_err(ConnectError::from)
}

async fn connect_as(options: &ValkeyOptions, name: &'static str) -> Result<GlideClient, ConnectError> {
    let address = primary(options).await?;
    dial_at(options, &address).await?;
    let configuration = configuration(options, address, name);
    let rehearsal = configuration.clone();
    tokio::task::spawn_blocking(move || rehearse(rehearsal))
        .await
        .map_err(|error| ConnectError::Attempt(error.to_string()))??;
    // Bounded by the library's connection timeout, and by ours in case that does not cover a step.
    timeout(options.connect_timeout * 2, GlideClient::connect(configuration))
        .await
        .map_err(|_| ConnectError::TimedOut(options.connect_timeout * 2))?
        .map_err(refused)
}

fn rehearse(configuration: GlideClientConfiguration) -> Result<(), ConnectError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(GlideClient::connect(configuration)).map(drop).map_err(refused);
    runtime.shutdown_background();
    outcome
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
fn refused(error: GlideError) -> ConnectError {
    // The library prints its nested errors over several lines.
    let text = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
    ConnectError::Refused(text)
}

fn configuration(options: &ValkeyOptions, address: Address, name: &'static str) -> GlideClientConfiguration {
    let target = &options.target;
    let mut configuration = GlideClientConfiguration::new(vec![NodeAddress::new(address.host, address.port)])
        .request_timeout(options.timeout)
        .connection_timeout(options.connect_timeout)
        .reconnect_strategy(BackoffStrategy {
            num_of_retries: 1,
            factor: 100,
            exponent_base: 2,
            jitter_percent: Some(20),
        })
        .protocol(ProtocolVersion::RESP3)
        .client_name(format!("tidemill-{name}"))
        .database_id(i64::from(target.database));
    if let Some(password) = &target.password {
        // Servers refuse HELLO with an empty user name.
        let username = target.username.clone().unwrap_or_else(|| "default".to_owned());
        configuration = configuration
            .credentials(ServerCredentials::username_password(username, password.expose_secret().to_owned()));
    }
    if target.tls {
        configuration = configuration.tls(TlsConfig::SecureTls);
        if let Some(pem) = &options.ca_pem {
            configuration = configuration.tls_ca_cert(pem.clone());
        }
        if let Some(identity) = &options.client_identity {
            configuration =
                configuration.client_identity(identity.certificate_pem.clone(), identity.key_pem.clone());
        }
    }
    configuration
}
