//! What was looked at, as it is printed: a line each, with what to do about it.

use std::cell::RefCell;

use serde::Serialize;

#[cfg(feature = "valkey")]
use crate::storage::valkey::check as valkey;

use crate::cli::CliError;
use crate::cli::output::{self, Output};

/// What was looked at. Each line is printed as soon as it is known.
pub(super) struct Seen {
    pub(super) form: Output,
    pub(super) lines: RefCell<Vec<Line>>,
}

impl Seen {
    /// Prints lines, and keeps them.
    pub(super) fn tell(&self, lines: impl IntoIterator<Item = Line>) -> Result<(), CliError> {
        for line in lines {
            match self.form {
                Output::Json => output::json(&line)?,
                Output::Text => output::line(&line.text())?,
            }
            self.lines.borrow_mut().push(line);
        }
        Ok(())
    }

    /// Whether there is such a line.
    pub(super) fn has(&self, is_meant: impl Fn(&Line) -> bool) -> bool {
        self.lines.borrow().iter().any(is_meant)
    }
}

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// Good.
    Pass,
    /// Works, but something should be looked at.
    Warn,
    /// Does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) outcome: Outcome,
    pub(super) detail: String,
    pub(super) advice: Option<String>,
}

impl Line {
    pub(super) fn pass(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Pass, detail: detail.into(), advice: None }
    }

    pub(super) fn warn(name: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Warn, detail: detail.into(), advice: Some(advice.into()) }
    }

    pub(super) fn fail(name: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Fail, detail: detail.into(), advice: Some(advice.into()) }
    }

    /// Returns it as text for people.
    pub(super) fn text(&self) -> String {
        let mark = match self.outcome {
            Outcome::Pass => '✓',
            Outcome::Warn => '!',
            Outcome::Fail => '✗',
        };
        let mut text = format!("{mark} {}: {}", self.name, output::printable(&self.detail));
        if let Some(advice) = &self.advice {
            text.push_str("\n    ");
            text.push_str(&output::printable(advice));
        }
        text
    }
}

#[cfg(feature = "valkey")]
impl From<valkey::CheckLine> for Line {
    fn from(line: valkey::CheckLine) -> Self {
        let valkey::CheckLine { name, outcome, detail, advice } = line;
        let outcome = match outcome {
            valkey::Outcome::Pass => Outcome::Pass,
            valkey::Outcome::Warn => Outcome::Warn,
            valkey::Outcome::Fail => Outcome::Fail,
        };
        Self { name, outcome, detail, advice }
    }
}
