//! A relay of a few lines that does to each connection what it is told, in JSON.
//!
//! It must not know what is tested.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use tidemill::proto::frame::{ClientFrame, Message as MessageFrame, ServerFrame, Subscribe, json};
use tidemill::proto::{Gap, GapReason, MessageId, PatternCursor, Timestamp, TopicPattern, TopicSelector};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::ground::topic;

/// What the stub does, after it has subscribed a client.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// Sends the message with this id and number, of `t`.
    Message(u64),
    /// Sends that of another topic.
    MessageOf(&'static str, u64),
    /// Says that a topic was made again, after this id, and from this one on.
    Reset(&'static str, u64, u64),
    /// Tells the cursor of a pattern.
    Cursor(&'static str, &'static str),
    /// Sends so many messages with so large payloads, as fast as they are taken.
    Large(u64, usize),
    /// Says in band that the connection ends.
    End,
    /// And tells the cursor of a pattern with it.
    EndWith(&'static str, &'static str),
    /// Closes with this code.
    Close(u16),
    /// Resets the connection.
    Cut,
}

/// A running stub.
#[derive(Debug)]
pub(crate) struct Stub {
    port: u16,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct Shared {
    asked: Mutex<Vec<String>>,
    sent_bytes: AtomicU64,
}

impl Stub {
    /// Starts a stub that plays one script per WebSocket; further ones it leaves open.
    pub(crate) async fn start(scripts: Vec<Vec<Act>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (shared, stop) = (Arc::new(Shared::default()), CancellationToken::new());
        let (serving, tasks) = (shared.clone(), TaskTracker::new());
        tasks.clone().spawn(stop.clone().run_until_cancelled_owned(async move {
            let scripts = Arc::new(Mutex::new(VecDeque::from(scripts)));
            loop {
                let (stream, _) = listener.accept().await.expect("it listens");
                tasks.spawn(play(stream, scripts.clone(), serving.clone()));
            }
        }));
        Self { port, shared, stop }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the cursors with which clients subscribed, those of one frame together.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().clone()
    }

    /// Returns how many bytes clients and kernels have taken so far.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.shared.sent_bytes.load(Ordering::SeqCst)
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn play(stream: TcpStream, scripts: Arc<Mutex<VecDeque<Vec<Act>>>>, shared: Arc<Shared>) -> Option<()> {
    // What asks in HTTP gets no answer, and takes no script.
    let mut socket = tokio_tungstenite::accept_async(stream).await.ok()?;
    let script = scripts.lock().pop_front().unwrap_or_default();
    let Message::Text(text) = socket.next().await?.ok()? else { return None };
    let Ok(ClientFrame::Subscribe(subscribe)) = json::read(&text) else { return None };
    let cursors: Vec<_> = subscribe.cursors.iter().map(|(_, cursor)| cursor.as_ref()).collect();
    shared.asked.lock().push(cursors.join(" "));
    send(&mut socket, &subscribed(&subscribe)).await?;
    for act in script {
        match act {
            Act::Message(number) => {
                send(&mut socket, &message("t", number, number.to_string().as_bytes())).await?;
            }
            Act::MessageOf(name, number) => {
                send(&mut socket, &message(name, number, number.to_string().as_bytes())).await?;
            }
            Act::Reset(name, from, to) => {
                let (from, to) = (MessageId::new(from, 0), MessageId::new(to, 0));
                let gap = Gap { topic: topic(name), from, to, reason: GapReason::Reset, missed: None };
                send(&mut socket, &ServerFrame::Gap(gap)).await?;
            }
            Act::Cursor(of, told) => {
                send(&mut socket, &ServerFrame::Cursor { pattern: pattern(of), cursor: cursor(told) })
                    .await?;
            }
            Act::Large(count, bytes) => {
                let payload = format!("\"{}\"", "x".repeat(bytes - 2));
                for number in 1..=count {
                    send(&mut socket, &message("t", number, payload.as_bytes())).await?;
                    shared.sent_bytes.fetch_add(bytes as u64, Ordering::SeqCst);
                }
            }
            Act::End => {
                let (cursors, patterns) = (Vec::new(), Vec::new());
                send(&mut socket, &ServerFrame::End { reason: "bye".into(), cursors, patterns }).await?;
            }
            Act::EndWith(of, told) => {
                let (cursors, patterns) = (Vec::new(), vec![(pattern(of), cursor(told))]);
                send(&mut socket, &ServerFrame::End { reason: "bye".into(), cursors, patterns }).await?;
            }
            Act::Close(code) => {
                let frame = CloseFrame { code: code.into(), reason: "because".into() };
                socket.close(Some(frame)).await.ok()?;
            }
            Act::Cut => {
                socket.get_ref().set_zero_linger().ok()?;
                return None;
            }
        }
    }
    while socket.next().await?.is_ok() {}
    Some(())
}

fn pattern(text: &str) -> TopicPattern {
    TopicPattern::parse(text).expect("a valid pattern")
}

fn cursor(text: &str) -> PatternCursor {
    PatternCursor::parse(text).expect("a valid cursor")
}

/// Returns the answer to `subscribe`: topics begin with their oldest message, patterns where they are asked to, or
/// at the cursor `p1.0`.
fn subscribed(asked: &Subscribe<'_>) -> ServerFrame<'static> {
    let (mut topics, mut patterns) = (Vec::new(), Vec::new());
    for selector in &asked.topics {
        match TopicSelector::parse(selector).expect("a name or a pattern") {
            TopicSelector::Topic(topic) => topics.push((topic, MessageId::MIN)),
            TopicSelector::Pattern(pattern) => {
                let told = asked.cursors.iter().find(|(of, _)| of == selector);
                let told = told.and_then(|(_, told)| PatternCursor::parse(told).ok());
                patterns.push((pattern, told.unwrap_or_else(|| cursor("p1.0"))));
            }
        }
    }
    ServerFrame::Subscribed {
        reference: None,
        topics,
        patterns,
        absent: Vec::new(),
        session_id: "stub".into(),
        timestamp: Timestamp::from_millis(1),
    }
}

fn message<'a>(name: &str, number: u64, payload: &'a [u8]) -> ServerFrame<'a> {
    ServerFrame::Message(MessageFrame {
        message_id: MessageId::new(number, 0),
        topic: topic(name),
        payload: payload.into(),
        content_type: None,
        timestamp: Timestamp::from_millis(number),
        metadata: None,
        order_key: None,
    })
}

async fn send(socket: &mut WebSocketStream<TcpStream>, frame: &ServerFrame<'_>) -> Option<()> {
    let mut out = Vec::new();
    json::write(frame, &mut out);
    let text = Utf8Bytes::try_from(Bytes::from(out)).expect("JSON is UTF-8");
    socket.send(Message::Text(text)).await.ok()
}
