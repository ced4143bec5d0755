//! A client asks a node; where that is not there, it asks the other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidemill::proto::Code;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::World;
use crate::support::relay::{Answer, request};

/// What a client knows of something that it has asked for.
#[derive(Debug)]
pub(super) enum Told {
    Answer(Answer),
    /// Certainly nothing was done.
    Nothing,
    Unknown,
}

/// A request.
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a str,
}

/// The way of one client to the nodes.
#[derive(Debug)]
pub(super) struct Door {
    world: Arc<World>,
    node: usize,
    /// Until when it tries again.
    until: Instant,
    /// What its idempotency keys, its values and its names as a holder begin with: nobody else has them.
    name: String,
    count: u64,
}

impl Door {
    pub(super) fn new(world: Arc<World>, client: u64, until: Instant, name: String) -> Self {
        Self { world, node: usize::from(!client.is_multiple_of(2)), until, name, count: 0 }
    }

    /// Returns a name that was not given before.
    pub(super) fn name(&mut self) -> String {
        self.count += 1;
        format!("{}-{}", self.name, self.count)
    }

    pub(super) fn has_time(&self) -> bool {
        Instant::now() < self.until
    }

    /// Has it ask the other node from now on.
    pub(super) fn turn(&mut self) {
        self.node = 1 - self.node;
    }

    /// Asks once.
    pub(super) async fn ask(&mut self, asked: &Asked<'_>) -> Told {
        let told = exchange(self.world.nodes[self.node], asked).await;
        match &told {
            Told::Answer(_) => {}
            Told::Nothing | Told::Unknown => {
                if matches!(told, Told::Unknown) {
                    self.world.unknown.fetch_add(1, Ordering::Relaxed);
                }
                self.node = 1 - self.node;
                sleep(Duration::from_millis(20)).await;
            }
        }
        told
    }

    /// Asks until somebody answers that something was done or not, or there is no time any more.
    pub(super) async fn ask_until_told(&mut self, asked: &Asked<'_>) -> Told {
        let mut is_open = false;
        loop {
            match self.ask(asked).await {
                Told::Answer(answer) => return Told::Answer(answer),
                Told::Nothing if !is_open => return Told::Nothing,
                Told::Nothing => {}
                Told::Unknown => is_open = true,
            }
            if !self.has_time() {
                return Told::Unknown;
            }
        }
    }
}

async fn exchange(node: SocketAddr, asked: &Asked<'_>) -> Told {
    let Asked { method, path, headers, body } = asked;
    let Ok(mut stream) = TcpStream::connect(node).await else { return Told::Nothing };
    let mut all = Vec::new();
    let talk = async {
        stream.write_all(&request(method, path, headers, body.as_bytes())).await.ok()?;
        stream.read_to_end(&mut all).await.ok()
    };
    timeout(Duration::from_secs(20), talk).await.expect("a node answers, or it is gone");
    if !is_whole(&all) {
        return Told::Unknown;
    }
    let answer = Answer::parse(&all);
    if answer.status < 500 {
        return Told::Answer(answer);
    }
    match answer.problem().code {
        // The last one is of reads, which do nothing anyway.
        Code::StorageUnavailable | Code::Overloaded | Code::StorageTimeout => Told::Nothing,
        Code::OutcomeUnknown => Told::Unknown,
        _ => panic!("{method} {path}: {answer:?}"),
    }
}

fn is_whole(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    bytes.len() - end - 4 >= length.unwrap_or(0)
}
