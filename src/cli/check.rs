//! `tidemill check`: whether a relay would start, and its server can carry it, one line per thing that was looked at.

use std::error::Error;

use clap::{ArgMatches, Args, Command, FromArgMatches};
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::config::{Environment, Flags, Setting, Settings, Source, known};
use crate::server::wiring::{WiringError, check_issuers, explain_access, explain_certificate};
#[cfg(feature = "valkey")]
use crate::storage::valkey::check as valkey;

use super::output::{self, Output};
use super::{CliError, logs};

const EXAMPLES: &str = "\
Takes the flags, variables and file of `tidemill serve`, and looks at the server that they name, at
the certificate of the relay, the keys of issuers, and who would be let in. Where a relay would keep
messages in its own memory there is no server: then it says so, and looks at the rest.
Those that say nothing about the server are taken too, and not shown here.

Examples:
  VALKEY_HOST=localhost tidemill check                    the server on localhost:6379
  VALKEY_URL=rediss://cache.example.com tidemill check    a server with TLS
  tidemill check --config tidemill.toml -o json           as JSON, one object a line

Exit status: 0 a relay would start, and the server can carry it (✓, !), 1 not so (✗), 2 the settings
are wrong.";

const WOULD_NOT_START: &str = "the relay would not start";

/// The arguments of `tidemill check`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Check {
    /// The form of what is printed
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    output: Output,

    #[command(flatten)]
    flags: OfServer,
}

/// The flags of `tidemill serve`, all of which are taken. Those that say nothing about the server are not
/// shown.
#[derive(Debug)]
struct OfServer(Flags);

/// Groups of settings that a check looks at.
const SHOWN: [&str; 2] = ["Access", "Valkey"];
/// Settings of those groups that it does not look at.
const NOT_SHOWN: [&str; 7] = [
    "access_stale_ms",
    "access_token_expire_minutes",
    "refresh_token_ttl_days",
    "cookie_expire_hours",
    "publish_queue_messages_max",
    "publish_queue_bytes_max",
    "strict",
];

impl Args for OfServer {
    fn augment_args(command: Command) -> Command {
        let is_shown = |setting: &&Setting| {
            SHOWN.contains(&setting.heading.as_str()) && !NOT_SHOWN.contains(&setting.id)
        };
        let hidden = known().iter().filter(|setting| !is_shown(setting));
        let command = Flags::augment_args(command);
        hidden.fold(command, |command, setting| command.mut_arg(setting.id, |arg| arg.hide(true)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for OfServer {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Flags::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

/// How one check went, as it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// Good.
    Pass,
    /// Works, but something should be looked at.
    Warn,
    /// Does not work.
    Fail,
}

/// One thing that was checked, as it is printed.
#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    outcome: Outcome,
    detail: String,
    advice: Option<String>,
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

impl Check {
    pub(super) fn run(self, environment: &Environment) -> Result<(), CliError> {
        let settings = Settings::load(&self.flags.0, environment)?;
        logs::start_silent();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|cause| CliError::Failed("the runtime cannot start", cause.into()))?;
        let (mut lines, can) = match server(&settings, &runtime)? {
            Some(lines) => (lines, "this server can carry a relay"),
            None => (vec![in_memory(&settings)], "this relay can start; it has no server to be looked at"),
        };
        let failed = |lines: &[Line]| lines.iter().any(|line| line.outcome == Outcome::Fail);
        let can_ask = !failed(&lines);
        lines.extend(certificate_line(&settings));
        lines.extend(issuers_line(&settings));
        // A server that is not there knows nobody.
        if can_ask {
            lines.push(access_line(runtime.block_on(explain_access(&settings)))?);
        }
        for line in &lines {
            match self.output {
                Output::Json => output::json(line)?,
                Output::Text => output::line(&text(line))?,
            }
        }
        if failed(&lines) {
            return Err(CliError::Told);
        }
        match self.output {
            // Every object is a check.
            Output::Json => Ok(()),
            Output::Text if lines.iter().any(|line| line.outcome == Outcome::Warn) => {
                output::line(&format!("{can}; what is marked `!` should be looked at"))
            }
            Output::Text => output::line(can),
        }
    }
}

/// Looks at the server that the settings name; `None` where a relay would keep messages in its own memory.
#[cfg(feature = "valkey")]
fn server(settings: &Settings, runtime: &Runtime) -> Result<Option<Vec<Line>>, CliError> {
    if !settings.is_about_a_server() {
        return Ok(None);
    }
    let report = runtime.block_on(valkey::run(&settings.valkey_options()?));
    Ok(Some(report.lines.into_iter().map(Line::from).collect()))
}

/// Returns `None`: this build keeps messages in memory alone.
#[cfg(not(feature = "valkey"))]
#[expect(clippy::unnecessary_wraps, reason = "where there can be a server, the settings can name it wrongly")]
fn server(_settings: &Settings, _runtime: &Runtime) -> Result<Option<Vec<Line>>, CliError> {
    Ok(None)
}

fn in_memory(settings: &Settings) -> Line {
    let from = match settings.source("storage_backend") {
        Source::Default => "because nothing says otherwise".to_owned(),
        source => format!("from {source}"),
    };
    let detail = format!(
        "messages are kept in the memory of the relay ({from}), and are gone when it ends; there is no server to be looked at, and whether the memory is enough is not checked"
    );
    let advice = "to keep them, set STORAGE_BACKEND=valkey and name a server, as with VALKEY_URL";
    Line { name: "backend", outcome: Outcome::Pass, detail, advice: Some(advice.to_owned()) }
}

/// Looks at the certificate, where the relay would show one.
fn certificate_line(settings: &Settings) -> Option<Line> {
    let line = |outcome, detail, advice| Line { name: "certificate", outcome, detail, advice };
    match explain_certificate(settings) {
        Ok(told) => told.map(|told| match told {
            Ok(detail) => line(Outcome::Pass, detail, None),
            Err(detail) => line(Outcome::Warn, detail, None),
        }),
        Err(error) => Some(line(Outcome::Fail, WOULD_NOT_START.to_owned(), Some(sentence(&error)))),
    }
}

/// Looks at the keys of issuers, where some are named. None is fetched: an issuer may be away for a while.
fn issuers_line(settings: &Settings) -> Option<Line> {
    let line = |outcome, detail, advice| Line { name: "issuers", outcome, detail, advice };
    match check_issuers(settings) {
        Ok(0) => None,
        Ok(count) => {
            let detail = format!("{count} named; keys behind URLs are not fetched here, others can be used");
            Some(line(Outcome::Pass, detail, None))
        }
        Err(error) => Some(line(Outcome::Fail, WOULD_NOT_START.to_owned(), Some(sentence(&error)))),
    }
}

/// Returns the text of an error with those of its causes.
fn sentence(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause: &&(dyn Error + 'static)| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn access_line(access: Result<Result<String, String>, WiringError>) -> Result<Line, CliError> {
    let line = |outcome, detail, advice| Line { name: "access", outcome, detail, advice };
    match access {
        Ok(Ok(detail)) => Ok(line(Outcome::Pass, detail, None)),
        Ok(Err(detail)) => Ok(line(Outcome::Warn, detail, None)),
        Err(WiringError::Settings(error)) => {
            Ok(line(Outcome::Fail, WOULD_NOT_START.to_owned(), Some(sentence(&error))))
        }
        Err(cause) => Err(CliError::Failed("it cannot be told who is let in", Box::new(cause))),
    }
}

fn text(line: &Line) -> String {
    let mark = match line.outcome {
        Outcome::Pass => '✓',
        Outcome::Warn => '!',
        Outcome::Fail => '✗',
    };
    let mut text = format!("{mark} {}: {}", line.name, output::printable(&line.detail));
    if let Some(advice) = &line.advice {
        text.push_str("\n    ");
        text.push_str(&output::printable(advice));
    }
    text
}
