//! The fast path of a connection: requests that are eligible are read and answered here, as long
//! as no other one comes.
//!
//! Which are eligible is told by one rule: whatever could be read in two ways, or asks for anything but
//! an answer, is handed to the HTTP library with every byte that has arrived, and the connection stays
//! there. So nothing is decided here about a request that is not understood.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::http::fast_path::{self, Ready};
use crate::http::{Http, Known};
use crate::limits::Peer;
use crate::link::{Outbox, Transport, with_arrivals};

/// Most bytes of a request. A longer one is for the HTTP library.
const REQUEST_BYTES_MAX: usize = fast_path::BODY_BYTES_MAX + 8 * 1024;
/// Most headers of a request.
const HEADERS_MAX: usize = 32;
/// How long the rest of a body is waited for.
const BODY_WAIT: Duration = Duration::from_millis(500);

/// What connections are served with here.
#[derive(Clone, Debug)]
pub(super) struct FastPath {
    pub(super) http: Http,
    pub(super) header_timeout: Duration,
    pub(super) write_timeout: Duration,
}

/// How a connection leaves the fast path.
pub(super) enum Exit {
    /// It has ended.
    Closed,
    /// The last answer said that it ends.
    Answered,
    /// The HTTP library takes it from here, with what has arrived.
    Leaves(Bytes),
}

/// What bytes come to.
enum Parsed {
    /// A request that has arrived.
    Request(Request),
    /// The beginning of a request.
    Head,
    /// The head and a part of the body of a request.
    Body,
    /// Not eligible.
    Other,
}

struct Request {
    /// In a box: it is handed on several times, and would be copied each time.
    ready: Box<Ready>,
    /// How many bytes it has.
    len: usize,
    /// Whether the client wants the connection to end with the answer.
    closing: bool,
}

/// What a look at the socket comes to.
enum Arrival {
    Parsed(Parsed),
    /// The client has hung up.
    End,
    /// Nothing came in the time that it had.
    Late,
    /// The node drains.
    Draining,
}

impl FastPath {
    /// Answers requests until one comes that is not eligible, or the connection ends.
    /// Once `draining` is cancelled, no more is waited for; where the connection `is_late`, it ends with its first answer.
    pub(super) async fn serve(
        &self,
        transport: &dyn Transport,
        peer: Peer,
        draining: &CancellationToken,
        is_late: bool,
    ) -> io::Result<Exit> {
        let mut waiting = Arriving {
            arrived: Vec::new(),
            peer,
            known: None,
            timer: pin!(sleep_until(Instant::now() + self.header_timeout)),
            draining: pin!(draining.cancelled()),
        };
        let mut deadline = waiting.timer.deadline();
        let mut outbox = Outbox::default();
        loop {
            let mut reading = self.read(&waiting.arrived, peer, &mut waiting.known);
            while matches!(reading, Parsed::Head | Parsed::Body) {
                if matches!(reading, Parsed::Body) {
                    deadline = deadline.min(Instant::now() + BODY_WAIT);
                }
                reading = match poll_fn(|cx| waiting.poll(cx, self, transport, deadline)).await? {
                    Arrival::Parsed(reading) => reading,
                    Arrival::Late | Arrival::End if matches!(reading, Parsed::Body) => Parsed::Other,
                    Arrival::Draining if !waiting.arrived.is_empty() => Parsed::Other,
                    Arrival::End | Arrival::Late | Arrival::Draining => return Ok(Exit::Closed),
                };
            }
            let Parsed::Request(Request { ready, len, closing }) = reading else {
                return Ok(Exit::Leaves(waiting.arrived.into()));
            };
            waiting.arrived.drain(..len);
            if waiting.arrived.is_empty() {
                waiting.arrived = Vec::new();
            }
            let closing = closing || is_late || draining.is_cancelled();
            let mut written = self.http.answer_eligible(ready, closing).await;
            *outbox.own() = std::mem::take(&mut written.answer);
            transport.flush(&mut outbox, self.write_timeout).await?;
            let now = Instant::now();
            waiting.known = Some(self.http.written(written, now));
            if closing {
                return Ok(Exit::Answered);
            }
            deadline = now + self.header_timeout;
        }
    }

    fn read(&self, bytes: &[u8], peer: Peer, known: &mut Option<Box<Known>>) -> Parsed {
        if bytes.is_empty() {
            return Parsed::Head;
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let head_bytes = match request.parse(bytes) {
            Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
            Ok(httparse::Status::Partial) if bytes.len() < REQUEST_BYTES_MAX => return Parsed::Head,
            Ok(httparse::Status::Partial) | Err(_) => return Parsed::Other,
        };
        let Some(route) = fast_path::route(&request) else { return Parsed::Other };
        let Some(Eligible { body_bytes, closing }) = eligible(&request) else { return Parsed::Other };
        let len = head_bytes + body_bytes;
        if body_bytes > fast_path::BODY_BYTES_MAX || len > REQUEST_BYTES_MAX {
            return Parsed::Other;
        }
        let Some(body) = bytes.get(head_bytes..len) else { return Parsed::Body };
        match self.http.read_eligible(route, &request, body, peer, known) {
            Some(ready) => Parsed::Request(Request { ready, len, closing }),
            None => Parsed::Other,
        }
    }
}

/// A connection that waits for bytes.
struct Arriving<'a, D> {
    /// What has arrived and is not answered.
    arrived: Vec<u8>,
    /// Where it comes from.
    peer: Peer,
    /// Who sent the last request.
    known: Option<Box<Known>>,
    /// Ends at a deadline or before it: it is not set anew for every request.
    timer: Pin<&'a mut Sleep>,
    draining: Pin<&'a mut D>,
}

impl<D: Future<Output = ()>> Arriving<'_, D> {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        fast_path: &FastPath,
        transport: &dyn Transport,
        deadline: Instant,
    ) -> Poll<io::Result<Arrival>> {
        if let Poll::Ready(arrival) = self.poll_read(cx, fast_path, transport)? {
            return Poll::Ready(Ok(arrival));
        }
        if self.draining.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(Arrival::Draining));
        }
        if self.timer.deadline() > deadline {
            self.timer.as_mut().reset(deadline);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(Ok(Arrival::Late));
            }
            self.timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// Reads what has arrived, behind what had arrived before.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        fast_path: &FastPath,
        transport: &dyn Transport,
    ) -> Poll<io::Result<Arrival>> {
        with_arrivals(|arrivals| {
            let count = ready!(transport.poll_read(cx, arrivals))?;
            let bytes = &arrivals[..count];
            if bytes.is_empty() {
                return Poll::Ready(Ok(Arrival::End));
            }
            if self.arrived.is_empty() {
                // A request that comes in one piece, as most do, is read where it lies.
                let reading = fast_path.read(bytes, self.peer, &mut self.known);
                if let Parsed::Request(request) = reading {
                    self.arrived.extend_from_slice(&bytes[request.len..]);
                    let request = Request { len: 0, ..request };
                    return Poll::Ready(Ok(Arrival::Parsed(Parsed::Request(request))));
                }
                self.arrived.extend_from_slice(bytes);
                return Poll::Ready(Ok(Arrival::Parsed(reading)));
            }
            self.arrived.extend_from_slice(bytes);
            let reading = fast_path.read(&self.arrived, self.peer, &mut self.known);
            Poll::Ready(Ok(Arrival::Parsed(reading)))
        })
    }
}

/// What an eligible head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Eligible {
    body_bytes: usize,
    closing: bool,
}

/// Returns what a head says that asks for nothing but an answer and can be read in one way only (RFC 9112
/// sections 3.2 and 6.3, RFC 9110 sections 7.6.1, 7.8 and 10.1.1).
fn eligible(request: &httparse::Request<'_, '_>) -> Option<Eligible> {
    if request.version != Some(1) {
        return None;
    }
    let (mut length, mut has_host, mut connection) = (None, false, None);
    for header in &*request.headers {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let digits = std::str::from_utf8(header.value).ok()?;
            let is_number =
                (1..=9).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
            if !is_number || length.replace(digits.parse().ok()?).is_some() {
                return None;
            }
        } else if is("host") {
            if std::mem::replace(&mut has_host, true) {
                return None;
            }
        } else if is("connection") {
            let closing = header.value.eq_ignore_ascii_case(b"close");
            let is_known = closing || header.value.eq_ignore_ascii_case(b"keep-alive");
            if !is_known || connection.replace(closing).is_some() {
                return None;
            }
        } else if ["transfer-encoding", "te", "trailer", "upgrade", "expect"].into_iter().any(is) {
            return None;
        }
    }
    has_host.then_some(Eligible { body_bytes: length?, closing: connection.unwrap_or(false) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str) -> Option<(usize, bool)> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let text = format!("{head}\n\n");
        let parsed = request.parse(text.as_bytes()).expect("a head");
        assert!(parsed.is_complete());
        eligible(&request).map(|Eligible { body_bytes, closing }| (body_bytes, closing))
    }

    #[test]
    fn only_what_is_eligible_stays() {
        let eligible = "POST / HTTP/1.1\nHost: a\nContent-Length: 12";
        assert_eq!(read(eligible), Some((12, false)));
        assert_eq!(read(&format!("{eligible}\nConnection: Keep-Alive\nAccept: */*")), Some((12, false)));
        assert_eq!(read(&format!("{eligible}\nconnection: close")), Some((12, true)));
        for more in [
            "Content-Length: 12",
            "Host: a",
            "Connection: close, keep-alive",
            "Connection: close\nConnection: close",
            "Connection: keep-alive, x-a",
            "Transfer-Encoding: chunked",
            "transfer-encoding: identity",
            "TE: trailers",
            "Trailer: x-a",
            "Upgrade: websocket",
            "Expect: 100-continue",
        ] {
            assert_eq!(read(&format!("{eligible}\n{more}")), None, "{more}");
        }
        for length in ["", "+12", "-1", "0x12", "1 2", "12, 12", "1234567890", "٣"] {
            let head = format!("POST / HTTP/1.1\nHost: a\nContent-Length: {length}");
            assert_eq!(read(&head), None, "{length}");
        }
        assert_eq!(read("POST / HTTP/1.1\nContent-Length: 12"), None, "no host");
        assert_eq!(read("POST / HTTP/1.0\nHost: a\nContent-Length: 12"), None, "HTTP/1.0");
        assert_eq!(read("POST / HTTP/1.1\nHost: a"), None, "no length");
    }
}
