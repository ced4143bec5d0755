//! Opening a connection: TCP or TLS, then the login, the name and the database in one turn.
//!
//! The rules of TLS are those that `connect` gives the client library: the server's certificate and host
//! name are checked, against the system's certificates or against those that are named alone.

use secrecy::ExposeSecret as _;
use tidemill_tls::{ClientTls, TlsError, TlsStream};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Driver, Parts, Request, RespConnection};
use crate::storage::valkey::connect::{ConnectError, primary};
use crate::storage::valkey::options::ValkeyOptions;
use crate::storage::valkey::target::Target;

impl RespConnection {
    /// Connects to the server under a name that `CLIENT LIST` shows, within the time for connecting.
    pub(in crate::storage::valkey) async fn open(
        options: &ValkeyOptions,
        name: &str,
    ) -> Result<(Self, Driver), ConnectError> {
        let within = options.connect_timeout;
        timeout(within, open(options, name)).await.map_err(|_| ConnectError::TimedOut(within))?
    }
}

async fn open(options: &ValkeyOptions, name: &str) -> Result<(RespConnection, Driver), ConnectError> {
    let target = &options.target;
    let address = primary(options).await?;
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
    stream.set_nodelay(true)?;
    let (connection, mut driver) = if target.tls {
        let stream = encrypt(options, &address.host, stream).await?;
        let (reader, writer) = tokio::io::split(stream);
        RespConnection::new(Box::new(reader), Box::new(writer), true)
    } else {
        let (reader, writer) = stream.into_split();
        RespConnection::new(Box::new(reader), Box::new(writer), false)
    };
    greet(&connection, &mut driver, &greeting(target, name), options).await?;
    Ok((connection, driver))
}

async fn greet(
    connection: &RespConnection,
    driver: &mut Driver,
    greeting: &Request,
    options: &ValkeyOptions,
) -> Result<(), ConnectError> {
    let mut greeted = std::pin::pin!(connection.exchange(greeting, options.connect_timeout));
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
    host: &str,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let tls = ClientTls { roots_pem: options.ca_pem.as_deref(), identity: options.client_identity.as_ref() };
    tls.connect(host, stream).await.map_err(|error| match error {
        TlsError::Host(_) | TlsError::Pem(_) | TlsError::Setup(_) => ConnectError::Attempt(error.to_string()),
        TlsError::Handshake(_) => ConnectError::Refused(error.to_string()),
    })
}
