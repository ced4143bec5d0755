//! One run of a command for a message: what it is given, how it is ended, and what its end says of the message.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::value::RawValue;
use tidemill_client::{Job, Stopper, Trace, Verdict};
use tidemill_proto::work::GroupName;
use tidemill_proto::{Code, TopicName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::super::groups::shown;
use super::super::processes::Processes;
use super::super::traced::{TRACEPARENT, TRACESTATE};
use super::log::Log;

/// The exit status that says that the input is at fault, as `sysexits.h` has it.
const EX_DATAERR: i32 = 65;

/// Most bytes of a result.
const RESULT_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of an error.
const ERROR_BYTES_MAX: usize = 1_024;
/// Bytes of output that are read at once.
const READ_BYTES: usize = 8 * 1024;
/// By how much what measures the time of a command may differ from what ends it.
const SLACK: Duration = Duration::from_millis(100);
/// How long what a command has left running may hold its output open.
const LEFT_OPEN: Duration = Duration::from_millis(500);

/// Runs the command of a worker.
#[derive(Debug)]
pub(super) struct Runner<'a> {
    pub(super) command: &'a [OsString],
    pub(super) topic: &'a TopicName,
    pub(super) group: &'a GroupName,
    pub(super) keeps_result: bool,
    pub(super) log: &'a Log,
    /// For how long a message may be worked on, as the group said when the worker began.
    pub(super) max_run: Option<Duration>,
    /// Why the command cannot be run at all.
    pub(super) unusable: RefCell<Option<io::Error>>,
    pub(super) stopper: Stopper,
}

/// What a command has written.
#[derive(Debug, Default)]
struct Written {
    /// Of standard output, where it is a result: one byte more than it may have at most.
    result: Vec<u8>,
    /// The last line of standard error that is not empty, and what came behind it.
    last: Vec<u8>,
    open: Vec<u8>,
}

impl Runner<'_> {
    /// Runs the command for a message to its end.
    pub(super) async fn run(&self, job: Job) -> Verdict {
        match self.spawn(&job) {
            Ok(child) => self.attend(child, job).await,
            Err(error) => {
                // It would not run for the next one either.
                self.unusable.replace(Some(error));
                self.stopper.drain();
                Verdict::Release
            }
        }
    }

    fn spawn(&self, job: &Job) -> io::Result<Child> {
        let message = &job.delivered.message;
        let (program, arguments) = self.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("TIDEMILL_MESSAGE_ID", message.message_id.to_string())
            .env("TIDEMILL_DELIVERY", job.delivered.delivery.to_string())
            .env("TIDEMILL_TOPIC", self.topic.as_str())
            .env("TIDEMILL_GROUP", self.group.as_str())
            .env("TIDEMILL_CONTENT_TYPE", message.content_type.as_deref().unwrap_or("application/json"))
            .env("TIDEMILL_TIMESTAMP", message.timestamp.to_string())
            .env_remove("TIDEMILL_METADATA")
            .env_remove("TIDEMILL_ORDER_KEY")
            .env_remove("TIDEMILL_CANCELLED");
        if let Some(metadata) = &message.metadata {
            command.env("TIDEMILL_METADATA", metadata.get());
        }
        // One of the worker is not that of the message.
        command.env_remove(TRACEPARENT).env_remove(TRACESTATE);
        if let Some(Trace { traceparent, tracestate }) = job.trace() {
            // A program is run with no text that has a NUL.
            command.env(TRACEPARENT, traceparent.replace('\0', " "));
            command.envs(tracestate.map(|state| (TRACESTATE, state.replace('\0', " "))));
        }
        if let Some(key) = &message.order_key {
            command.env("TIDEMILL_ORDER_KEY", key.as_str());
        }
        if let Some(reason) = &job.delivered.cancelled {
            command.env("TIDEMILL_CANCELLED", reason.replace('\0', " "));
        }
        // A group of its own: Ctrl-C is for the worker, which lets commands end.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn()
    }

    async fn attend(&self, mut child: Child, mut job: Job) -> Verdict {
        let mut processes = Processes::of(&child);
        let payload = job.delivered.message.payload_bytes().unwrap_or_default();
        let mut written = Written::default();
        let (begun, grace) = (Instant::now(), job.grace());
        let ended = Cell::new(None);
        let ending = async {
            ended.set(Some((job.ended().await, begun.elapsed())));
            processes.signal(Signal::TERM);
            sleep(grace / 2).await;
            processes.signal(Signal::KILL);
        };
        let status = self.wait(&mut child, &payload, &mut written, ending).await;
        // What it has left running is its own.
        processes.leave();
        match status {
            Ok(status) => {
                let ended = ended.take().map(|(code, after)| self.why(code, after + grace));
                self.verdict(status, ended, written)
            }
            Err(error) => Verdict::Nack { delay: None, error: Some(error.to_string()) },
        }
    }

    /// Waits for the end of the command.
    async fn wait(
        &self,
        child: &mut Child,
        payload: &[u8],
        written: &mut Written,
        ending: impl Future<Output = ()>,
    ) -> io::Result<ExitStatus> {
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let Written { result, last, open } = written;
        let feeding = async {
            if let Some(mut stdin) = stdin {
                // A command need not read all that it is given, or any of it.
                let _ = stdin.write_all(payload).await;
            }
        };
        let hearing = async {
            read(stdout, |bytes| {
                if self.keeps_result {
                    let room = (RESULT_BYTES_MAX + 1).saturating_sub(result.len());
                    result.extend_from_slice(&bytes[..bytes.len().min(room)]);
                } else {
                    self.log.pass_on(bytes);
                }
            })
            .await;
        };
        let noting = async {
            read(stderr, |bytes| {
                self.log.pass_on_error(bytes);
                note(bytes, last, open);
            })
            .await;
        };
        let mut piping = std::pin::pin!(async { tokio::join!(feeding, hearing, noting) });
        let mut ending = std::pin::pin!(ending);
        let (mut is_piped, mut is_ended) = (false, false);
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                _ = &mut piping, if !is_piped => is_piped = true,
                () = &mut ending, if !is_ended => is_ended = true,
            }
        };
        if !is_piped {
            // Somebody whom it has started may hold the other ends.
            let _ = timeout(LEFT_OPEN, piping).await;
        }
        status
    }

    /// Returns why a command was told to end that had had so long, and would have had until then.
    fn why(&self, code: Code, until: Duration) -> String {
        // The bound may have been changed since the worker began: then the relay has said that it is reached.
        let known = self.max_run.filter(|run| *run <= until + SLACK);
        match (code, known) {
            (Code::MaxRunReached, Some(run)) => format!("ran longer than max_run ({})", shown(run)),
            (Code::MaxRunReached, None) => "ran longer than max_run".to_owned(),
            (code, _) => format!("was ended, as the relay has refused to extend it ({})", code.as_str()),
        }
    }

    /// Returns what the end of a command says of its message; `ended` is why it was told to end, if it was.
    fn verdict(&self, status: ExitStatus, ended: Option<String>, written: Written) -> Verdict {
        let last = if written.open.is_empty() { written.last } else { written.open };
        let last = Some(String::from_utf8_lossy(&last).trim().to_owned()).filter(|line| !line.is_empty());
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("ended by signal {signal}"),
            (None, None) => "it ended".to_owned(),
        };
        match status.code() {
            Some(0) if self.keeps_result => Verdict::Ack { result: self.result(&written.result) },
            Some(0) => Verdict::Ack { result: None },
            _ if ended.is_some() => Verdict::Nack { delay: None, error: ended },
            Some(EX_DATAERR) => Verdict::Reject { reason: last.unwrap_or(how) },
            // `EX_TEMPFAIL` (75) among them.
            _ => Verdict::Nack { delay: None, error: last.or(Some(how)) },
        }
    }

    /// Returns standard output as a result.
    fn result(&self, written: &[u8]) -> Option<Box<RawValue>> {
        let result = as_result(written);
        if result.as_ref().is_some_and(|result| result.get().len() > RESULT_BYTES_MAX) {
            self.log.tell(&format!(
                "the output has more than {RESULT_BYTES_MAX} bytes, and is not kept as a result"
            ));
            return None;
        }
        result
    }
}

/// Returns what a command has written as JSON: as it is where it is some, else as a string; nothing where there is none.
fn as_result(written: &[u8]) -> Option<Box<RawValue>> {
    let text = String::from_utf8_lossy(written);
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return None;
    }
    // As a value, which is refused where it is nested more deeply than the relay takes.
    if serde_json::from_str::<serde_json::Value>(trimmed).is_ok() {
        return RawValue::from_string(trimmed.to_owned()).ok();
    }
    serde_json::value::to_raw_value(text.strip_suffix('\n').unwrap_or(&text)).ok()
}

/// Reads to the end.
async fn read(from: Option<impl AsyncRead + Unpin>, mut take: impl FnMut(&[u8])) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 {
            return;
        }
        take(&buffer[..count]);
    }
}

/// Keeps the last line with something in it, the beginning of a long one.
fn note(bytes: &[u8], last: &mut Vec<u8>, open: &mut Vec<u8>) {
    for part in bytes.split_inclusive(|byte| *byte == b'\n') {
        let room = ERROR_BYTES_MAX.saturating_sub(open.len());
        open.extend_from_slice(&part[..part.len().min(room)]);
        if part.ends_with(b"\n") {
            if !open.trim_ascii().is_empty() {
                std::mem::swap(last, open);
            }
            open.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_a_result_as_it_is_or_as_a_string() {
        for (written, result) in [
            (&b"{\"a\": 1.10}\n"[..], Some("{\"a\": 1.10}")),
            (b"7\n", Some("7")),
            (b"high water\n", Some("\"high water\"")),
            (b"two\nlines\n", Some("\"two\\nlines\"")),
            (b" \n", None),
            (b"", None),
            (b"\xff", Some("\"\u{fffd}\"")),
        ] {
            assert_eq!(as_result(written).as_deref().map(RawValue::get), result, "{written:?}");
        }
        let deep = [vec![b'['; 200], vec![b']'; 200]].concat();
        assert!(as_result(&deep).is_some_and(|result| result.get().starts_with('"')));
    }

    #[test]
    fn the_last_line_is_kept_however_it_comes() {
        for (parts, last) in [
            (&["one\ntwo\n"][..], "two"),
            (&["one\nt", "wo"], "two"),
            (&["one\n", "\n \n"], "one"),
            (&[""], ""),
        ] {
            let (mut kept, mut open) = (Vec::new(), Vec::new());
            for part in parts {
                note(part.as_bytes(), &mut kept, &mut open);
            }
            let line = if open.is_empty() { kept } else { open };
            assert_eq!(String::from_utf8_lossy(&line).trim(), last, "{parts:?}");
        }
        let (mut kept, mut open) = (Vec::new(), Vec::new());
        note(&vec![b'x'; 100_000], &mut kept, &mut open);
        assert_eq!(open.len(), ERROR_BYTES_MAX);
    }
}
