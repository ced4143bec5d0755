//! `tidemill bench`: the load generator of `tidemill-bench`, and what becomes of its report.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::PathBuf;

use secrecy::ExposeSecret;
use tidemill_bench::{Part, Plan, Report, Surroundings, page};

use super::client::url_or_default;
use super::credentials::TokenFlag;
use super::output::{self, Output};
use super::{CliError, open_files};
use crate::clock::Clock;
use crate::config::Environment;

const EXAMPLES: &str = "\
Examples:
  tidemill bench publish                                 as fast as 50 connections can
  tidemill bench publish --url redis://127.0.0.1:6379    the same to a bare server
  tidemill bench fanout --subscribers 100                deliveries a second, every message checked
  tidemill bench latency --rate 200                      from publish to receipt
  tidemill bench publish --html report.html -o json      also a page with charts, and JSON
  tidemill bench compare --a redis://127.0.0.1:6379 --b valkey://127.0.0.1:6380

`tidemill bench publish --help` tells the flags of one scenario. A run makes topics of its own
(bench-…) and deletes them at its end, also when it fails or is interrupted; on a relay that others
use, it takes its share of it.

Only this machine is loaded, unless --allow-remote is given. The exit status is 1 if anything failed
or any message was lost.";

/// The arguments of `tidemill bench`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, arg_required_else_help = true)]
pub struct Bench {
    #[command(flatten)]
    plan: Plan,

    /// Who calls.
    #[command(flatten)]
    token: TokenFlag,

    /// Also write a page with charts
    #[arg(long, value_name = "PATH", global = true)]
    html: Option<PathBuf>,

    /// The form of what is printed
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t, global = true)]
    output: Output,
}

impl Bench {
    pub(super) fn run(self, environment: &Environment) -> Result<(), CliError> {
        // Before the load: a path that cannot be written to must not cost the figures.
        let open = |path| OpenOptions::new().create(true).write(true).truncate(false).open(path);
        let unwritten =
            |cause: io::Error| CliError::Failed("the page of --html cannot be written", cause.into());
        let html = self.html.as_ref().map(open).transpose().map_err(unwritten)?;
        let token = self.token.token(environment)?;
        let report = self.plan.run(&Surroundings {
            url: url_or_default(environment),
            token: token.as_ref().map(ExposeSecret::expose_secret),
            open_files_max: open_files::raise(),
            now: || Clock::system().now(),
        })?;
        let written = html.map_or(Ok(()), |mut html| {
            html.set_len(0)?;
            html.write_all(page(&report).as_bytes())
        });
        match self.output {
            Output::Json => output::json(&report)?,
            Output::Text => output::line(&text(&report))?,
        }
        written.map_err(unwritten)?;
        if report.is_clean() { Ok(()) } else { Err(CliError::Told) }
    }
}

/// Returns a report as text for a terminal.
fn text(report: &Report) -> String {
    let part = |part: Part| match part {
        Part::Table(rows) => output::table(&rows),
        Part::Line(line) => output::printable(&line),
    };
    report.parts().into_iter().map(part).collect::<Vec<_>>().join("\n")
}
