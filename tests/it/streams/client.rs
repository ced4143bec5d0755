//! A client that reads a response as it comes, and knows the framing of events and lines.
//!
//! It must not know what is tested.

use std::io;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::relay::{Answer, STUCK};

/// A response that is still coming.
#[derive(Debug)]
pub(super) struct Coming {
    pub(super) head: Answer,
    /// The first block of an event stream; of lines the first line is its data.
    pub(super) opening: Event,
    stream: TcpStream,
    /// What came and is not decoded.
    raw: Vec<u8>,
    /// The body, decoded and not taken.
    body: Vec<u8>,
    ended: bool,
}

/// A block of an event stream, as the HTML standard cuts it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) data: Option<String>,
    pub(super) retry: Option<u64>,
    pub(super) comments: usize,
}

impl Event {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(self.data.as_deref().expect("data")).expect("data in JSON")
    }

    /// Returns whether this is a message.
    pub(super) fn is_message(&self) -> bool {
        self.name.is_none() && self.data.is_some()
    }
}

impl Coming {
    /// Asks for a path.
    pub(super) async fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> io::Result<Self> {
        let mut request = format!("GET {path} HTTP/1.1\r\nhost: relay\r\n");
        for (name, value) in headers {
            request.extend([name, ": ", value, "\r\n"]);
        }
        request.push_str("\r\n");
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut coming = Self {
            head: Answer { status: 0, headers: Vec::new(), body: Vec::new() },
            opening: Event::default(),
            stream,
            raw: Vec::new(),
            body: Vec::new(),
            ended: false,
        };
        let end = loop {
            if let Some(at) = coming.raw.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            coming.fill().await?;
        };
        coming.head = Answer::parse(&coming.raw[..end]);
        coming.raw.drain(..end);
        if coming.head.header("transfer-encoding").is_some() {
            coming.decode();
        }
        Ok(coming)
    }

    /// Asks for a stream of events; the relay must answer with one, which begins with `subscribed`.
    pub(super) async fn events(
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> io::Result<Self> {
        let headers = [&[("accept", "text/event-stream")], headers].concat();
        let mut coming = Self::get(address, path, &headers).await?;
        assert_eq!(coming.head.status, 200, "{:?}", coming.head);
        assert_eq!(coming.head.header("content-type"), Some("text/event-stream"));
        coming.opening = coming.event().await?.expect("an opening");
        assert_eq!(coming.opening.name.as_deref(), Some("subscribed"), "{:?}", coming.opening);
        Ok(coming)
    }

    /// Asks for a stream of lines; the relay must answer with one, which begins with `subscribed`.
    pub(super) async fn lines(address: SocketAddr, path: &str) -> io::Result<Self> {
        let mut coming = Self::get(address, path, &[("accept", "application/x-ndjson")]).await?;
        assert_eq!(coming.head.status, 200, "{:?}", coming.head);
        assert_eq!(coming.head.header("content-type"), Some("application/x-ndjson"));
        let line = coming.until(b"\n").await?.expect("an opening");
        coming.opening.data = Some(line);
        assert_eq!(coming.opening.json()["type"], "subscribed", "{:?}", coming.opening);
        Ok(coming)
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.raw.reserve(16 * 1024);
        let read = self.stream.read_buf(&mut self.raw);
        if timeout(STUCK, read).await.expect("something comes in time")? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Decodes what there is of the chunked body.
    fn decode(&mut self) {
        let mut from = 0;
        while let Some(line) = self.raw[from..].windows(2).position(|two| two == b"\r\n") {
            let size = std::str::from_utf8(&self.raw[from..from + line]).expect("a size in ASCII");
            let size = usize::from_str_radix(size, 16).expect("a size in hexadecimal");
            let start = from + line + 2;
            if self.raw.len() < start + size + 2 {
                break;
            }
            self.body.extend_from_slice(&self.raw[start..start + size]);
            from = start + size + 2;
            self.ended |= size == 0;
        }
        self.raw.drain(..from);
    }

    /// Returns what comes before `end`, without it; `None` at the end of the body.
    async fn until(&mut self, end: &[u8]) -> io::Result<Option<String>> {
        let mut looked_at = 0;
        loop {
            let from = looked_at;
            if let Some(at) = self.body[from..].windows(end.len()).position(|part| part == end) {
                let rest = self.body.split_off(from + at + end.len());
                let mut part = std::mem::replace(&mut self.body, rest);
                part.truncate(from + at);
                return Ok(Some(String::from_utf8(part).expect("a body in UTF-8")));
            }
            looked_at = self.body.len().saturating_sub(end.len() - 1);
            if self.ended {
                assert!(self.body.is_empty(), "cut in the middle: {:?}", String::from_utf8_lossy(&self.body));
                return Ok(None);
            }
            self.fill().await?;
            self.decode();
        }
    }

    /// Returns the next block of an event stream; `None` at its end.
    pub(super) async fn event(&mut self) -> io::Result<Option<Event>> {
        let Some(block) = self.until(b"\n\n").await? else { return Ok(None) };
        assert!(!block.contains('\r'), "{block:?}");
        let mut event = Event::default();
        for line in block.split('\n') {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            let earlier = match field {
                "" => {
                    event.comments += 1;
                    None
                }
                "id" => event.id.replace(value),
                "event" => event.name.replace(value),
                // Each is a line more of the data.
                "data" => {
                    event.data =
                        Some(event.data.take().map_or(value.clone(), |data| format!("{data}\n{value}")));
                    None
                }
                "retry" => event.retry.replace(value.parse().expect("milliseconds")).map(|_| String::new()),
                _ => panic!("a browser passes over {line:?}"),
            };
            assert_eq!(earlier, None, "a field is there twice in {block:?}");
        }
        Ok(Some(event))
    }

    /// Returns the next message; events with names are passed over.
    pub(super) async fn message(&mut self) -> io::Result<Option<Event>> {
        while let Some(event) = self.event().await? {
            if event.is_message() {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Returns the next line of an event stream.
    pub(super) async fn text_line(&mut self) -> io::Result<Option<String>> {
        self.until(b"\n").await
    }

    /// Returns the next line, as JSON; `None` at the end.
    pub(super) async fn line(&mut self) -> io::Result<Option<Value>> {
        let line = self.until(b"\n").await?;
        Ok(line.map(|line| serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"))))
    }
}

/// Returns the number that a message's payload is.
pub(super) fn number(message: &Value) -> u64 {
    message["payload"].as_u64().unwrap_or_else(|| panic!("no number in {message}"))
}
