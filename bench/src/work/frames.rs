//! A worker over a WebSocket: it is given messages as they come, and acknowledges those of a frame with one.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Duration;

use tidemill_proto::frame::{ClientFrame, Consume, Said, ServerFrame, Settle, binary, json};
use tidemill_proto::work::SettledStatus;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::{GROUP, Task};
use crate::mark::Mark;
use crate::target::{Target, describe};
use crate::ws;

/// How long a worker waits before it looks whether there is anything left to be done.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes that are read at once.
const READ_BYTES: usize = 256 * 1024;

/// A connection in one of the encodings.
struct Connection {
    stream: TcpStream,
    is_binary: bool,
    rest: Vec<u8>,
    out: Vec<u8>,
}

/// Messages whose settlement is under way.
struct Asked {
    started: Instant,
    marks: Vec<Mark>,
    status: SettledStatus,
}

impl Connection {
    async fn open(target: &Target, headers: &str, is_binary: bool, number: usize) -> Result<Self, String> {
        let (stream, rest) = ws::open(target, headers, ws::PATH, is_binary, number).await?;
        Ok(Self { stream, is_binary, rest, out: Vec::new() })
    }

    fn put(&mut self, frame: &ClientFrame<'_>) {
        let mut payload = Vec::new();
        if self.is_binary {
            binary::write_client(frame, &mut payload);
            ws::write(&mut self.out, ws::Kind::Binary, &payload);
        } else {
            json::write_client(frame, &mut payload);
            ws::write(&mut self.out, ws::Kind::Text, &payload);
        }
    }

    async fn flush(&mut self) -> Result<(), String> {
        if !self.out.is_empty() {
            self.stream.write_all(&self.out).await.map_err(|error| describe("cannot send", &error))?;
            self.out.clear();
        }
        Ok(())
    }

    /// Waits a while for more bytes.
    async fn fill(&mut self) -> Result<(), String> {
        self.rest.reserve(READ_BYTES);
        match timeout(LOOK, self.stream.read_buf(&mut self.rest)).await {
            Ok(Ok(0)) => Err("the connection was closed".to_owned()),
            Err(_) | Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(describe("cannot read", &error)),
        }
    }
}

pub(super) async fn work(task: &Task, worker: usize, is_binary: bool) -> Result<(), String> {
    let Task { target, acks, headers, tally, .. } = task;
    let mut connection = Connection::open(target, headers, is_binary, worker).await?;
    let mut other = if acks.address == target.address {
        None
    } else {
        Some(Connection::open(acks, headers, is_binary, worker).await?)
    };
    let consumer = format!("worker-{worker}");
    connection.put(&ClientFrame::Consume(Consume {
        reference: None,
        topic: Cow::Borrowed(&task.topic),
        group: Cow::Borrowed(GROUP),
        // One batch is worked on while the next is on its way; who takes one at a time has one.
        credit: if task.batch == 1 { 1 } else { 2 * task.batch as u64 },
        consumer: Some(Cow::Borrowed(&consumer)),
    }));
    let mut asked = VecDeque::new();
    while tally.goes_on() {
        connection.flush().await?;
        connection.fill().await?;
        let mut frames = Vec::new();
        take(&mut connection, task, &mut asked, &mut frames)?;
        let settling = other.as_mut().unwrap_or(&mut connection);
        for frame in &frames {
            settling.put(frame);
        }
        if let Some(other) = &mut other {
            other.flush().await?;
            while !asked.is_empty() && tally.goes_on() {
                other.fill().await?;
                take(other, task, &mut asked, &mut Vec::new())?;
            }
        }
    }
    Ok(())
}

/// Takes all whole frames that have come.
fn take(
    connection: &mut Connection,
    task: &Task,
    asked: &mut VecDeque<Asked>,
    settles: &mut Vec<ClientFrame<'static>>,
) -> Result<(), String> {
    let mut used = 0;
    let mut pongs = Vec::new();
    while let Some(frame) = ws::frame(&connection.rest[used..])? {
        match frame.kind {
            ws::Kind::Text | ws::Kind::Binary => take_frame(frame.payload, task, asked, settles)?,
            ws::Kind::Ping => ws::write(&mut pongs, ws::Kind::Pong, frame.payload),
            ws::Kind::Pong => {}
            ws::Kind::Close => return Err(ws::closed(frame.payload)),
        }
        used += frame.bytes;
    }
    connection.rest.drain(..used);
    connection.out.append(&mut pongs);
    Ok(())
}

fn take_frame(
    payload: &[u8],
    task: &Task,
    asked: &mut VecDeque<Asked>,
    settles: &mut Vec<ClientFrame<'static>>,
) -> Result<(), String> {
    let started = Instant::now();
    let frame = match payload.first() {
        Some(b'{') => {
            let text = std::str::from_utf8(payload).map_err(|error| error.to_string())?;
            json::read_server(text).map_err(|error| error.to_string())?
        }
        _ => binary::read_server(payload).map_err(|error| error.to_string())?,
    };
    match frame {
        ServerFrame::Work(work) => {
            let mut parts = [
                (SettledStatus::Nacked, Vec::new(), Vec::new()),
                (SettledStatus::Acked, Vec::new(), Vec::new()),
            ];
            for one in &work.deliveries {
                let (_, receipts, marks) = &mut parts[usize::from(!(task.fails_once && one.delivery == 1))];
                receipts.push(Cow::Owned(work.receipt(one).to_string()));
                Mark::each(&one.message.payload, |mark| marks.push(mark));
            }
            for (status, receipts, marks) in parts {
                if receipts.is_empty() {
                    continue;
                }
                task.tally.given(&marks);
                let said = match status {
                    SettledStatus::Nacked => Said::Nack { delay: None, error: None },
                    _ => Said::Ack { result: None },
                };
                settles.push(ClientFrame::Settle(Settle { reference: None, receipts, said }));
                asked.push_back(Asked { started, marks, status });
            }
        }
        ServerFrame::Settled { results, .. } => {
            let Some(Asked { started, marks, status }) = asked.pop_front() else {
                return Err("an answer to what was not asked".to_owned());
            };
            if let Some(result) = results.iter().find(|result| result.status != status) {
                return Err(format!("{:?}: {:?}", result.status, result.error));
            }
            if status == SettledStatus::Acked {
                task.tally.acked(started, &marks);
            }
        }
        ServerFrame::Error(error) => return Err(error.message.into_owned()),
        ServerFrame::End { reason, .. } => return Err(reason.into_owned()),
        _ => {}
    }
    Ok(())
}
