//! WebSocket clients: one that speaks frames in either encoding, and one that sends raw bytes.
//!
//! It must not know what is tested.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tidemill::proto::MessageId;
use tidemill::proto::frame::{ClientFrame, Publish, ServerFrame, Subscribe, binary};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::relay::STUCK;

/// A client of `/ws`.
#[derive(Debug)]
pub(crate) struct WsClient {
    socket: WebSocketStream<TcpStream>,
    /// The subprotocol that the relay chose.
    pub(crate) protocol: Option<String>,
}

/// Returns the frame of a publish that says nothing but this.
pub(crate) fn publish_frame<'a>(topic: &'a str, payload: &'a [u8]) -> Publish<'a> {
    let (reference, content_type, metadata, ttl, key) = (None, None, None, None, None);
    Publish {
        durability: None,
        fence: None,
        reference,
        topic: topic.into(),
        payload: payload.into(),
        content_type,
        metadata,
        ttl,
        key,
        delivery: None,
        expected_last: None,
        order_key: None,
        unique: None,
    }
}

/// What a reader cares for, whatever the encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// A message, with its payload.
    Message(MessageId, Vec<u8>),
    /// A gap, with its reason.
    Gap(String),
    /// The last frame.
    End,
    /// The close frame's code.
    Close(u16),
    /// The connection is gone without a close frame.
    Lost,
}

impl WsClient {
    /// Connects without a subprotocol.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &[]).await.expect("the relay upgrades")
    }

    /// Connects for the binary encoding.
    pub(crate) async fn connect_binary(address: SocketAddr) -> Self {
        let protocol = [("sec-websocket-protocol", "tidemill.bincode.v1")];
        let client = Self::connect_with(address, &protocol).await.expect("the relay upgrades");
        assert_eq!(client.protocol.as_deref(), Some("tidemill.bincode.v1"));
        client
    }

    /// Connects with these headers.
    pub(crate) async fn connect_with(address: SocketAddr, headers: &[(&str, &str)]) -> Result<Self, Error> {
        let stream = TcpStream::connect(address).await.expect("the relay listens");
        Self::upgrade(stream, address, "/ws", headers).await
    }

    /// Connects to a path with a query.
    pub(crate) async fn connect_at(address: SocketAddr, path: &str) -> Result<Self, Error> {
        let stream = TcpStream::connect(address).await.expect("the relay listens");
        Self::upgrade(stream, address, path, &[]).await
    }

    /// Connects to a relay that may have stopped.
    pub(crate) async fn try_connect(address: SocketAddr) -> Result<Self, Error> {
        let stream = TcpStream::connect(address).await?;
        Self::upgrade(stream, address, "/ws", &[]).await
    }

    /// Subscribes to one topic; returns whether the relay said that it holds before it hung up.
    pub(crate) async fn try_subscribe(&mut self, topic: &str, cursor: &str) -> bool {
        let frame = format!(r#"{{"type":"subscribe","topics":["{topic}"],"offset":"{cursor}"}}"#);
        self.send_any(Message::text(frame)).await;
        matches!(self.next().await, Some(Ok(Message::Text(text))) if text.starts_with(r#"{"type":"subscribed""#))
    }

    /// Connects with a small receive buffer, so that one who does not read is noticed soon.
    pub(crate) async fn connect_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(8 * 1024).expect("a small buffer");
        let stream = socket.connect(address).await.expect("the relay listens");
        Self::upgrade(stream, address, "/ws", &[]).await.expect("the relay upgrades")
    }

    async fn upgrade(
        stream: TcpStream,
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Error> {
        let mut request = format!("ws://{address}{path}").into_client_request().expect("a request");
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).expect("a name");
            request.headers_mut().append(name, HeaderValue::try_from(*value).expect("a value"));
        }
        let upgraded = timeout(STUCK, tokio_tungstenite::client_async(request, stream)).await;
        let (socket, response) = upgraded.expect("the relay answers")?;
        let protocol = response.headers().get("sec-websocket-protocol");
        let protocol = protocol.map(|name| name.to_str().expect("a name").to_owned());
        Ok(Self { socket, protocol })
    }

    /// Sends a text frame.
    pub(crate) async fn send(&mut self, text: impl AsRef<str>) {
        self.socket.send(Message::text(text.as_ref())).await.expect("the relay takes frames");
    }

    /// Sends any message; what the relay no longer takes is lost.
    pub(crate) async fn send_any(&mut self, message: Message) {
        let _ = self.socket.send(message).await;
    }

    /// Sends a frame in binary.
    pub(crate) async fn send_binary(&mut self, frame: &ClientFrame<'_>) {
        let mut out = Vec::new();
        binary::write_client(frame, &mut out);
        self.socket.send(Message::binary(out)).await.expect("the relay takes frames");
    }

    /// Returns the next WebSocket message that is not a ping.
    pub(crate) async fn next(&mut self) -> Option<Result<Message, Error>> {
        loop {
            let next = timeout(STUCK, self.socket.next()).await.expect("something comes");
            if !matches!(next, Some(Ok(Message::Ping(_) | Message::Pong(_)))) {
                return next;
            }
        }
    }

    /// Returns the next frame, which must be JSON.
    pub(crate) async fn frame(&mut self) -> Value {
        match self.next().await {
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text).expect("a JSON frame"),
            other => panic!("no text frame: {other:?}"),
        }
    }

    /// Returns the next frame, which must have this type.
    pub(crate) async fn expect(&mut self, kind: &str) -> Value {
        let frame = self.frame().await;
        assert_eq!(frame["type"], kind, "{frame}");
        frame
    }

    /// Sends a frame and returns the next one.
    pub(crate) async fn ask(&mut self, text: impl AsRef<str>, kind: &str) -> Value {
        self.send(text).await;
        self.expect(kind).await
    }

    /// Subscribes to one topic or pattern from a cursor, in the encoding of the connection, and waits until it
    /// holds. Returns the cursor that the relay hands out.
    pub(crate) async fn subscribe(&mut self, topic: &str, cursor: &str) -> String {
        if self.protocol.is_none() {
            let frame = format!(r#"{{"type":"subscribe","topics":["{topic}"],"offset":"{cursor}"}}"#);
            let subscribed = self.ask(frame, "subscribed").await;
            return subscribed["cursors"][topic].as_str().expect("a cursor").to_owned();
        }
        let frame = Subscribe {
            topics: vec![topic.into()],
            cursors: vec![(topic.into(), cursor.into())],
            ..Subscribe::default()
        };
        self.send_binary(&ClientFrame::Subscribe(frame)).await;
        match self.next().await {
            Some(Ok(Message::Binary(bytes))) => {
                let frame = binary::read_server(&bytes).expect("a frame");
                let ServerFrame::Subscribed { topics, patterns, .. } = frame else { panic!("{frame:?}") };
                let of_pattern = patterns.first().map(|(_, cursor)| cursor.to_string());
                of_pattern.unwrap_or_else(|| topics[0].1.to_string())
            }
            other => panic!("no binary frame: {other:?}"),
        }
    }

    /// Returns the next thing that a reader cares for.
    pub(crate) async fn got(&mut self) -> Got {
        match self.next().await {
            Some(Ok(Message::Text(text))) => got_json(&text),
            Some(Ok(Message::Binary(bytes))) => got_binary(&bytes),
            Some(Ok(Message::Close(frame))) => Got::Close(frame.map_or(1005, |frame| frame.code.into())),
            Some(Ok(other)) => panic!("not expected: {other:?}"),
            Some(Err(_)) | None => Got::Lost,
        }
    }

    /// Reads on until the relay closes, and returns the code.
    pub(crate) async fn closed(&mut self) -> Got {
        loop {
            let got = self.got().await;
            if matches!(got, Got::Close(_) | Got::Lost) {
                return got;
            }
        }
    }

    /// Closes, and waits until the relay has hung up.
    pub(crate) async fn close(mut self) {
        let _ = self.socket.close(None).await;
        while let Some(Ok(_)) = self.next().await {}
    }
}

fn got_json(text: &str) -> Got {
    #[derive(serde::Deserialize)]
    struct Frame<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        message_id: Option<&'a str>,
        reason: Option<&'a str>,
        #[serde(borrow)]
        payload: Option<&'a serde_json::value::RawValue>,
    }
    let frame: Frame<'_> = serde_json::from_str(text).expect("a JSON frame");
    match (frame.kind, frame.message_id) {
        ("message", Some(id)) => {
            let payload = frame.payload.map_or(&b""[..], |payload| payload.get().as_bytes());
            Got::Message(MessageId::parse(id).expect("an id"), payload.to_vec())
        }
        ("gap", _) => Got::Gap(frame.reason.expect("a reason").to_owned()),
        ("end", _) => Got::End,
        _ => panic!("not expected: {text}"),
    }
}

fn got_binary(bytes: &[u8]) -> Got {
    match binary::read_server(bytes).expect("a frame") {
        ServerFrame::Message(message) => Got::Message(message.message_id, message.payload.into_owned()),
        ServerFrame::Gap(gap) => Got::Gap(gap.reason.as_str().to_owned()),
        ServerFrame::End { .. } => Got::End,
        other => panic!("not expected: {other:?}"),
    }
}

/// A connection that has been upgraded, on which a test sends raw bytes.
#[derive(Debug)]
pub(crate) struct RawWs(TcpStream);

impl RawWs {
    /// Connects and upgrades.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("the relay listens");
        let head = "GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("the relay reads");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(timeout(STUCK, stream.read_u8()).await.expect("in time").expect("an answer"));
        }
        let answer = String::from_utf8(answer).expect("a head");
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        // The example of RFC 6455 section 1.3.
        assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
        Self(stream)
    }

    /// Sends bytes; what the relay no longer takes is lost.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
    }

    /// Closes the sending half.
    pub(crate) async fn shut_down(&mut self) {
        self.0.shutdown().await.expect("it is open");
    }

    /// Returns the next frame of the relay: its first byte and its payload; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        timeout(STUCK, self.read()).await.expect("something comes")
    }

    async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).await.ok()?;
        let length = match head[1] {
            126 => u64::from(self.0.read_u16().await.ok()?),
            127 => self.0.read_u64().await.ok()?,
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).expect("a length")];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((head[0], payload))
    }

    /// Reads on until the close frame, and returns its code; `None` where there is none.
    pub(crate) async fn close_code(&mut self) -> Option<u16> {
        while let Some((first, payload)) = self.next().await {
            if first == 0x88 {
                return Some(payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]])));
            }
        }
        None
    }
}

/// Returns a frame as a client sends it, masked with zeros.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | u8::try_from(short).expect("short")),
        medium @ 126..65_536 => {
            frame.push(0x80 | 0x7E);
            frame.extend(u16::try_from(medium).expect("medium").to_be_bytes());
        }
        long => {
            frame.push(0x80 | 0x7F);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(payload);
    frame
}
