//! R17: a crowd that connects at once, each reader with its cursor; and comes back at once when the relay
//! was killed.
//!
//! The relay is a process of its own, so that both ends of so many connections can be open.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use memchr::memmem;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidemill::proto::MessageId;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep};

use crate::support::dice::Dice;
use crate::support::eventually;
use crate::support::length;
use crate::support::process::Relay;
use crate::support::raw::{RawConnection, Stream};
use crate::support::relay::try_send;
use crate::support::server::{Kind, Server};

/// How many readers the row wants. Where fewer files may be open there are fewer, but no fewer than
/// [`CROWD_MIN`].
const CROWD: u64 = 20_000;
const CROWD_MIN: u64 = 500;

/// Files that a process opens besides: threads, pipes, the backend.
const OTHER_FILES: u64 = 200;

/// How long a herd of this size may take, on a machine that does other things, too.
const PATIENCE: Duration = Duration::from_secs(150);

/// What the relay may take for each reader. A debug build takes more than what is shipped.
const BYTES_PER_READER_MAX: u64 = 64 * 1024;

const PATH: &str = "/api/v1/topics/herd/messages";

/// Numbers that were there before anybody came, that came while all were there, and that came after
/// the relay was killed: the last one of each.
const STAGES: [u64; 3] = [99, 102, 105];

/// Raises the limit on open files, and returns how many readers there can be.
fn crowd() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the maximum it may");
    let crowd = maximum.map_or(CROWD, |maximum| CROWD.min(maximum.saturating_sub(OTHER_FILES)));
    assert!(crowd >= CROWD_MIN, "{crowd} readers: the limit on open files is too low for this test");
    length::tell(format_args!("{crowd} readers, of {CROWD} that the row wants"));
    crowd
}

/// Publishes the numbers, each as one message, and returns the ids. Beside such a crowd an answer can come
/// late: under its key a message is kept once.
async fn publish(relay: SocketAddr, numbers: std::ops::RangeInclusive<u64>) -> Vec<MessageId> {
    let mut ids = Vec::new();
    for number in numbers {
        let key = format!("herd-{number}");
        let headers = [("content-type", "application/json"), ("idempotency-key", key.as_str())];
        let body = number.to_string();
        let id = loop {
            let answer = try_send(relay, "POST", PATH, &headers, body.as_bytes()).await.expect("an answer");
            match answer.status {
                200 | 201 => break answer.json()["message_id"].as_str().and_then(|id| id.parse().ok()),
                503 | 504 => println!("publishing again: {}", answer.text()),
                _ => panic!("{answer:?}"),
            }
        };
        ids.push(id.expect("an id"));
    }
    ids
}

/// One of the crowd.
#[derive(Debug)]
struct Reader {
    relay: SocketAddr,
    place: u64,
    last: (u64, MessageId),
    reached: Arc<[AtomicUsize; STAGES.len()]>,
    attaches: Arc<AtomicUsize>,
}

impl Reader {
    /// Reads to the last number, attaching again wherever it is cut off.
    async fn run(mut self, mut dice: Dice) {
        loop {
            let read = match self.place % 3 {
                0 => self.on_a_socket().await,
                1 => self.by_events().await,
                _ => self.by_polling().await,
            };
            if read.is_ok() {
                return;
            }
            sleep(Duration::from_millis(20 + dice.roll(200))).await;
        }
    }

    async fn connect(&self) -> io::Result<RawConnection> {
        // Several addresses, so that no two connections share their ends.
        let from = Ipv4Addr::new(127, 0, 0, u8::try_from(2 + self.place % 8).expect("small"));
        let connection = RawConnection::connect_from(from, self.relay, PATIENCE).await?;
        self.attaches.fetch_add(1, Ordering::SeqCst);
        Ok(connection)
    }

    /// Takes all messages in `bytes`, which may also hold none. Returns whether that was the last one.
    fn take(&mut self, bytes: &[u8]) -> bool {
        assert!(memmem::find(bytes, b"missed").is_none(), "a gap: {}", String::from_utf8_lossy(bytes));
        let (id, payload) = (br#""message_id":""#, br#""payload":"#);
        for at in memmem::find_iter(bytes, id) {
            let rest = &bytes[at + id.len()..];
            let id = rest.split(|byte| *byte == b'"').next().and_then(|id| std::str::from_utf8(id).ok());
            let number = memmem::find(rest, payload).map(|at| &rest[at + payload.len()..]);
            let number = number.and_then(|rest| rest.split(|byte| !byte.is_ascii_digit()).next());
            let number = number.and_then(|number| std::str::from_utf8(number).ok()?.parse::<u64>().ok());
            let (id, number) = id.and_then(|id| id.parse().ok()).zip(number).expect("a message");
            assert_eq!(number, self.last.0 + 1, "reader {}", self.place);
            self.last = (number, id);
            if let Some(stage) = STAGES.iter().position(|last| *last == number) {
                self.reached[stage].fetch_add(1, Ordering::SeqCst);
            }
        }
        self.last.0 == STAGES[2]
    }

    async fn on_a_socket(&mut self) -> io::Result<()> {
        let mut connection = self.connect().await?;
        connection.upgrade(None).await?;
        let cursor = self.last.1;
        let subscribe = format!(r#"{{"type":"subscribe","topics":["herd"],"offset":"{cursor}"}}"#);
        connection.send_frame(0x81, subscribe.as_bytes()).await?;
        loop {
            match connection.frame().await? {
                (0x81, text) if memmem::find(&text, br#""type":"error""#).is_some() => {
                    let text = String::from_utf8_lossy(&text).into_owned();
                    assert!(text.contains(r#""retryable":true"#), "{text}");
                    return Err(io::Error::other(text));
                }
                (0x81, text) => {
                    if self.take(&text) {
                        return Ok(());
                    }
                }
                (0x89, ping) => connection.send_frame(0x8A, &ping).await?,
                (first, _) => assert_eq!(first, 0x88, "a frame"),
            }
        }
    }

    async fn by_events(&mut self) -> io::Result<()> {
        let connection = self.connect().await?;
        let header = format!("last-event-id: {}\r\n", self.last.1);
        let mut stream = Stream::open_on(connection, PATH, "text/event-stream", &header).await?;
        while !self.take(&stream.until(b"\n\n").await?) {}
        Ok(())
    }

    async fn by_polling(&mut self) -> io::Result<()> {
        let mut connection = self.connect().await?;
        loop {
            let since = self.last.1;
            let body = format!(r#"{{"topics":["herd"],"since":{{"herd":"{since}"}},"timeout":60}}"#);
            let (status, body) =
                connection.exchange("POST", "/messages/poll", "application/json", &body).await?;
            if status == 503 {
                // A relay that was started a moment ago may not have its storage yet, and says so.
                return Err(io::Error::other("not yet"));
            }
            assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
            if self.take(&body) {
                return Ok(());
            }
        }
    }
}

/// Counts the commands that the server has answered to read streams.
async fn storage_reads(server: &Server) -> u64 {
    let stats = server.command(&["INFO", "commandstats"]).await.text();
    let calls = |name: &str| {
        let line = stats.lines().find_map(|line| line.strip_prefix(name))?;
        line.strip_prefix(":calls=")?.split(',').next()?.parse::<u64>().ok()
    };
    ["cmdstat_xrange", "cmdstat_xread", "cmdstat_xrevrange"].into_iter().filter_map(calls).sum()
}

/// Waits until all have come so far; none may fail.
async fn until_all(reached: &AtomicUsize, crowd: u64, readers: &mut JoinSet<()>) {
    let readers = std::cell::RefCell::new(readers);
    eventually(PATIENCE, || {
        while let Some(reader) = readers.borrow_mut().try_join_next() {
            reader.expect("a reader");
        }
        std::future::ready(reached.load(Ordering::SeqCst) as u64 == crowd)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_comes_at_once_and_comes_back_gets_everything() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let (crowd, dice) = (crowd(), Dice::cast());
    let url = format!("redis://127.0.0.1:{}", server.port());
    let start = async |listen: &str| {
        let variables = [
            ("STORAGE_BACKEND", "valkey"),
            ("VALKEY_URL", url.as_str()),
            // So that nobody of the crowd is refused, and the one who looks on is not, either.
            ("TIDEMILL_CONNECTIONS_MAX", "21000"),
        ];
        Relay::ready_at(listen, &variables, &[]).await
    };
    let relay = start("127.0.0.1:0").await;
    let address = relay.address();
    let ids = publish(address, 0..=STAGES[0]).await;
    let before = relay.resident_bytes();

    let (reached, attaches) = (Arc::<[AtomicUsize; STAGES.len()]>::default(), Arc::<AtomicUsize>::default());
    let mut readers = JoinSet::new();
    let began = Instant::now();
    for place in 0..crowd {
        let from = 49 + place % 50;
        let id = ids[usize::try_from(from).expect("small")];
        let (reached, attaches) = (reached.clone(), attaches.clone());
        let reader = Reader { relay: address, place, last: (from, id), reached, attaches };
        readers.spawn(reader.run(dice.of(place)));
    }
    until_all(&reached[0], crowd, &mut readers).await;
    length::tell(format_args!("all have their history {:.1?} after they came", began.elapsed()));
    let reads = storage_reads(&server).await;
    let bytes = relay.resident_bytes().saturating_sub(before);
    length::tell(format_args!("{reads} reads of the storage, {} KiB for each reader", bytes / crowd / 1024));
    assert!(bytes < crowd * BYTES_PER_READER_MAX, "{bytes} bytes");
    // Those that ask for the same while they wait for their turn share one read; a small crowd may have
    // read before anybody waits.
    assert!(reads <= crowd / 4 + 1_500, "{reads} reads");

    publish(address, STAGES[0] + 1..=STAGES[1]).await;
    until_all(&reached[1], crowd, &mut readers).await;
    // Once the feed and for each reader of pages one look: no more than a few for all.
    let live = storage_reads(&server).await - reads;
    println!("{live} reads of the storage for {} messages to all", STAGES[1] - STAGES[0]);
    assert!(live < crowd / 10, "{live} reads");

    // Killed: everybody comes back, at once.
    spawn_blocking(move || drop(relay)).await.expect("it is killed");
    let began = Instant::now();
    let relay = start(&address.to_string()).await;
    publish(address, STAGES[1] + 1..=STAGES[2]).await;
    until_all(&reached[2], crowd, &mut readers).await;
    length::tell(format_args!("all are back {:.1?} after the relay was killed", began.elapsed()));
    while let Some(reader) = readers.join_next().await {
        reader.expect("a reader");
    }
    assert!(attaches.load(Ordering::SeqCst) as u64 >= 2 * crowd);
    let base = async || {
        let metrics = try_send(address, "GET", "/metrics", &[], b"").await;
        metrics.is_some_and(|metrics| metrics.text().contains("\ntidemill_http_connections 1\n"))
    };
    eventually(PATIENCE, base).await;
    spawn_blocking(move || drop(relay)).await.expect("it is killed");
}
