//! A load for `JetStream`: publishes over one connection with a window, and counts acknowledgements.
//!
//! It is made as `tidemill bench publish --mode ws` is: what may be sent is gathered and written with
//! one call, answers are read meanwhile, and a message counts if it was sent and acknowledged within
//! the measured time. At the end it asks the server how many messages the stream has got.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// Bytes that are gathered before they are written.
const OUT_BYTES: usize = 64 * 1024;
const IN_BYTES: usize = 64 * 1024;
/// How long what is under way may take at the end.
const GRACE: Duration = Duration::from_secs(10);
/// Where answers go: the rest of the subject is the number of a place in the window.
const INBOX: &str = "_INBOX.bench.";
const PLACE_DIGITS: usize = 6;
/// The place that answers to questions go to.
const QUESTION: u32 = 999_999;
const STREAM: &str = "BENCH";
const SUBJECT: &str = "bench";
/// As many as Tidemill keeps of a topic.
const KEEP: u32 = 1_000_000;

/// What is published.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) window: u32,
    pub(crate) payload_bytes: u32,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
}

/// A piece of what the server sends.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Message { place: u32, payload: &'a [u8] },
    Ping,
    Other,
}

struct Connection {
    stream: TcpStream,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    filled: usize,
}

/// Publishes, and returns what was measured.
pub(crate) async fn run(server: SocketAddr, load: &Load) -> Result<Value, String> {
    let deadline = Instant::now() + load.warm_up + load.duration + GRACE;
    let whole = timeout_at(deadline, publish(server, load)).await;
    whole.unwrap_or_else(|_| Err("nats-server did not answer in time".to_owned()))
}

async fn publish(server: SocketAddr, load: &Load) -> Result<Value, String> {
    let stream = TcpStream::connect(server).await.map_err(|error| format!("cannot connect: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let mut connection = Connection { stream, outgoing: Vec::new(), incoming: vec![0; IN_BYTES], filled: 0 };
    let hello = format!("CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB {INBOX}* 1\r\n");
    connection.outgoing.extend_from_slice(hello.as_bytes());
    let create = json!({
        "name": STREAM, "subjects": [SUBJECT], "storage": "file", "retention": "limits", "discard": "old",
        "max_msgs": KEEP, "max_bytes": -1, "max_age": 0, "max_consumers": -1, "num_replicas": 1,
    });
    connection.ask("STREAM.CREATE", &create.to_string()).await?;

    let payload = "x".repeat(load.payload_bytes as usize);
    let request = |place: u32| {
        let bytes = payload.len();
        format!("PUB {SUBJECT} {INBOX}{place:0PLACE_DIGITS$} {bytes}\r\n{payload}\r\n").into_bytes()
    };
    // Built once: publishing is copying.
    let requests: Vec<Vec<u8>> = (0..load.window).map(request).collect();
    let from = Instant::now() + load.warm_up;
    let until = from + load.duration;
    let mut free: Vec<u32> = (0..load.window).collect();
    let mut starts = vec![from; requests.len()];
    let (mut published, mut counted) = (0_u64, 0_u64);
    let mut times = Vec::new();
    loop {
        let now = Instant::now();
        while now < until && connection.outgoing.len() < OUT_BYTES {
            let Some(place) = free.pop() else { break };
            starts[place as usize] = now;
            published += 1;
            connection.outgoing.extend_from_slice(&requests[place as usize]);
        }
        if now >= until && free.len() == requests.len() && connection.outgoing.is_empty() {
            break;
        }
        connection.exchange().await?;
        let done = Instant::now();
        connection.take(|place, payload| {
            let start = *starts.get(place as usize).ok_or("an answer to nothing")?;
            if !payload.starts_with(br#"{"stream""#) {
                return Err(format!("refused: {}", String::from_utf8_lossy(payload)));
            }
            free.push(place);
            if start >= from && done <= until {
                counted += 1;
                times.push(done - start);
            }
            Ok(())
        })?;
    }
    let info = connection.ask("STREAM.INFO", "").await?;
    let stored = info["state"]["last_seq"].as_u64().unwrap_or_default();
    if stored != published {
        return Err(format!("{published} messages were acknowledged, and {stored} are in the stream"));
    }
    times.sort_unstable();
    let quantile = |hundredths: usize| times.get(times.len() * hundredths / 100).map(Duration::as_micros);
    #[expect(clippy::cast_precision_loss, reason = "a run counts far fewer than 2^52 messages")]
    let per_second = counted as f64 / load.duration.as_secs_f64();
    Ok(json!({
        "published": published, "stored": stored, "count": counted, "per_second": per_second,
        "p50_us": quantile(50), "p99_us": quantile(99),
    }))
}

impl Connection {
    /// Asks the server for something of `JetStream`.
    async fn ask(&mut self, what: &str, body: &str) -> Result<Value, String> {
        let length = body.len();
        let ask = format!("PUB $JS.API.{what}.{STREAM} {INBOX}{QUESTION} {length}\r\n{body}\r\n");
        self.outgoing.extend_from_slice(ask.as_bytes());
        let mut answer = None;
        while answer.is_none() {
            self.exchange().await?;
            self.take(|place, payload| {
                if place == QUESTION {
                    answer =
                        Some(serde_json::from_slice::<Value>(payload).map_err(|error| error.to_string())?);
                }
                Ok(())
            })?;
        }
        let answer = answer.unwrap_or_default();
        match &answer["error"] {
            Value::Null => Ok(answer),
            error => Err(format!("{what} was refused: {error}")),
        }
    }

    /// Writes what can be written, and reads what is there.
    async fn exchange(&mut self) -> Result<(), String> {
        let interest = if self.outgoing.is_empty() {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        };
        let ready = self.stream.ready(interest).await.map_err(|error| error.to_string())?;
        if ready.is_writable() && !self.outgoing.is_empty() {
            match self.stream.try_write(&self.outgoing) {
                Ok(bytes) => drop(self.outgoing.drain(..bytes)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(format!("cannot send: {error}")),
            }
        }
        if ready.is_readable() {
            if self.filled == self.incoming.len() {
                return Err("an answer that is too large".to_owned());
            }
            match self.stream.try_read(&mut self.incoming[self.filled..]) {
                Ok(0) => return Err("nats-server closed the connection".to_owned()),
                Ok(bytes) => self.filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(format!("cannot read: {error}")),
            }
        }
        Ok(())
    }

    /// Calls `found` with the place and the payload of every whole message that was read.
    fn take(&mut self, mut found: impl FnMut(u32, &[u8]) -> Result<(), String>) -> Result<(), String> {
        let mut at = 0;
        while let Some((piece, bytes)) = piece(&self.incoming[at..self.filled])? {
            at += bytes;
            match piece {
                Piece::Message { place, payload } => found(place, payload)?,
                Piece::Ping => self.outgoing.extend_from_slice(b"PONG\r\n"),
                Piece::Other => {}
            }
        }
        self.incoming.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(())
    }
}

/// Returns the first piece and its bytes; `None` if it is not whole.
fn piece(bytes: &[u8]) -> Result<Option<(Piece<'_>, usize)>, String> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let line = std::str::from_utf8(&bytes[..end]).unwrap_or_default().trim_end();
    let head = end + 1;
    let Some(rest) = line.strip_prefix("MSG ") else {
        return match line.split(' ').next() {
            Some("PING") => Ok(Some((Piece::Ping, head))),
            Some("INFO" | "PONG" | "+OK") => Ok(Some((Piece::Other, head))),
            _ => Err(format!("nats-server said {line:?}")),
        };
    };
    let unreadable = || format!("nats-server said {line:?}");
    let length: usize = rest.rsplit(' ').next().unwrap_or_default().parse().map_err(|_| unreadable())?;
    let Some(payload) = bytes.get(head..head + length) else { return Ok(None) };
    let whole = head + length + 2;
    if bytes.len() < whole {
        return Ok(None);
    }
    let place = rest.strip_prefix(INBOX).and_then(|rest| rest.get(..PLACE_DIGITS));
    let place = place.and_then(|digits| digits.parse().ok()).ok_or_else(unreadable)?;
    Ok(Some((Piece::Message { place, payload }, whole)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read_once_they_are_whole() {
        let wire = b"MSG _INBOX.bench.000042 1 7\r\n{\"a\":1}\r\nPING\r\n";
        let whole = wire.len() - b"PING\r\n".len();
        for cut in 0..whole {
            assert_eq!(piece(&wire[..cut]), Ok(None), "cut at {cut}");
        }
        let message = Piece::Message { place: 42, payload: br#"{"a":1}"# };
        assert_eq!(piece(wire), Ok(Some((message, whole))));
        assert_eq!(piece(&wire[whole..]), Ok(Some((Piece::Ping, 6))));
        assert_eq!(piece(b"INFO {}\r\n"), Ok(Some((Piece::Other, 9))));
        assert!(piece(b"-ERR 'no'\r\n").is_err());
    }
}
