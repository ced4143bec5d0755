//! A load for `JetStream` as a work queue: fills a stream, and has workers pull its messages in batches and acknowledge
//! each.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::lines::{Jobs, Lines, job};

const STREAM: &str = "BENCH";
const SUBJECT: &str = "bench";
const CONSUMER: &str = "workers";
const INBOX: &str = "_INBOX.bench";

/// What is worked off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) workers: usize,
    pub(crate) batch: u32,
    pub(crate) messages: u64,
    pub(crate) payload_bytes: usize,
}

/// A message as nats-server sends it.
struct Delivered {
    reply: Option<String>,
    payload: Vec<u8>,
    /// Whether it is no message, but says that there are none.
    is_status: bool,
}

/// Works all messages off, and returns what was measured.
pub(crate) async fn run(server: SocketAddr, load: Load) -> Result<Value, String> {
    let mut control = open(server, 0).await?;
    let create = json!({
        "name": STREAM, "subjects": [SUBJECT], "storage": "file", "retention": "limits", "discard": "old",
        "max_msgs": -1, "max_bytes": -1, "max_age": 0, "max_consumers": -1, "num_replicas": 1,
    });
    ask(&mut control, &format!("STREAM.CREATE.{STREAM}"), &create).await?;
    for number in 0..load.messages {
        let bytes = load.payload_bytes;
        control.put(&format!("PUB {SUBJECT} {bytes}\r\n{}\r\n", job(number, bytes)));
        if number % 1_000 == 999 {
            control.flush().await?;
        }
    }
    let since = Instant::now();
    loop {
        let info = ask(&mut control, &format!("STREAM.INFO.{STREAM}"), &json!({})).await?;
        if info["state"]["messages"].as_u64() == Some(load.messages) {
            break;
        }
        if since.elapsed() > Duration::from_mins(2) {
            return Err(format!("the stream has {} messages", info["state"]["messages"]));
        }
        sleep(Duration::from_millis(50)).await;
    }
    let consumer = json!({ "stream_name": STREAM, "config": {
        "durable_name": CONSUMER, "ack_policy": "explicit", "ack_wait": 60_000_000_000_u64, "max_ack_pending": -1,
        "deliver_policy": "all",
    } });
    ask(&mut control, &format!("CONSUMER.DURABLE.CREATE.{STREAM}.{CONSUMER}"), &consumer).await?;
    let jobs = Arc::new(Mutex::new(Jobs::new(usize::try_from(load.messages).unwrap_or_default())));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for worker in 1..=load.workers {
        tasks.spawn(work(server, worker, load.batch, Arc::clone(&jobs)));
    }
    while let Some(worked) = tasks.join_next().await {
        worked.map_err(|error| error.to_string())??;
    }
    // What was acknowledged last is counted by the server, too.
    loop {
        let info = ask(&mut control, &format!("CONSUMER.INFO.{STREAM}.{CONSUMER}"), &json!({})).await?;
        if info["num_ack_pending"] == 0 && info["num_pending"] == 0 {
            break;
        }
        if started.elapsed() > Duration::from_mins(10) {
            return Err(format!("{} were not acknowledged", info["num_ack_pending"]));
        }
        sleep(Duration::from_millis(1)).await;
    }
    let seconds = started.elapsed().as_secs_f64();
    let repeated = jobs.lock().map_err(|error| error.to_string())?.repeated;
    if repeated > 0 {
        return Err(format!("{repeated} messages came twice"));
    }
    #[expect(clippy::cast_precision_loss, reason = "a run counts far fewer than 2^52 messages")]
    let per_second = load.messages as f64 / seconds;
    Ok(json!({ "count": load.messages, "per_second": per_second }))
}

async fn open(server: SocketAddr, number: usize) -> Result<Lines, String> {
    let mut lines = Lines::connect(server).await?;
    lines.put("CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\n");
    lines.put(&format!("SUB {INBOX}.{number} 1\r\n"));
    lines.flush().await?;
    Ok(lines)
}

async fn ask(lines: &mut Lines, what: &str, body: &Value) -> Result<Value, String> {
    let body = body.to_string();
    lines.put(&format!("PUB $JS.API.{what} {INBOX}.0 {}\r\n{body}\r\n", body.len()));
    lines.flush().await?;
    let answer = message(lines).await?.payload;
    let answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
    match &answer["error"] {
        Value::Null => Ok(answer),
        error => Err(format!("{what} was refused: {error}")),
    }
}

async fn work(server: SocketAddr, number: usize, batch: u32, jobs: Arc<Mutex<Jobs>>) -> Result<(), String> {
    let mut lines = open(server, number).await?;
    let request = format!(r#"{{"batch":{batch},"expires":1000000000}}"#);
    let next = format!(
        "PUB $JS.API.CONSUMER.MSG.NEXT.{STREAM}.{CONSUMER} {INBOX}.{number} {}\r\n{request}\r\n",
        request.len()
    );
    // One batch is worked on while the next is on its way.
    let ahead = if batch == 1 { 1 } else { 2 };
    for _ in 0..ahead {
        lines.put(&next);
    }
    lines.flush().await?;
    let mut got = 0;
    loop {
        let message = message(&mut lines).await?;
        if message.is_status {
            // A request has ended without having got all that it asked for.
            if jobs.lock().map_err(|error| error.to_string())?.left == 0 {
                return Ok(());
            }
            got = 0;
            lines.put(&next);
            lines.flush().await?;
            continue;
        }
        let reply = message.reply.ok_or("a message that cannot be acknowledged")?;
        lines.put(&format!("PUB {reply} 4\r\n+ACK\r\n"));
        let is_over = {
            let mut jobs = jobs.lock().map_err(|error| error.to_string())?;
            jobs.done(&message.payload)?;
            jobs.left == 0
        };
        got += 1;
        if got == batch {
            got = 0;
            lines.put(&next);
        }
        if got == 0 || !lines.has_more() || is_over {
            lines.flush().await?;
        }
        if is_over {
            return Ok(());
        }
    }
}

/// Waits for the next message.
async fn message(lines: &mut Lines) -> Result<Delivered, String> {
    loop {
        let line = lines.line().await?;
        let mut words = line.split(' ').filter(|word| !word.is_empty());
        let unreadable = || format!("nats-server said {line:?}");
        let kind = words.next();
        match kind {
            Some("MSG" | "HMSG") => {
                let words: Vec<&str> = words.collect();
                let number = |at: usize| words.get(at).and_then(|word| word.parse::<usize>().ok());
                let has_headers = kind == Some("HMSG");
                let plain = if has_headers { 4 } else { 3 };
                let reply = (words.len() > plain).then(|| words[2].to_owned());
                let total = number(words.len() - 1).ok_or_else(unreadable)?;
                let head = if has_headers { number(words.len() - 2).ok_or_else(unreadable)? } else { 0 };
                let mut bytes = lines.bytes(total).await?;
                let is_status = has_headers && bytes.starts_with(b"NATS/1.0 ") && reply.is_none();
                bytes.drain(..head);
                return Ok(Delivered { reply, payload: bytes, is_status });
            }
            Some("PING") => {
                lines.put("PONG\r\n");
                lines.flush().await?;
            }
            Some("INFO" | "PONG" | "+OK") => {}
            _ => return Err(unreadable()),
        }
    }
}
