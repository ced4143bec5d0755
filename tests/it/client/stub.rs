//! A relay of a few lines that does to each connection what it is told, in JSON.
//!
//! It must not know what is tested.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use tidemill::proto::frame::{ClientFrame, Message as MessageFrame, ServerFrame, json};
use tidemill::proto::{MessageId, Timestamp};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::ground::topic;

/// What the stub does, after it has subscribed a client to `t`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    /// Sends the message with this id and number.
    Message(u64),
    /// Sends so many messages with so large payloads, as fast as they are taken.
    Large(u64, usize),
    /// Says in band that the connection ends.
    End,
    /// Closes with this code.
    Close(u16),
    /// Resets the connection.
    Cut,
}

/// A running stub.
#[derive(Debug)]
pub(super) struct Stub {
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
    /// Starts a stub that plays one script per connection; further ones it leaves open.
    pub(super) async fn start(scripts: Vec<Vec<Act>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (shared, stop) = (Arc::new(Shared::default()), CancellationToken::new());
        let (serving, tasks) = (shared.clone(), TaskTracker::new());
        tasks.clone().spawn(stop.clone().run_until_cancelled_owned(async move {
            let mut scripts = scripts.into_iter();
            loop {
                let (stream, _) = listener.accept().await.expect("it listens");
                let script = scripts.next().unwrap_or_default();
                tasks.spawn(play(stream, script, serving.clone()));
            }
        }));
        Self { port, shared, stop }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the cursors with which clients subscribed.
    pub(super) fn asked(&self) -> Vec<String> {
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

async fn play(stream: TcpStream, script: Vec<Act>, shared: Arc<Shared>) -> Option<()> {
    let mut socket = tokio_tungstenite::accept_async(stream).await.ok()?;
    let Message::Text(text) = socket.next().await?.ok()? else { return None };
    let Ok(ClientFrame::Subscribe(subscribe)) = json::read(&text) else { return None };
    shared.asked.lock().push(subscribe.cursors[0].1.clone().into_owned());
    let timestamp = Timestamp::from_millis(1);
    let topics = vec![(topic("t"), None)];
    let session_id = "stub".into();
    send(
        &mut socket,
        &ServerFrame::Subscribed {
            reference: None,
            topics,
            patterns: Vec::new(),
            absent: Vec::new(),
            session_id,
            timestamp,
        },
    )
    .await?;
    for act in script {
        match act {
            Act::Message(number) => {
                send(&mut socket, &message(number, number.to_string().as_bytes())).await?;
            }
            Act::Large(count, bytes) => {
                let payload = format!("\"{}\"", "x".repeat(bytes - 2));
                for number in 1..=count {
                    send(&mut socket, &message(number, payload.as_bytes())).await?;
                    shared.sent_bytes.fetch_add(bytes as u64, Ordering::SeqCst);
                }
            }
            Act::End => {
                let (cursors, patterns) = (Vec::new(), Vec::new());
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

fn message(number: u64, payload: &[u8]) -> ServerFrame<'_> {
    ServerFrame::Message(MessageFrame {
        message_id: MessageId::new(number, 0),
        topic: topic("t"),
        payload: payload.into(),
        content_type: None,
        timestamp: Timestamp::from_millis(number),
        metadata: None,
    })
}

async fn send(socket: &mut WebSocketStream<TcpStream>, frame: &ServerFrame<'_>) -> Option<()> {
    let mut out = Vec::new();
    json::write(frame, &mut out);
    let text = Utf8Bytes::try_from(Bytes::from(out)).expect("JSON is UTF-8");
    socket.send(Message::Text(text)).await.ok()
}
