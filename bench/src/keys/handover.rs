//! A lock that many want: how long it takes from its release to the next who holds it.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::error::BenchError;
use crate::http;
use crate::load::{GRACE, Load};
use crate::measure::Meter;
use crate::report::Row;
use crate::target::Target;

/// What an acquired lock has that is needed here.
#[derive(Debug, Deserialize)]
struct Granted {
    token: String,
}

/// When the lock was released last, and by whom it is held: nobody, if two tell the truth.
#[derive(Debug, Default)]
struct Held {
    released: Option<Instant>,
    is_held: bool,
}

/// One who wants the lock.
#[derive(Debug)]
struct Contender {
    target: Target,
    headers: String,
    name: String,
    connection: http::Connection,
}

impl Contender {
    async fn open(load: &Load, name: &str) -> Result<Self, String> {
        let connection = http::Connection::open(&load.target).await?;
        let (target, headers) = (load.target.clone(), load.headers.clone());
        Ok(Self { target, headers, name: name.to_owned(), connection })
    }

    async fn post(&mut self, end: &str, body: &str) -> Result<(u16, Vec<u8>), String> {
        let (headers, length) = (&self.headers, body.len());
        let headers = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n{headers}");
        let path = format!("/api/v1/locks/{}{end}", self.name);
        let mut request = http::request(&self.target, &headers, "POST", &path);
        request.extend_from_slice(body.as_bytes());
        let answer = self.connection.exchange(&request).await?;
        Ok((answer.status, answer.body.to_vec()))
    }

    async fn work(mut self, meter: &Meter, held: &Mutex<Held>) {
        while meter.goes_on(Instant::now(), 1) {
            if let Err(why) = self.turn(meter, held).await {
                return meter.failed(&why);
            }
        }
    }

    /// Waits for the lock, and releases it at once.
    async fn turn(&mut self, meter: &Meter, held: &Mutex<Held>) -> Result<(), String> {
        let (status, body) = self.post("", r#"{"holder":"bench","ttl":"30s","wait":"30s"}"#).await?;
        let now = Instant::now();
        if status != 201 {
            return Err(format!("status {status}"));
        }
        let Granted { token } = serde_json::from_slice(&body).map_err(|_| "an answer without a token")?;
        {
            let mut held = held.lock();
            if std::mem::replace(&mut held.is_held, true) {
                meter.failed("two HELD the lock at once");
            }
            if let Some(released) = held.released {
                meter.record(released, now, 1);
            }
            *held = Held { released: Some(Instant::now()), is_held: false };
        }
        let (status, _) = self.post("/release", &format!(r#"{{"token":"{token}"}}"#)).await?;
        if status == 204 || status == 200 { Ok(()) } else { Err(format!("a release with status {status}")) }
    }
}

/// Has `contenders` hand a lock over.
pub(super) async fn run(
    load: &Load,
    name: &str,
    contenders: usize,
    handovers: Option<u64>,
) -> Result<Row, BenchError> {
    let mut all = Vec::with_capacity(contenders);
    for _ in 0..contenders {
        all.push(Contender::open(load, name).await.map_err(|why| load.unreachable(why))?);
    }
    let meter = Arc::new(Meter::new(load.window(false), handovers));
    let held = Arc::new(Mutex::new(Held::default()));
    let mut tasks = JoinSet::new();
    for contender in all {
        let (meter, held) = (Arc::clone(&meter), Arc::clone(&held));
        tasks.spawn(async move {
            let deadline = meter.window.until + GRACE;
            if timeout_at(deadline, contender.work(&meter, &held)).await.is_err() {
                meter.failed("no answer when the run ended");
            }
        });
    }
    let usage = load.drive("keys", &meter, tasks).await;
    Ok(Row::of(format!("lock, {contenders} want it"), "hand-overs", &meter, usage))
}
