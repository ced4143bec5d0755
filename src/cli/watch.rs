//! What `tidemill keys watch` and `tidemill presence watch` share: frames as they come, over connections that are lost and
//! made again.
//!
//! It must not know which bucket or room is watched.

use std::collections::BTreeSet;
use std::pin::{Pin, pin};
use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use tidemill_proto::payload::{MemberNames, PayloadMembers};
use tidemill_proto::{MessageId, Problem, Timestamp};
use tokio::time::sleep;

use super::CliError;
use super::client::{Client, Lines, Refusal, Relay};
use super::output::{self, Output};
use super::signals::stopped;
use crate::chance::jittered;
use crate::config::Environment;

/// Wait before the relay is asked again, first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(5);

/// The line that says that what came before counts no more.
const RESET: &str = "reset";

/// What stands in the place of a value that was damaged or replaced in the storage.
pub(super) const DAMAGED: &str = "(damaged)";

/// What is watched, and where it goes on.
#[derive(Debug)]
pub(super) struct Watched<'a> {
    pub(super) path: &'a [&'a str],
    pub(super) query: Vec<(&'static str, String)>,
    /// Behind which change; `None` for what there is, and what changes.
    pub(super) after: Option<MessageId>,
    /// The words of the command that goes on.
    pub(super) again: Vec<String>,
}

/// What has been printed as being there, so that people are told of what is not in a snapshot that comes anew.
#[derive(Debug, Default)]
struct Shown {
    /// Since the newest snapshot began.
    there: BTreeSet<String>,
    /// Before that.
    before: BTreeSet<String>,
}

impl Shown {
    /// Notes a frame of a key or a member.
    fn note(&mut self, frame: &Frame) {
        let Some(name) = frame.name() else { return };
        if matches!(frame.kind.as_str(), "put" | "joined") {
            self.there.insert(name.to_owned());
        } else {
            self.there.remove(name);
        }
    }

    /// Notes that what there is comes anew.
    fn reset(&mut self) {
        self.before.append(&mut self.there);
    }

    /// Returns what is gone, at the end of a snapshot.
    fn gone(&mut self) -> impl Iterator<Item = String> {
        let before = std::mem::take(&mut self.before);
        before.into_iter().filter(|name| !self.there.contains(name))
    }
}

/// A frame, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Frame {
    #[serde(rename = "type")]
    kind: String,
    id: Option<MessageId>,
    revision: Option<MessageId>,
    key: Option<String>,
    member: Option<String>,
    reason: Option<String>,
    problem: Option<Problem>,
    #[serde(default, deserialize_with = "tidemill_proto::json::present_owned")]
    value: Option<Box<RawValue>>,
    value_text: Option<String>,
    value_base64: Option<String>,
    content_type: Option<String>,
    #[serde(default)]
    damaged: bool,
    since: Option<Timestamp>,
    data: Option<Box<RawValue>>,
}

/// Why a connection was lost.
enum Lost {
    /// For this reason, and another one can be made.
    Again(String),
    /// The user has asked to stop.
    Stopped,
}

impl Watched<'_> {
    /// Prints what there is and what changes, until the user asks to stop.
    ///
    /// # Errors
    /// The relay refuses it, or cannot be reached at first; or what is printed cannot be written.
    pub(super) async fn follow(mut self, relay: &Relay, environment: &Environment) -> Result<(), CliError> {
        let client = relay.client(environment)?;
        let mut stop = pin!(stopped()?);
        let mut lines = tokio::select! {
            opened = self.open(&client) => opened.map_err(CliError::from)?,
            () = &mut stop => return Ok(()),
        };
        let mut shown = Shown::default();
        let result = loop {
            match self.print(&mut lines, relay.output, &mut shown, stop.as_mut()).await {
                Err(error) => break Err(error),
                Ok(Lost::Stopped) => break Ok(()),
                Ok(Lost::Again(why)) => eprintln!("{} is not there ({why}); connecting again", client.name()),
            }
            match self.connect(&client, stop.as_mut()).await {
                Err(error) => break Err(error),
                Ok(None) => break Ok(()),
                Ok(Some(again)) => lines = again,
            }
            eprintln!("connected again");
            if self.after.is_none() {
                // Whoever reads it learns that a snapshot begins anew.
                shown.reset();
                output::line(match relay.output {
                    Output::Json => r#"{"type":"reset"}"#,
                    Output::Text => RESET,
                })?;
            }
        };
        if !matches!(&result, Err(CliError::Output(_))) {
            if let Some(hidden) = relay.target.hidden() {
                eprintln!("what may be a secret is left out: put {hidden}");
            }
            eprintln!("go on with: {}", self.again(relay));
        }
        result
    }

    fn again(&self, relay: &Relay) -> String {
        let after = self.after.map(|after| format!("--after={after}"));
        let output = (relay.output == Output::Json).then(|| "--output=json".to_owned());
        let flags = after.into_iter().chain(output).chain(relay.target.flags());
        self.again.iter().cloned().chain(flags).collect::<Vec<_>>().join(" ")
    }

    async fn open(&self, client: &Client) -> Result<Lines, Refusal> {
        let mut request = client.request(Method::GET, self.path).query(&self.query);
        if let Some(after) = self.after {
            request = request.header("Last-Event-ID", after.to_string());
        }
        client.open(request).await
    }

    /// Connects again, as often as it takes; `None` once the user has asked to stop.
    async fn connect(
        &self,
        client: &Client,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Option<Lines>, CliError> {
        let mut wait = RETRY_FIRST;
        loop {
            tokio::select! {
                () = sleep(jittered(wait)) => {}
                () = &mut stop => return Ok(None),
            }
            let opened = tokio::select! {
                opened = self.open(client) => opened,
                () = &mut stop => return Ok(None),
            };
            match opened {
                Ok(lines) => return Ok(Some(lines)),
                Err(refusal) if !refusal.is_passing => return Err(refusal.error),
                Err(refusal) => wait = refusal.retry_after.unwrap_or(wait * 2).min(RETRY_LAST),
            }
        }
    }

    /// Prints what comes over one connection.
    async fn print(
        &mut self,
        lines: &mut Lines,
        form: Output,
        shown: &mut Shown,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Lost, CliError> {
        let mut why = None;
        loop {
            let line = tokio::select! {
                line = lines.next() => line,
                () = &mut stop => return Ok(Lost::Stopped),
            };
            let line = match line {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(Lost::Again(why.unwrap_or_else(|| "it was ended".to_owned()))),
                Err(broken) => return Ok(Lost::Again(broken)),
            };
            // A relay that is there and has nothing to say.
            if line.first() != Some(&b'{') {
                continue;
            }
            let text = String::from_utf8_lossy(&line);
            let Ok(frame) = serde_json::from_str::<Frame>(&text) else {
                return Ok(Lost::Again("it sends what is no frame".to_owned()));
            };
            match frame.kind.as_str() {
                // They are about this connection alone.
                "end" => {
                    why = why.or(frame.reason);
                    continue;
                }
                "problem" => {
                    why = frame.problem.map(|problem| problem.detail);
                    continue;
                }
                "reset" => {
                    self.after = None;
                    shown.reset();
                    eprintln!("changes are gone that were not read; everything comes anew");
                }
                _ => {}
            }
            match form {
                Output::Json => output::line(&text)?,
                Output::Text => {
                    shown.note(&frame);
                    if let ("synced", Some(at)) = (frame.kind.as_str(), frame.id) {
                        for name in shown.gone() {
                            output::line(&format!("{at}  gone     {}", output::printable(&name)))?;
                        }
                    }
                    if let Some(text) = frame.text() {
                        output::line(&text)?;
                    }
                }
            }
            // Behind what was written.
            self.after = frame.id.or(self.after);
        }
    }
}

impl Frame {
    /// Returns the key or the member that it is of.
    fn name(&self) -> Option<&str> {
        self.key.as_deref().or(self.member.as_deref())
    }

    /// Returns the frame as a line for people; `None` of what says nothing to them.
    fn text(&self) -> Option<String> {
        match self.kind.as_str() {
            "synced" => return self.id.map(|at| format!("{at}  synced")),
            "reset" => return Some(RESET.to_owned()),
            _ => {}
        }
        let name = self.name()?;
        let revision = self.revision?;
        let mut said = String::new();
        if let Some(since) = self.since {
            said = format!("  since {since}");
        }
        for part in [self.shown(), self.data.as_ref().map(|data| data.get().to_owned())].into_iter().flatten()
        {
            said.push_str("  ");
            said.push_str(&output::payload(part.as_bytes(), None));
        }
        if let (true, Some(reason)) = (self.member.is_some(), &self.reason) {
            said = format!("  {}", output::printable(reason));
        }
        Some(format!("{revision}  {:7}  {}{said}", self.kind, output::printable(name)))
    }

    /// Returns the value, as one line.
    fn shown(&self) -> Option<String> {
        if self.damaged {
            return Some(DAMAGED.to_owned());
        }
        let members = PayloadMembers {
            json: self.value.as_deref(),
            text: self.value_text.as_deref().map(Into::into),
            base64: self.value_base64.as_deref().map(Into::into),
            content_type: self.content_type.as_deref().map(Into::into),
        };
        // What was deleted has none.
        let value = members.read_as(MemberNames::VALUE).ok()?;
        Some(output::payload(&value.bytes, value.content_type.as_deref()))
    }
}
