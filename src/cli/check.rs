//! `tidemill check`: whether a server can carry a relay, one line per thing that was looked at.

use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::config::{Environment, Flags, Setting, known};

use super::CliError;
use super::output::Output;

const EXAMPLES: &str = "\
Takes the flags, variables and file of `tidemill serve`, and looks at the server that they name, and
at who would be let in.
Those that say nothing about the server are taken too, and not shown here.

Examples:
  tidemill check                                          the server on localhost:6379
  VALKEY_URL=rediss://cache.example.com tidemill check    a server with TLS
  tidemill check --config tidemill.toml -o json           as JSON, one object a line

Exit status: 0 the server can carry a relay (✓, !), 1 it cannot (✗), 2 the settings are wrong.";

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

#[cfg(not(feature = "valkey"))]
impl Check {
    pub(super) fn run(self, _environment: &Environment) -> Result<(), CliError> {
        let _ = (self.output, self.flags.0);
        let why = "this build of Tidemill has no Valkey backend; build it with the cargo feature `valkey`";
        Err(CliError::Usage(why.to_owned()))
    }
}

#[cfg(feature = "valkey")]
mod checking {
    use super::super::{logs, output};
    use super::{Check, CliError, Environment, Output};
    use crate::config::Settings;
    use crate::server::wiring::{WiringError, explain_access};
    use crate::storage::valkey::check::{self, CheckLine, CheckReport, Outcome};

    impl Check {
        pub(in super::super) fn run(self, environment: &Environment) -> Result<(), CliError> {
            let settings = Settings::load(&self.flags.0, environment)?;
            let options = settings.valkey_options()?;
            logs::start_silent();
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .map_err(|cause| CliError::Failed("the runtime cannot start", cause.into()))?;
            let mut report = runtime.block_on(check::run(&options));
            // A server that is not there knows nobody.
            if report.lines.iter().all(|line| line.outcome != Outcome::Fail) {
                report.lines.push(access_line(runtime.block_on(explain_access(&settings)))?);
            }
            for line in &report.lines {
                match self.output {
                    Output::Json => output::json(line)?,
                    Output::Text => output::line(&text(line))?,
                }
            }
            if !report.passed() {
                return Err(CliError::Told);
            }
            match self.output {
                // Every object is a check.
                Output::Json => Ok(()),
                Output::Text => output::line(verdict(&report)),
            }
        }
    }

    fn access_line(access: Result<Result<String, String>, WiringError>) -> Result<CheckLine, CliError> {
        let line = |outcome, detail, advice| CheckLine { name: "access", outcome, detail, advice };
        match access {
            Ok(Ok(detail)) => Ok(line(Outcome::Pass, detail, None)),
            Ok(Err(detail)) => Ok(line(Outcome::Warn, detail, None)),
            Err(WiringError::Settings(error)) => {
                Ok(line(Outcome::Fail, "the relay would not start".to_owned(), Some(error.to_string())))
            }
            Err(cause) => Err(CliError::Failed("it cannot be told who is let in", Box::new(cause))),
        }
    }

    fn verdict(report: &CheckReport) -> &'static str {
        if report.lines.iter().any(|line| line.outcome == Outcome::Warn) {
            "this server can carry a relay; what is marked `!` should be looked at"
        } else {
            "this server can carry a relay"
        }
    }

    fn text(line: &CheckLine) -> String {
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
}
