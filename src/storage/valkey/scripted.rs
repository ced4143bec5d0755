//! Scripts over a connection of our own: called by their digests, and loaded where the server does not know them.
//!
//! It knows how a script is called, and no script.

use super::failure::{Effect, of_reply};
use super::resp::{Bounds, Command, Reply, Request, RespConnection};
use super::scripts::Script;
use super::supervised::Supervised;
use crate::storage::StorageError;

/// A call of a script.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) keys: Vec<String>,
    pub(super) arguments: Vec<Argument<'a>>,
}

/// An argument of a script.
#[derive(Clone, Debug)]
pub(super) enum Argument<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Text(String),
}

impl Argument<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Number(_) => 20,
            Self::Bytes(bytes) => bytes.len(),
            Self::Text(text) => text.len(),
        }
    }

    fn write(&self, command: &mut Command<'_>) {
        match self {
            Self::Number(number) => command.number(*number),
            Self::Bytes(bytes) => command.arg(bytes),
            Self::Text(text) => command.arg(text.as_bytes()),
        };
    }
}

/// What a script answers, copied out of what has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Nothing,
    Number(i64),
    Bytes(Vec<u8>),
    Several(Vec<Self>),
    Error(String),
}

impl Answer {
    fn of(reply: Reply<'_>) -> Self {
        match reply {
            Reply::Simple(bytes) | Reply::Bulk(bytes) => Self::Bytes(bytes.to_vec()),
            Reply::Error(text) => Self::Error(String::from_utf8_lossy(text).into_owned()),
            Reply::Integer(number) => Self::Number(number),
            Reply::Nil => Self::Nothing,
            Reply::Array(parts) => Self::Several(parts.map(Self::of).collect()),
        }
    }

    /// Returns a number, which may be written as a text.
    pub(super) fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => u64::try_from(*number).ok(),
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
            Self::Nothing | Self::Several(_) | Self::Error(_) => None,
        }
    }

    /// Returns a text.
    pub(super) fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// Returns bytes.
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Nothing | Self::Number(_) | Self::Several(_) | Self::Error(_) => None,
        }
    }
}

impl Supervised<RespConnection> {
    /// Calls a script several times, with `behind` sent behind that, and returns an answer for each call.
    ///
    /// # Errors
    /// Of all: the server did not answer. What a call is answered with an error is that answer.
    ///
    /// # Cancel safety
    /// Not cancel-safe: when the future is dropped, the script may run.
    pub(super) async fn call(
        &self,
        script: &Script,
        calls: &[Call<'_>],
        behind: &[[&[u8]; 3]],
        bounds: Option<Bounds>,
        effect: Effect,
    ) -> Result<Vec<Answer>, StorageError> {
        let all: Vec<&Call<'_>> = calls.iter().collect();
        let mut answers = self.call_once(script, &all, behind, bounds, effect, false).await?;
        // A server that has lost its scripts meanwhile does not know it from some call on.
        let unknown: Vec<usize> = (0..answers.len()).filter(|at| is_unknown(&answers[*at])).collect();
        if !unknown.is_empty() {
            let again: Vec<&Call<'_>> = unknown.iter().map(|at| &calls[*at]).collect();
            let known = self.call_once(script, &again, behind, bounds, effect, true).await?;
            for (at, answer) in unknown.into_iter().zip(known) {
                answers[at] = answer;
            }
        }
        Ok(answers)
    }

    async fn call_once(
        &self,
        script: &Script,
        calls: &[&Call<'_>],
        behind: &[[&[u8]; 3]],
        bounds: Option<Bounds>,
        effect: Effect,
        loads: bool,
    ) -> Result<Vec<Answer>, StorageError> {
        let bytes = |call: &&Call<'_>| {
            128 + call.keys.iter().map(|key| key.len() + 16).sum::<usize>()
                + call.arguments.iter().map(|argument| argument.len() + 16).sum::<usize>()
        };
        let mut request = Request::with_capacity(calls.iter().map(bytes).sum());
        if let Some(bounds) = bounds {
            request.bound(bounds);
        }
        if loads {
            request.add(&[b"SCRIPT", b"LOAD", script.text().as_bytes()]);
        }
        for call in calls {
            let mut command = request.begin(3 + call.keys.len() + call.arguments.len());
            command.arg(b"EVALSHA").arg(script.digest().as_bytes()).number(call.keys.len() as u64);
            for key in &call.keys {
                command.arg(key.as_bytes());
            }
            for argument in &call.arguments {
                argument.write(&mut command);
            }
        }
        for command in behind {
            request.add(&command[..]);
        }
        let replies = self.exchange(&request, effect).await?;
        let mut replies = replies.iter();
        if loads && let Some(Reply::Error(text)) = replies.next() {
            return Err(of_reply(String::from_utf8_lossy(text).into_owned()));
        }
        Ok(replies.take(calls.len()).map(Answer::of).collect())
    }
}

fn is_unknown(answer: &Answer) -> bool {
    matches!(answer, Answer::Error(text) if text.starts_with("NOSCRIPT"))
}
