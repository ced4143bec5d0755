//! One WebSocket connection to a relay: opens it, queues frames, reads frames, and notices when it is
//! dead. It must not know what the frames are for, nor when to connect again.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use secrecy::ExposeSecret as _;
use tidemill_proto::Problem;
use tidemill_proto::frame::{BEARER_SUBPROTOCOL, BINARY_SUBPROTOCOL, ClientFrame, ServerFrame, binary, json};
use tidemill_tls::{ClientTls, TlsError, TlsStream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Response};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message as Packet, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::error::{ClientError, Refusal};
use crate::options::{Address, ClientOptions, Encoding};

/// Buffer of a connection each way: some frames, a fraction of the library's default.
const BUFFER_BYTES: usize = 32 * 1024;

/// How long saying good-bye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

trait Link: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Link for T {}

/// A relay, and all that it takes to connect to it, once or again.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    pub(crate) address: Address,
    pub(crate) options: ClientOptions,
}

impl Connector {
    pub(crate) fn new(url: &str, options: ClientOptions) -> Result<Self, ClientError> {
        Ok(Self { address: Address::parse(url)?, options })
    }

    /// Returns the URL as it was given, without a password.
    pub(crate) fn name(&self) -> &str {
        &self.address.name
    }

    pub(crate) async fn connect(&self) -> Result<Connection, ClientError> {
        Connection::open(&self.address, &self.options).await
    }
}

/// An open connection.
pub(crate) struct Connection {
    socket: WebSocketStream<Box<dyn Link>>,
    encoding: Encoding,
    name: String,
    /// Whether frames are queued that may not have been written yet.
    queued: bool,
    half_silence: Duration,
    /// When the silence is to be broken, or, once a sign of life was asked for, believed.
    deadline: Instant,
    asked: bool,
}

/// A frame as it came.
#[derive(Debug)]
pub(crate) enum Received {
    Text(Utf8Bytes),
    Binary(Bytes),
}

impl Received {
    /// Returns a part of the frame that shares its bytes, or a copy of one that had to be decoded.
    pub(crate) fn share(&self, part: &[u8]) -> Bytes {
        let whole: &[u8] = match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        };
        if whole.as_ptr_range().contains(&part.as_ptr()) {
            let all: Bytes = match self {
                Self::Text(text) => text.clone().into(),
                Self::Binary(bytes) => bytes.clone(),
            };
            all.slice_ref(part)
        } else {
            Bytes::copy_from_slice(part)
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Connection {
    async fn open(address: &Address, options: &ClientOptions) -> Result<Self, ClientError> {
        let opening = async {
            let away = |cause: std::io::Error| away(&address.name, cause);
            let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(away)?;
            stream.set_nodelay(true).map_err(away)?;
            let link: Box<dyn Link> = if address.tls {
                Box::new(encrypt(address, options, stream).await?)
            } else {
                Box::new(stream)
            };
            let config = WebSocketConfig::default()
                .read_buffer_size(BUFFER_BYTES)
                .write_buffer_size(BUFFER_BYTES)
                .max_message_size(Some(options.frame_bytes_max))
                .max_frame_size(Some(options.frame_bytes_max));
            client_async_with_config(request(address, options)?, link, Some(config))
                .await
                .map_err(|error| handshake_error(&address.name, error))
        };
        let (socket, response) = timeout(options.connect_timeout, opening)
            .await
            .map_err(|_| away(&address.name, "connecting took too long"))??;
        let selected = response.headers().get(SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
        if options.encoding == Encoding::Binary && selected != Some(BINARY_SUBPROTOCOL) {
            let what = "it does not speak the binary encoding".to_owned();
            return Err(ClientError::NotARelay { url: address.name.clone(), what });
        }
        let half_silence = options.silence_max / 2;
        Ok(Self {
            socket,
            encoding: options.encoding,
            name: address.name.clone(),
            queued: false,
            half_silence,
            deadline: Instant::now() + half_silence,
            asked: false,
        })
    }

    /// Queues a frame; [`next`](Self::next) writes it. The caller bounds what it queues.
    pub(crate) fn queue(&mut self, frame: &ClientFrame<'_>) -> Result<(), ClientError> {
        let mut out = Vec::new();
        let packet = match self.encoding {
            Encoding::Json => {
                json::write_client(frame, &mut out);
                let text = Utf8Bytes::try_from(Bytes::from(out));
                Packet::Text(text.map_err(|error| ClientError::Usage(error.to_string()))?)
            }
            Encoding::Binary => {
                binary::write_client(frame, &mut out);
                Packet::Binary(out.into())
            }
        };
        self.queue_packet(packet)
    }

    fn queue_packet(&mut self, packet: Packet) -> Result<(), ClientError> {
        self.queued = true;
        // Takes the packet whether or not the socket can: asking it first would mean to wait for the
        // peer to read, and a peer that waits for us to read would never do so.
        Pin::new(&mut self.socket).start_send(packet).map_err(|error| self.broken(error))
    }

    /// Writes what is queued, and waits for the next frame.
    ///
    /// # Cancel safety
    /// Cancel-safe: nothing is lost with the future.
    pub(crate) async fn next(&mut self) -> Result<Received, ClientError> {
        loop {
            let deadline = self.deadline;
            let Ok(packet) = timeout_at(deadline, poll_fn(|cx| self.poll(cx))).await else {
                if self.asked {
                    return Err(away(&self.name, "nothing was heard for too long"));
                }
                self.asked = true;
                self.deadline = Instant::now() + self.half_silence;
                self.queue_packet(Packet::Ping(Bytes::new()))?;
                continue;
            };
            self.asked = false;
            self.deadline = Instant::now() + self.half_silence;
            match packet {
                None => return Err(away(&self.name, "the connection was closed")),
                Some(Err(error)) => return Err(self.broken(error)),
                Some(Ok(Packet::Text(text))) => return Ok(Received::Text(text)),
                Some(Ok(Packet::Binary(bytes))) => return Ok(Received::Binary(bytes)),
                Some(Ok(Packet::Close(frame))) => return Err(self.closed(frame)),
                // Pings are answered by the library.
                Some(Ok(Packet::Ping(_) | Packet::Pong(_) | Packet::Frame(_))) => {}
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Packet, SocketError>>> {
        let mut failure = None;
        if self.queued {
            match Pin::new(&mut self.socket).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.queued = false,
                Poll::Ready(Err(error)) => failure = Some(error),
                Poll::Pending => {}
            }
        }
        // A peer that no longer reads may have said why.
        match (Pin::new(&mut self.socket).poll_next(cx), failure) {
            (Poll::Pending, Some(error)) => Poll::Ready(Some(Err(error))),
            (polled, _) => polled,
        }
    }

    /// Decodes a frame; `None` for one that this version does not know.
    pub(crate) fn decode<'a>(&self, received: &'a Received) -> Result<Option<ServerFrame<'a>>, ClientError> {
        let not_a_relay = |what: String| ClientError::NotARelay { url: self.name.clone(), what };
        match received {
            Received::Text(text) => match json::read_server(text) {
                Ok(frame) => Ok(Some(frame)),
                Err(json::ServerFrameError::UnknownType(_)) => Ok(None),
                Err(error) => Err(not_a_relay(error.to_string())),
            },
            Received::Binary(bytes) => {
                binary::read_server(bytes).map(Some).map_err(|error| not_a_relay(error.to_string()))
            }
        }
    }

    /// Returns the error for a relay that ends the connection in band.
    pub(crate) fn ended(&self, reason: &str) -> ClientError {
        away(&self.name, format_args!("the relay ends the connection: {reason}"))
    }

    /// Says good-bye, and hears that of the relay.
    pub(crate) async fn close(mut self) {
        let closing = async {
            self.socket.close(None).await?;
            // What comes meanwhile is taken: a socket that is dropped with something unread is reset, and
            // then the relay may not hear the good-bye.
            while poll_fn(|cx| Pin::new(&mut self.socket).poll_next(cx)).await.transpose()?.is_some() {}
            Ok::<_, SocketError>(())
        };
        drop(timeout(CLOSE_TIMEOUT, closing).await);
    }

    fn closed(&self, frame: Option<CloseFrame>) -> ClientError {
        let Some(CloseFrame { code, reason }) = frame else {
            return away(&self.name, "the connection was closed");
        };
        let (code, reason) = (u16::from(code), reason.as_str().to_owned());
        if is_final(code) {
            ClientError::Stopped { code, reason }
        } else {
            away(&self.name, format_args!("closed with code {code}: {reason}"))
        }
    }

    fn broken(&self, error: SocketError) -> ClientError {
        match error {
            SocketError::Capacity(error) => ClientError::Stopped { code: 1009, reason: error.to_string() },
            error => away(&self.name, error),
        }
    }
}

/// Returns whether a close code asks not to come back as one is. The others, and those that nobody
/// sends (1005, 1006), pass.
const fn is_final(code: u16) -> bool {
    matches!(code, 1002 | 1003 | 1007..=1010 | 4000..=4499)
}

fn away(name: &str, why: impl fmt::Display) -> ClientError {
    ClientError::Away { url: name.to_owned(), why: why.to_string() }
}

fn request(address: &Address, options: &ClientOptions) -> Result<Request, ClientError> {
    let usage = |what: &str| ClientError::Usage(format!("{what} cannot stand in a header"));
    let mut request =
        address.url.as_str().into_client_request().map_err(|error| ClientError::Usage(error.to_string()))?;
    let mut protocols = Vec::new();
    if options.encoding == Encoding::Binary {
        protocols.push(BINARY_SUBPROTOCOL.to_owned());
    }
    if let Some(token) = &options.token {
        protocols.push(BEARER_SUBPROTOCOL.to_owned());
        protocols.push(format!("{BEARER_SUBPROTOCOL}.{}", token.expose_secret()));
    }
    if !protocols.is_empty() {
        let mut value = HeaderValue::try_from(protocols.join(", ")).map_err(|_| usage("the token"))?;
        value.set_sensitive(options.token.is_some());
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, value);
    }
    if !address.url.username().is_empty() {
        let pair = format!("{}:{}", address.url.username(), address.url.password().unwrap_or_default());
        let mut value =
            HeaderValue::try_from(format!("Basic {}", BASE64.encode(pair))).map_err(|_| usage("the user"))?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    for (name, value) in &options.headers {
        let broken = || ClientError::Usage(format!("the header {name} cannot be sent"));
        let name = HeaderName::try_from(name).map_err(|_| broken())?;
        let mut value = HeaderValue::try_from(value.expose_secret()).map_err(|_| broken())?;
        value.set_sensitive(true);
        request.headers_mut().append(name, value);
    }
    Ok(request)
}

async fn encrypt(
    address: &Address,
    options: &ClientOptions,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, ClientError> {
    let tls = ClientTls { roots_pem: options.roots_pem.as_deref(), ..ClientTls::default() };
    tls.connect(&address.host, stream).await.map_err(|error| match error {
        TlsError::Host(_) => ClientError::Usage("the host of the relay's URL is not a name".to_owned()),
        // As the library says that what answers is no TLS.
        TlsError::Handshake(error) if error.to_string().contains("InvalidContentType") => {
            away(&address.name, "it speaks no TLS: write http://")
        }
        TlsError::Pem(_) | TlsError::Setup(_) | TlsError::Handshake(_) => away(&address.name, error),
    })
}

fn handshake_error(name: &str, error: SocketError) -> ClientError {
    let not_a_relay = |what: String| ClientError::NotARelay { url: name.to_owned(), what };
    match error {
        SocketError::Http(response) => refused(name, &response),
        // As of one that is just stopping.
        SocketError::Protocol(ProtocolError::HandshakeIncomplete) => away(name, "it closed the connection"),
        SocketError::Protocol(error) => not_a_relay(error.to_string()),
        SocketError::HttpFormat(error) => not_a_relay(error.to_string()),
        SocketError::Utf8(error) => not_a_relay(error),
        SocketError::Url(error) => ClientError::Usage(error.to_string()),
        error => away(name, error),
    }
}

/// What is wrong with an answer of a port that speaks TLS and was asked without.
pub const SPEAKS_TLS: &str = "it speaks TLS: write https://";

/// Returns whether an answer is what a relay tells a client that asks a port without TLS which speaks it.
#[must_use]
pub fn speaks_tls(status: u16, body: &[u8]) -> bool {
    status == 400 && body.starts_with(b"This port speaks TLS")
}

/// Returns the error for an answer that is not a WebSocket.
fn refused(name: &str, response: &Response<Option<Vec<u8>>>) -> ClientError {
    let status = response.status().as_u16();
    let body = response.body().as_deref().unwrap_or_default();
    if let Ok(problem) = serde_json::from_slice::<Problem>(body) {
        return ClientError::Refused(Refusal::from(problem));
    }
    if speaks_tls(status, body) {
        return ClientError::NotARelay { url: name.to_owned(), what: SPEAKS_TLS.to_owned() };
    }
    match status {
        429 | 500..=599 => away(name, format_args!("status {status}")),
        _ => ClientError::NotARelay {
            url: name.to_owned(),
            what: format!("status {status} in answer to a WebSocket handshake"),
        },
    }
}
