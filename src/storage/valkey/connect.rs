//! Connecting: one client of the library, made so that it leaves nothing behind when it fails, or is let go.
//!
//! A failed connect of the library leaves a reconnect loop behind that lives on the runtime it was started on, without
//! end where the server refuses the password. And a client that is dropped keeps its connection until the server has
//! answered what was asked, which one that hangs does not. So each client has a runtime of its own, in a thread, which is
//! thrown away with whatever is left on it. Before that, the port is tried with a plain TCP connect, which is what a
//! server that is down costs.

use std::convert::Infallible;
use std::thread;
use std::time::Duration;

use glide::{
    BackoffStrategy, GlideClient, GlideClientConfiguration, GlideError, NodeAddress, ProtocolVersion,
    ServerCredentials, TlsConfig,
};
use secrecy::ExposeSecret as _;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::options::ValkeyOptions;
use super::resolver::Address;

/// Most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 16;

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

/// Carries the connections of one client for as long as it is kept.
#[derive(Debug)]
pub(super) struct Carrier {
    /// Dropped, it ends the runtime.
    _end: oneshot::Sender<Infallible>,
}

/// Connects to the server under a name that `CLIENT LIST` shows, and tells where it is.
pub(super) async fn connect(
    options: &ValkeyOptions,
    name: &'static str,
) -> Result<(GlideClient, Carrier, Address), ConnectError> {
    let address = primary(options).await?;
    let (client, carrier) = tokio::select! {
        biased;
        connected = connect_at(options, &address, name) => connected?,
        () = options.resolver.left(&address) => return Err(ConnectError::Refused(left(&address))),
    };
    Ok((client, carrier, address))
}

/// Returns where the server to dial listens now.
pub(super) async fn primary(options: &ValkeyOptions) -> Result<Address, ConnectError> {
    let within = options.connect_timeout;
    timeout(within, options.resolver.primary_of(&options.target))
        .await
        .map_err(|_| ConnectError::TimedOut(within))?
        .map_err(ConnectError::Unresolved)
}

/// Says why a connection is of no use once another server is the primary.
pub(super) fn left(address: &Address) -> String {
    format!("the primary is another server than {address} by now")
}

/// Tries the port of the server at an address.
pub(super) async fn dial(options: &ValkeyOptions, address: &Address) -> Result<(), ConnectError> {
    reach(address, options.connect_timeout).await.map(drop)
}

/// Opens a TCP connection. A name is looked up now; all its addresses are tried, and none takes the time of those
/// behind it.
pub(super) async fn reach(address: &Address, within: Duration) -> Result<TcpStream, ConnectError> {
    let deadline = Instant::now() + within;
    let looked_up = timeout(within, lookup_host((address.host.as_str(), address.port))).await;
    let all: Vec<_> = looked_up.map_err(|_| ConnectError::TimedOut(within))??.take(ADDRESSES_MAX).collect();
    let mut failure = None;
    for (socket, left) in all.iter().zip((1..=all.len()).rev()) {
        let rest = deadline.saturating_duration_since(Instant::now());
        let share = rest / u32::try_from(left).unwrap_or(u32::MAX);
        match timeout(share, TcpStream::connect(socket)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = Some(error.into()),
            // One that says why it cannot be reached says more.
            Err(_) => failure = failure.or(Some(ConnectError::TimedOut(within))),
        }
    }
    Err(failure.unwrap_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound).into()))
}

async fn connect_at(
    options: &ValkeyOptions,
    address: &Address,
    name: &'static str,
) -> Result<(GlideClient, Carrier), ConnectError> {
    dial(options, address).await?;
    let configuration = configuration(options, address, name).await;
    let (end, ended) = oneshot::channel();
    let (tell, told) = oneshot::channel();
    let carrier = Carrier { _end: end };
    let thread = thread::Builder::new().name(format!("tidemill-{name}"));
    let begun = thread.spawn(move || carry(configuration, tell, ended));
    begun.map_err(|error| ConnectError::Attempt(error.to_string()))?;
    // Bounded by the library's connection timeout, and by ours in case that does not cover a step.
    let told = timeout(options.connect_timeout * 2, told).await;
    let told = told.map_err(|_| ConnectError::TimedOut(options.connect_timeout * 2))?;
    let client = told.map_err(|_| ConnectError::Attempt("the library has ended early".to_owned()))??;
    Ok((client, carrier))
}

/// Connects on a runtime of its own, tells what came of that, and carries what the library does until the end.
fn carry(
    configuration: GlideClientConfiguration,
    tell: oneshot::Sender<Result<GlideClient, ConnectError>>,
    mut ended: oneshot::Receiver<Infallible>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(tell.send(Err(error.into()))),
    };
    runtime.block_on(async {
        let connected = tokio::select! {
            biased;
            _ = &mut ended => return,
            // The library's connecting is a large future.
            connected = Box::pin(GlideClient::connect(configuration)) => connected.map_err(refused),
        };
        let is_connected = connected.is_ok();
        if tell.send(connected).is_ok() && is_connected {
            let _ = ended.await;
        }
    });
    runtime.shutdown_background();
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
fn refused(error: GlideError) -> ConnectError {
    // The library prints its nested errors over several lines.
    let text = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
    ConnectError::Refused(text)
}

async fn configuration(
    options: &ValkeyOptions,
    address: &Address,
    name: &'static str,
) -> GlideClientConfiguration {
    let target = &options.target;
    let node = NodeAddress::new(address.host.clone(), address.port);
    let mut configuration = GlideClientConfiguration::new(vec![node])
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
    if let Some((username, password)) = options.login().credentials().await {
        let password = password.expose_secret();
        configuration = configuration.credentials(ServerCredentials::username_password(username, password));
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

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn of_a_name_all_addresses_are_tried() {
        let within = Duration::from_secs(5);
        // Most machines know this name by an address of each family.
        let all: Vec<_> = lookup_host(("localhost", 1)).await.expect("it is known").collect();
        for socket in all {
            let listener = TcpListener::bind((socket.ip(), 0)).await.expect("a port");
            let port = listener.local_addr().expect("it is bound").port();
            let address = Address { host: "localhost".to_owned(), port };
            let stream = reach(&address, within).await.expect("it listens");
            assert_eq!(stream.peer_addr().expect("it is there").ip(), socket.ip());
        }
        let nowhere = Address { host: "localhost".to_owned(), port: 1 };
        assert!(matches!(reach(&nowhere, within).await, Err(ConnectError::Unreachable(_))));
    }
}
