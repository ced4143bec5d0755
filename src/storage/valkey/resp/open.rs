//! Opening a connection: TCP or TLS, then the login, the name and the database in one turn.
//!
//! The rules of TLS are those that `connect` gives the client library: the server's certificate and host
//! name are checked, against the system's certificates or against those that are named alone.

use std::sync::{Arc, Weak};
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tidemill_tls::{ClientTls, TlsError, TlsStream};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Driver, Parts, Request, RespConnection, Sending};
use crate::storage::valkey::connect::{ConnectError, left, primary, reach};
use crate::storage::valkey::login::{Login, keep_logged_in};
use crate::storage::valkey::options::ValkeyOptions;
use crate::storage::valkey::resolver::Address;

/// What is said to a server when it is connected to.
#[derive(Debug)]
pub(in crate::storage::valkey) struct Peer<'a> {
    pub(in crate::storage::valkey) address: &'a Address,
    pub(in crate::storage::valkey) login: Login,
    pub(in crate::storage::valkey) tls: bool,
    pub(in crate::storage::valkey) database: u32,
}

impl<'a> Peer<'a> {
    /// Returns the target's server at an address.
    pub(in crate::storage::valkey) fn at(address: &'a Address, options: &ValkeyOptions) -> Self {
        let (login, target) = (options.login(), &options.target);
        Self { address, login, tls: target.tls, database: target.database }
    }
}

impl RespConnection {
    /// Connects to the server under a name that `CLIENT LIST` shows, within the time for connecting, and tells where it
    /// is. The connection ends when another server is known to be the primary.
    pub(in crate::storage::valkey) async fn open(
        options: &ValkeyOptions,
        name: &str,
    ) -> Result<(Self, Driver, Address), ConnectError> {
        let address = primary(options).await?;
        let peer = Peer::at(&address, options);
        let (connection, mut driver) = tokio::select! {
            biased;
            opened = Self::open_at(options, &peer, name, options.connect_timeout) => opened?,
            () = options.resolver.left(&address) => return Err(ConnectError::Refused(left(&address))),
        };
        let sending = Arc::downgrade(&connection.sending);
        driver.beside = Some(Box::pin(beside(options.clone(), address.clone(), sending)));
        Ok((connection, driver, address))
    }

    /// Connects to whatever listens at an address.
    pub(in crate::storage::valkey) async fn open_at(
        options: &ValkeyOptions,
        peer: &Peer<'_>,
        name: &str,
        within: Duration,
    ) -> Result<(Self, Driver), ConnectError> {
        let opening = open(options, peer, name, within);
        timeout(within, opening).await.map_err(|_| ConnectError::TimedOut(within))?
    }
}

async fn open(
    options: &ValkeyOptions,
    peer: &Peer<'_>,
    name: &str,
    within: Duration,
) -> Result<(RespConnection, Driver), ConnectError> {
    let stream = reach(peer.address, within).await?;
    stream.set_nodelay(true)?;
    let (connection, mut driver) = if peer.tls {
        let stream = encrypt(options, &peer.address.host, stream).await?;
        let (reader, writer) = tokio::io::split(stream);
        RespConnection::new(Box::new(reader), Box::new(writer), true)
    } else {
        let (reader, writer) = stream.into_split();
        RespConnection::new(Box::new(reader), Box::new(writer), false)
    };
    greet(&connection, &mut driver, &greeting(peer, name).await, within).await?;
    Ok((connection, driver))
}

/// Follows the server's password, until another server is the primary.
async fn beside(options: ValkeyOptions, address: Address, sending: Weak<Sending>) -> String {
    let log_in = || log_in(options.clone(), sending.clone());
    tokio::select! {
        () = options.resolver.left(&address) => left(&address),
        never = keep_logged_in(options.password_file.as_deref(), log_in) => match never {},
    }
}

async fn greet(
    connection: &RespConnection,
    driver: &mut Driver,
    greeting: &Request,
    within: Duration,
) -> Result<(), ConnectError> {
    let mut greeted = std::pin::pin!(connection.exchange(greeting, within));
    let mut unasked = |_: Parts<'_>| {};
    let replies = tokio::select! {
        biased;
        replies = &mut greeted => replies,
        reason = driver.read_all(&mut unasked) => {
            connection.close(&reason);
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

/// Logs in again. Returns why the server refuses, if it does.
async fn log_in(options: ValkeyOptions, sending: Weak<Sending>) -> Option<String> {
    // A connection that nobody uses any more is being closed.
    let sending = sending.upgrade()?;
    let login = options.login();
    let (user, password) = login.credentials().await?;
    let mut request = Request::default();
    request.add(&[b"AUTH", user.as_bytes(), password.expose_secret().as_bytes()]);
    match sending.exchange(&request, options.timeout).await {
        Ok(replies) => replies.iter().find_map(|reply| reply.error()),
        Err(error) => Some(error.to_string()),
    }
}

/// Returns what is said first. No text of ours repeats it: it holds the password.
async fn greeting(peer: &Peer<'_>, name: &str) -> Request {
    let mut request = Request::default();
    let name: [&[u8]; 2] = [b"SETNAME", name.as_bytes()];
    if let Some((user, password)) = peer.login.credentials().await {
        let password = password.expose_secret().as_bytes();
        request.add(&[b"HELLO", b"3", b"AUTH", user.as_bytes(), password, name[0], name[1]]);
    } else {
        request.add(&[b"HELLO", b"3", name[0], name[1]]);
    }
    if peer.database != 0 {
        request.begin(2).arg(b"SELECT").number(u64::from(peer.database));
    }
    request
}

async fn encrypt(
    options: &ValkeyOptions,
    host: &str,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let tls = ClientTls { roots_pem: options.ca_pem.as_deref(), identity: options.client_identity.as_ref() };
    tls.connect(host, stream).await.map_err(|error| match error {
        TlsError::Host(_) | TlsError::Pem(_) | TlsError::Setup(_) => ConnectError::Attempt(error.to_string()),
        TlsError::Handshake(_) => ConnectError::Refused(error.to_string()),
    })
}
