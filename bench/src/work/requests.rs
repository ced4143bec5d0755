//! A worker over HTTP: a claim, and the acknowledgement of what it got, one request each.

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{GROUP, Task};
use crate::http;
use crate::mark::Mark;
use crate::target::Target;

/// A claim's answer, as far as a worker reads it.
#[derive(Deserialize)]
struct Claimed<'a> {
    #[serde(borrow)]
    messages: Vec<Message<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    receipt: &'a RawValue,
    delivery: u64,
}

/// Returns a request with a body of JSON.
pub(super) fn post(target: &Target, headers: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let headers = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n{headers}");
    let mut request = http::request(target, &headers, "POST", path);
    request.extend_from_slice(body.as_bytes());
    request
}

pub(super) async fn work(task: &Task, worker: usize) -> Result<(), String> {
    let Task { target, acks, headers, tally, .. } = task;
    let mut connection = http::Connection::open(target).await?;
    let mut other =
        if acks.address == target.address { None } else { Some(http::Connection::open(acks).await?) };
    let path = format!("/api/v1/topics/{}/groups/{GROUP}/claim", task.topic);
    let body = format!(r#"{{"consumer":"worker-{worker}","max":{},"wait":"200ms"}}"#, task.batch);
    let claim = post(target, headers, &path, &body);
    let mut marks = Vec::with_capacity(task.batch);
    while tally.goes_on() {
        let started = Instant::now();
        let answer = connection.exchange(&claim).await?;
        if answer.status != 200 {
            return Err(format!("a claim: status {}", answer.status));
        }
        marks.clear();
        Mark::each(answer.body, |mark| marks.push(mark));
        tally.given(&marks);
        let claimed: Claimed<'_> =
            serde_json::from_slice(answer.body).map_err(|error| format!("a claim: {error}"))?;
        if claimed.messages.is_empty() {
            continue;
        }
        let mut parts = [Part::new("nack", "nacked"), Part::new("ack", "acked")];
        for (message, mark) in claimed.messages.iter().zip(&marks) {
            let part = usize::from(!(task.fails_once && message.delivery == 1));
            parts[part].add(message.receipt.get(), *mark);
        }
        for part in parts.into_iter().filter(|part| !part.marks.is_empty()) {
            let body = format!(r#"{{"receipts":[{}]}}"#, part.receipts);
            let request = post(acks, headers, &format!("/api/v1/work/{}", part.verb), &body);
            let settling = other.as_mut().unwrap_or(&mut connection);
            let settled = count_of(&settling.exchange(&request).await?, part.status)?;
            if settled != part.marks.len() {
                return Err(format!("{settled} of {} were {}", part.marks.len(), part.status));
            }
            if part.verb == "ack" {
                tally.acked(started, &part.marks);
            }
        }
    }
    Ok(())
}

/// Claims so many messages, and is not heard of again.
pub(super) async fn lose(task: &Task, count: u64) -> Result<(), String> {
    let mut connection = http::Connection::open(&task.target).await?;
    let path = format!("/api/v1/topics/{}/groups/{GROUP}/claim", task.topic);
    let mut left = count;
    let mut marks = Vec::new();
    while left > 0 {
        let body = format!(r#"{{"consumer":"lost","max":{}}}"#, left.min(1_000));
        let answer = connection.exchange(&post(&task.target, &task.headers, &path, &body)).await?;
        marks.clear();
        Mark::each(answer.body, |mark| marks.push(mark));
        if answer.status != 200 || marks.is_empty() {
            return Err(format!("a claim: status {}, {} messages", answer.status, marks.len()));
        }
        task.tally.lost(&marks);
        left = left.saturating_sub(marks.len() as u64);
    }
    Ok(())
}

/// Messages of which the same is said.
struct Part {
    verb: &'static str,
    status: &'static str,
    receipts: String,
    marks: Vec<Mark>,
}

impl Part {
    fn new(verb: &'static str, status: &'static str) -> Self {
        Self { verb, status, receipts: String::new(), marks: Vec::new() }
    }

    fn add(&mut self, receipt: &str, mark: Mark) {
        if !self.receipts.is_empty() {
            self.receipts.push(',');
        }
        self.receipts.push_str(receipt);
        self.marks.push(mark);
    }
}

fn count_of(answer: &http::Answer<'_>, status: &str) -> Result<usize, String> {
    if answer.status != 200 {
        return Err(format!("an ack: status {}", answer.status));
    }
    let needle = format!(r#""status":"{status}""#);
    Ok(memchr::memmem::find_iter(answer.body, needle.as_bytes()).count())
}
