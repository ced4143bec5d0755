//! A flight of requests on one connection, of which the last takes the connection out of HTTP, with
//! more bytes behind it; cut into pieces anywhere.
//!
//! It owns what is sent and what must come back. It must not know what carries it.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::support::pipe::Taking;
use crate::support::relay::TestRelay;
use crate::support::ws::masked;

/// A topic with messages that make a long page.
const LONG: &str = "long";
/// The topic of live streams.
const LIVE: &str = "live";
/// A topic that nobody creates: what is sent behind the request for a stream is no request.
const GHOST: &str = "ghost";

/// A request before the last one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Before {
    /// A plain publish.
    Publish,
    /// A request that gets a short answer.
    Short,
    /// A request that gets a long answer.
    Long,
}

/// The last request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Last {
    WebSocket,
    Events,
    Lines,
}

/// What is sent on one connection, and how it is taken.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    before: Vec<Before>,
    last: Last,
    /// How many frames, or requests, come behind the last request.
    behind: usize,
    cuts: Vec<Index>,
    pub(super) taking: Taking,
}

pub(super) fn flights() -> impl Strategy<Value = Flight> {
    let before = prop_oneof![Just(Before::Publish), Just(Before::Short), Just(Before::Long)];
    let last = prop_oneof![2 => Just(Last::WebSocket), 1 => Just(Last::Events), 1 => Just(Last::Lines)];
    let cuts = prop_oneof![vec(any::<Index>(), 0..4), vec(any::<Index>(), 0..200)];
    let bytes = prop_oneof![Just(usize::MAX), 7..50_usize, 50..5_000_usize];
    (vec(before, 0..5), last, 0..20_usize, cuts, bytes.clone(), bytes).prop_map(
        |(before, last, behind, cuts, at_once, after_a_wait)| Flight {
            before,
            last,
            behind,
            cuts,
            taking: Taking { at_once, after_a_wait },
        },
    )
}

/// Publishes what flights read.
pub(super) async fn prepare(relay: &TestRelay) {
    let padding = "x".repeat(500);
    for _ in 0..10 {
        relay.publish(LONG, &format!("\"{padding}\"")).await;
    }
    relay.publish(LIVE, "null").await;
}

/// Cuts bytes into pieces.
pub(super) fn cut<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect()
}

impl Flight {
    /// Returns what is sent, in pieces.
    pub(super) fn pieces(&self) -> Vec<Vec<u8>> {
        let bytes = self.bytes();
        cut(&bytes, &self.cuts).into_iter().map(<[u8]>::to_vec).collect()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, before) in self.before.iter().enumerate() {
            bytes.extend(match before {
                Before::Publish => publish("sent", number),
                Before::Short => get("/nothing", &format!("x-request-id: r{number}\r\n")),
                Before::Long => {
                    get(&format!("/api/v1/topics/{LONG}/messages"), &format!("x-request-id: r{number}\r\n"))
                }
            });
        }
        bytes.extend(match self.last {
            Last::WebSocket => get(
                "/ws",
                "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            ),
            Last::Events => get(&format!("/api/v1/topics/{LIVE}/messages"), "accept: text/event-stream\r\n"),
            Last::Lines => get(&format!("/api/v1/topics/{LIVE}/messages"), "accept: application/x-ndjson\r\n"),
        });
        for number in 0..self.behind {
            bytes.extend(match self.last {
                Last::WebSocket => masked(0x81, format!(r#"{{"type":"ping","ref":"{number}"}}"#).as_bytes()),
                Last::Events | Last::Lines => publish(GHOST, number),
            });
        }
        bytes
    }

    /// Returns whether everything has come back that the flight asked for.
    ///
    /// # Panics
    /// Something else has come back.
    pub(super) fn is_answered(&self, mut back: &[u8]) -> bool {
        for (number, before) in self.before.iter().enumerate() {
            let Some((head, rest)) = head(back) else { return false };
            let (status, id) = match before {
                Before::Publish => (201, format!("r{number}")),
                Before::Short => (404, format!("r{number}")),
                Before::Long => (200, format!("r{number}")),
            };
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "request {number}: {head}");
            assert_eq!(header(head, "x-request-id"), Some(&*id), "{head}");
            let length = header(head, "content-length").and_then(|text| text.parse().ok()).expect("a length");
            let Some(rest) = rest.get(length..) else { return false };
            back = rest;
        }
        let Some((head, rest)) = head(back) else { return false };
        match self.last {
            Last::WebSocket => {
                assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
                self.is_ponged(rest)
            }
            Last::Events | Last::Lines => {
                assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
                assert_eq!(header(head, "transfer-encoding"), Some("chunked"), "{head}");
                true
            }
        }
    }

    fn is_ponged(&self, mut frames: &[u8]) -> bool {
        for number in 0..self.behind {
            let [first, length, rest @ ..] = frames else { return false };
            let length = usize::from(*length);
            assert!(*first == 0x81 && length < 126, "a short frame");
            let Some((payload, rest)) = rest.split_at_checked(length) else { return false };
            let frame: serde_json::Value = serde_json::from_slice(payload).expect("a frame");
            assert_eq!((&frame["type"], &frame["ref"]), (&"pong".into(), &number.to_string().into()));
            frames = rest;
        }
        assert!(frames.is_empty(), "something that was not asked for: {}", frames.escape_ascii());
        true
    }

    /// Publishes to whoever reads a stream now; returns what ends the message there.
    pub(super) async fn follow_up(&self, relay: &TestRelay) -> Option<&'static str> {
        match self.last {
            Last::WebSocket => None,
            Last::Events | Last::Lines => {
                relay.publish(LIVE, r#""follow-up""#).await;
                Some(r#""follow-up""#)
            }
        }
    }

    /// Checks everything that came back until the end.
    pub(super) async fn check(&self, relay: &TestRelay, back: &[u8]) {
        assert!(self.is_answered(back), "everything is answered: {}", back.escape_ascii());
        let text = String::from_utf8_lossy(back);
        assert_eq!(text.matches("HTTP/1.1 ").count(), self.before.len() + 1, "each once: {text}");
        if !matches!(self.last, Last::WebSocket) {
            assert_eq!(text.matches(r#""follow-up""#).count(), 1, "once: {text}");
        }
        let ghost = relay.get(&format!("/api/v1/topics/{GHOST}")).await;
        assert_eq!(ghost.status, 404, "what comes behind is no request");
    }
}

fn get(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: relay\r\n{headers}\r\n").into_bytes()
}

fn publish(topic: &str, number: usize) -> Vec<u8> {
    let body = number.to_string();
    let length = body.len();
    format!("POST /api/v1/topics/{topic}/messages HTTP/1.1\r\nhost: relay\r\ncontent-type: application/json\r\nx-request-id: r{number}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

/// Returns the head of an answer, and what follows it.
fn head(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n")?;
    Some((std::str::from_utf8(&bytes[..end]).expect("a head in ASCII"), &bytes[end + 4..]))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}
