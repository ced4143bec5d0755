//! `tidemill doctor`: whether a relay would start, its server can carry it, and clients can reach it, one line per thing that
//! was looked at.

use std::cell::RefCell;
use std::error::Error;
use std::time::Duration;

use clap::{ArgMatches, Args, Command, FromArgMatches};
use secrecy::ExposeSecret as _;
use tidemill_proto::TopicName;
use tokio::runtime::Runtime;

use crate::config::{Environment, Flags, Setting, Settings, Source, known};
use crate::server::checking::{check_issuers, explain_certificate};
use crate::server::wiring::{WiringError, explain_access};
#[cfg(feature = "valkey")]
use crate::storage::valkey::check as valkey;

use super::client::{HeaderFlag, Reach, variable as url_of};
use super::credentials::{self, TokenFlag};
use super::output::{self, Output};
use super::points::life;
use super::trust::TrustFlags;
use super::{CliError, logs, open_files};
use line::{Line, Outcome, Seen};
use outside::Outside;

mod line;
mod outside;
mod socket;
mod told;

const EXAMPLES: &str = "\
Takes the flags, variables and file of `tidemill serve`, and looks at the server that they name, at
the certificate of the relay, the keys of issuers, who would be let in, and how many files may be
open. Where a relay would keep messages in its own memory there is no server: then it says so, and
looks at the rest. Those that say nothing about the server are taken too, and not shown here.

With --url, or TIDEMILL_URL, it looks at a relay that runs, as its clients reach it: the chain of
its certificate and when that ends, HTTP/2, compression, whether the relay knows who calls and under
which URL, whether events of a stream come at once, and WebSockets; and it waits whether silent
connections are cut.
Where no setting says anything, it looks at that alone.

Examples:
  VALKEY_HOST=localhost tidemill doctor                   the server on localhost:6379
  VALKEY_URL=rediss://cache.example.com tidemill doctor   a server with TLS
  tidemill doctor --url https://relay.example.com         a relay, through its proxy
  tidemill doctor --url https://relay.example.com --token @token --idle 60
  tidemill doctor --config tidemill.toml -o json          as JSON, one object a line

Exit status: 0 all can be used (✓, !), 1 not so (✗), 2 the settings are wrong.";

const URL_HELP: &str = "A relay that runs, under the address by which its clients reach it; else the setting `TIDEMILL_PUBLIC_URL` [env: TIDEMILL_URL]";
/// The topic that is followed, unless told. It need not be there.
const TOPIC: &str = "tidemill-doctor";

const WOULD_NOT_START: &str = "the relay would not start";

/// The arguments of `tidemill doctor`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Doctor {
    /// The relay.
    #[arg(long, value_name = "URL", help = URL_HELP)]
    url: Option<String>,

    /// A topic that may be followed there; it need not exist
    #[arg(long, value_name = "TOPIC", value_parser = TopicName::parse, default_value = TOPIC)]
    topic: TopicName,

    /// How long silent connections are to stand; each 15 s the relay gives a sign of life
    #[arg(long, value_name = "DURATION", value_parser = life, default_value = "20s")]
    idle: u64,

    /// Headers of every request.
    #[command(flatten)]
    header: HeaderFlag,

    /// Who calls.
    #[command(flatten)]
    token: TokenFlag,

    /// Whom to trust.
    #[command(flatten)]
    trust: TrustFlags,

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

/// Groups of settings that are looked at.
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

impl Doctor {
    pub(super) fn run(self, environment: &Environment) -> Result<(), CliError> {
        let settings = Settings::load(&self.flags.0, environment)?;
        let (reach, is_named) = self.reach(&settings, environment)?.unzip();
        logs::start_silent();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|cause| CliError::Failed("the runtime cannot start", cause.into()))?;
        let (seen, mut can) = (Seen { form: self.output, lines: RefCell::default() }, Vec::new());
        // Who only names a relay that runs elsewhere asks for nothing here.
        if is_named != Some(true) || !settings.origins.is_empty() {
            can.push(inside(&settings, &runtime, &seen)?);
        }
        if let Some(reach) = &reach {
            let idle = Duration::from_secs(self.idle);
            let outside =
                Outside { reach, topic: &self.topic, idle, is_named: is_named == Some(true), seen: &seen };
            runtime.block_on(outside.look())?;
            if seen.has(|line| line.name == outside::RELAY && line.outcome == Outcome::Pass) {
                can.push("clients can reach the relay");
            }
        }
        let is_any = |outcome| seen.has(|line| line.outcome == outcome);
        if is_any(Outcome::Fail) {
            return Err(CliError::Told);
        }
        let can = can.join(", and ");
        match self.output {
            // Every object is a line.
            Output::Json => Ok(()),
            Output::Text if is_any(Outcome::Warn) => {
                output::line(&format!("{can}; what is marked `!` should be looked at"))
            }
            Output::Text => output::line(&can),
        }
    }

    /// Returns how the relay is reached that the flag or the variable names, or the setting, and whether it was one of the
    /// former.
    fn reach(
        &self,
        settings: &Settings,
        environment: &Environment,
    ) -> Result<Option<(Reach, bool)>, CliError> {
        let (url, source, is_named) = match (&self.url, url_of(environment), &settings.public_url) {
            (Some(url), _, _) => (url.as_str(), "flag --url", true),
            (None, Some(url), _) => (url, "variable TIDEMILL_URL", true),
            (None, None, Some(url)) => (url.as_str(), "setting public_url", false),
            (None, None, None) => return Ok(None),
        };
        let mut headers = self.header.headers();
        if let Some(token) = self.token.token(environment)? {
            credentials::add(&mut headers, &format!("Bearer {}", token.expose_secret()))?;
        }
        let reach = Reach::new(url, source, headers, self.trust.trust(environment)?)?;
        Ok(Some((reach, is_named)))
    }
}

/// Looks at what the settings name; returns what can be done if nothing is wrong, too.
fn inside(settings: &Settings, runtime: &Runtime, seen: &Seen) -> Result<&'static str, CliError> {
    let (lines, can) = match server(settings, runtime)? {
        Some(lines) => (lines, "this server can carry a relay"),
        None => (vec![in_memory(settings)], "this relay can start; it has no server to be looked at"),
    };
    seen.tell(lines)?;
    let can_ask = !seen.has(|line| line.outcome == Outcome::Fail);
    seen.tell(certificate_line(settings))?;
    seen.tell(issuers_line(settings))?;
    // A server that is not there knows nobody.
    if can_ask {
        seen.tell([access_line(runtime.block_on(explain_access(settings)))?])?;
    }
    seen.tell([open_files_line(settings)])?;
    Ok(can)
}

/// Looks whether as many connections can be open as are let in.
fn open_files_line(settings: &Settings) -> Line {
    const NAME: &str = "open files";
    let limit = open_files::limit();
    if let Some([detail, advice]) = open_files::lacking(limit, settings.connections_max) {
        return Line::warn(NAME, detail, advice);
    }
    match limit {
        Some(limit) => {
            Line::pass(NAME, format!("{limit} at most, enough for {} connections", settings.connections_max))
        }
        None => Line::pass(NAME, "there is no limit"),
    }
}

/// Looks at the server that the settings name; `None` where a relay would keep messages in its own memory.
#[cfg(feature = "valkey")]
fn server(settings: &Settings, runtime: &Runtime) -> Result<Option<Vec<Line>>, CliError> {
    if !settings.is_about_a_server() {
        return Ok(None);
    }
    let report = runtime.block_on(valkey::run(&settings.valkey_options()?));
    let mut lines: Vec<Line> = report.lines.into_iter().map(Line::from).collect();
    // As the relay does, which does not start then.
    let stops = |line: &&mut Line| line.name == valkey::EVICTION && line.outcome == Outcome::Warn;
    for line in lines.iter_mut().filter(stops).filter(|_| settings.strict) {
        line.outcome = Outcome::Fail;
        line.detail += "; with TIDEMILL_STRICT the relay does not start";
    }
    Ok(Some(lines))
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
