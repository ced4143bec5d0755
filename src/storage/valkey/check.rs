//! Proof that a server can carry the relay: connects, probes, and says what to do about what it finds.
//! This version stands in for it until the backend is there.

use serde::Serialize;

use super::ValkeyOptions;

/// How one check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Good.
    Pass,
    /// Works, but something should be changed.
    Warn,
    /// Does not work.
    Fail,
}

/// One thing that was checked.
#[derive(Clone, Debug, Serialize)]
pub struct CheckLine {
    /// What was checked.
    pub name: &'static str,
    /// How it went.
    pub outcome: Outcome,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub advice: Option<String>,
}

/// Everything that was checked, in order.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// The lines.
    pub lines: Vec<CheckLine>,
}

/// Checks a server.
#[must_use]
#[expect(clippy::unused_async, reason = "the backend that takes this place waits for the server")]
pub async fn run(options: &ValkeyOptions) -> CheckReport {
    let detail = format!("{} was not asked: there is no backend in this build", options.target);
    CheckReport { lines: vec![CheckLine { name: "connect", outcome: Outcome::Fail, detail, advice: None }] }
}
