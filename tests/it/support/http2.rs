//! A client of HTTP/2 over TLS, which gives as much room as the test wants; and one that sends frames by hand.
//!
//! It must not know what is tested.

use std::net::SocketAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use bytes::Bytes;
use h2::client::{self, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::relay::{Answer, STUCK};
use super::tls::Papers;

/// Types of frames.
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// A connection, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Http2 {
    requests: SendRequest<Bytes>,
    authority: String,
    tracker: TaskTracker,
    _stop: DropGuard,
}

/// A body as it comes.
#[derive(Debug)]
pub(crate) struct Body {
    stream: RecvStream,
    /// What has come and was not asked for.
    seen: Vec<u8>,
}

impl Http2 {
    /// Connects with windows of this size.
    pub(crate) async fn connect(papers: &Papers, address: SocketAddr, window: u32) -> Self {
        let stream = TcpStream::connect(address).await.expect("the relay listens");
        let stream = papers.try_agree(stream, &[b"h2"]).await.expect("keys are agreed on");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let mut builder = client::Builder::new();
        builder.initial_window_size(window).initial_connection_window_size(window.max(65_535));
        let (requests, connection) = builder.handshake(stream).await.expect("HTTP/2");
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        tracker.spawn(stop.clone().run_until_cancelled_owned(async move { drop(connection.await) }));
        tracker.close();
        Self { requests, authority: address.to_string(), tracker, _stop: stop.drop_guard() }
    }

    /// Waits until the relay has hung up.
    pub(crate) async fn ended(&self) {
        timeout(STUCK, self.tracker.wait()).await.expect("the relay hangs up");
    }

    /// Asks for something, and returns the head of the answer.
    ///
    /// # Errors
    /// The stream, or the connection, was ended.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: &[u8],
    ) -> Result<Response<Body>, h2::Error> {
        self.ask_for(&self.authority, method, path, headers, body).await
    }

    /// Asks for something of another host.
    pub(crate) async fn ask_for(
        &self,
        authority: &str,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: &[u8],
    ) -> Result<Response<Body>, h2::Error> {
        let mut request = Request::builder().method(method).uri(format!("https://{authority}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        let mut requests = self.requests.clone().ready().await?;
        let (response, mut send) = requests.send_request(request, body.is_empty())?;
        if !body.is_empty() {
            send.send_data(Bytes::copy_from_slice(body), true)?;
        }
        let response = timeout(STUCK, response).await.expect("an answer")?;
        Ok(response.map(|stream| Body { stream, seen: Vec::new() }))
    }

    /// Begins a request, whose body is still to be sent.
    pub(crate) async fn begin(&self, method: Method, path: &str) -> (ResponseFuture, SendStream<Bytes>) {
        let request = Request::builder().method(method).uri(format!("https://{}{path}", self.authority));
        let mut requests = self.requests.clone().ready().await.expect("a connection");
        requests.send_request(request.body(()).expect("a request"), false).expect("a stream")
    }

    /// Asks for something, and returns the whole answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: &[u8],
    ) -> Answer {
        whole(self.ask(method, path, headers, body).await.expect("an answer")).await
    }
}

/// Reads the whole of an answer.
pub(crate) async fn whole(response: Response<Body>) -> Answer {
    let (head, mut body) = response.into_parts();
    while body.more().await.expect("a whole body") {}
    let text = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.to_string(), value.to_str().expect("text").to_owned())
    };
    let headers = <HeaderMap>::iter(&head.headers).map(text).collect();
    Answer { status: head.status.as_u16(), headers, body: body.seen }
}

impl Body {
    /// Reads more, and gives room for as much; returns whether there was any.
    pub(crate) async fn more(&mut self) -> Result<bool, h2::Error> {
        let Some(data) = timeout(STUCK, self.stream.data()).await.expect("something comes") else {
            return Ok(false);
        };
        let data = data?;
        self.stream.flow_control().release_capacity(data.len())?;
        self.seen.extend_from_slice(&data);
        Ok(true)
    }

    /// Reads until `end` has come, and returns everything up to it.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = memchr::memmem::find(&self.seen, end.as_bytes()) {
                let rest = self.seen.split_off(at + end.len());
                let text = std::mem::replace(&mut self.seen, rest);
                return String::from_utf8(text).expect("UTF-8");
            }
            let seen = self.seen.escape_ascii().to_string();
            assert!(self.more().await.expect("a stream"), "it ended after {seen}");
        }
    }

    /// Reads to the end, and returns everything.
    pub(crate) async fn rest(&mut self) -> Result<String, h2::Error> {
        while self.more().await? {}
        Ok(String::from_utf8(std::mem::take(&mut self.seen)).expect("UTF-8"))
    }
}

/// A connection whose frames are written by hand.
#[derive(Debug)]
pub(crate) struct Frames(TlsStream<TcpStream>);

/// Returns a frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Returns the head of `GET path`, as HPACK without a table writes it.
pub(crate) fn get(path: &str) -> Vec<u8> {
    head(0x82, path)
}

/// Returns the head of `POST path`, as HPACK without a table writes it.
pub(crate) fn post(path: &str) -> Vec<u8> {
    head(0x83, path)
}

fn head(method: u8, path: &str) -> Vec<u8> {
    // The indexed fields `:method` and `:scheme: https`; `:path` and `:authority` as literals that are not indexed, by
    // the names 4 and 1.
    let mut head = vec![method, 0x87, 0x04, u8::try_from(path.len()).expect("short")];
    head.extend_from_slice(path.as_bytes());
    head.extend_from_slice(b"\x01\x09localhost");
    head
}

/// Returns a field for the end of a head.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("short");
        [&[length], text.as_bytes()].concat()
    };
    [vec![0], text(name), text(value)].concat()
}

impl Frames {
    /// Connects, and says hello with these settings.
    pub(crate) async fn connect(papers: &Papers, address: SocketAddr, settings: &[u8]) -> Self {
        let stream = TcpStream::connect(address).await.expect("the relay listens");
        stream.set_nodelay(true).expect("a socket");
        let stream = papers.try_agree(stream, &[b"h2"]).await.expect("keys are agreed on");
        let mut frames = Self(stream);
        let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, settings)[..]].concat();
        frames.send(&hello).await.expect("the relay listens");
        frames
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// The relay has hung up.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let send = async {
            self.0.write_all(bytes).await?;
            self.0.flush().await
        };
        timeout(STUCK, send).await.expect("the relay reads, or hangs up")
    }

    /// Returns the next frame: its type and its payload; `None` once the relay has hung up.
    pub(crate) async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        self.next_of().await.map(|(_, kind, payload)| (kind, payload))
    }

    /// Returns the next frame: its stream, its type and its payload; `None` once the relay has hung up.
    pub(crate) async fn next_of(&mut self) -> Option<(u32, u8, Vec<u8>)> {
        let next = async {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let [high, middle, low, kind, _, stream @ ..] = head;
            let mut payload = vec![0; usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)];
            self.0.read_exact(&mut payload).await.ok()?;
            Some((u32::from_be_bytes(stream), kind, payload))
        };
        timeout(STUCK, next).await.expect("the relay writes, or hangs up")
    }

    /// Reads until the relay hangs up, and returns the code of its GOAWAY, if there was one.
    pub(crate) async fn goaway(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some((kind, payload)) = self.next().await {
            if kind == GOAWAY {
                let bytes = payload[4..8].try_into().expect("four bytes");
                code = Some(u32::from_be_bytes(bytes));
            }
        }
        code
    }
}
