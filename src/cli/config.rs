//! `tidemill config`: the settings that hold here, with their sources, what is wrong with them, and a file to start from.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::{Environment, Faults, Flags, Settings, document, sample, show};
use crate::server::checking::check;
use crate::traces::TracesSettings;

use super::CliError;
use super::error::chain;
use super::output::{self, Output};

const EXAMPLES: &str = "\
Examples:
  tidemill config show                   every setting, its value and where it came from
  tidemill config show --config t.toml   the same, with a file
  tidemill config check                  whether a relay could start with them
  tidemill config init tidemill.toml     write a file with every setting at its default";

/// The arguments of `tidemill config`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Config {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show every setting with its value and source; secrets as ***
    ///
    /// Takes the same flags, variables and file as `tidemill serve`, and shows what would hold there.
    Show(Show),
    /// Say all that is wrong with the settings, and what should be looked at
    ///
    /// Takes the same flags, variables and file as `tidemill serve`, reads the files that they name, and connects to
    /// nothing: `tidemill doctor` looks at the server, too.
    Check(Check),
    /// Print a table of all settings, as Markdown
    Doc,
    /// Write a commented TOML file with every setting at its default
    Init(Init),
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The form of what is printed
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    output: Output,

    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, clap::Args)]
#[command(after_long_help = EXIT_STATUS)]
struct Check {
    /// The form of what is printed
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    output: Output,

    #[command(flatten)]
    flags: Flags,
}

const EXIT_STATUS: &str = "\
What must hold between settings is looked at where each of them is right by itself.

Exit status: 0 a relay can start with them (!), 2 they are wrong (✗).";

#[derive(Debug, clap::Args)]
struct Init {
    /// Where to write it; printed, if not given. A file that exists is not overwritten
    path: Option<PathBuf>,
}

impl Config {
    pub(super) fn run(self, environment: &Environment) -> Result<(), CliError> {
        match self.action {
            Action::Show(show) => show.run(environment),
            Action::Check(check) => check.run(environment),
            Action::Doc => output::line(document().trim_end()),
            Action::Init(Init { path: None }) => output::line(sample().trim_end()),
            Action::Init(Init { path: Some(path) }) => write(&path),
        }
    }
}

impl Show {
    fn run(&self, environment: &Environment) -> Result<(), CliError> {
        let settings = Settings::load(&self.flags, environment)?;
        let shown = show(&settings);
        if self.output == Output::Json {
            return shown.iter().try_for_each(output::json);
        }
        let mut rows = vec![["SETTING", "VALUE", "SOURCE"].map(str::to_owned)];
        rows.extend(shown.into_iter().map(|shown| {
            let value = shown.value.unwrap_or_else(|| "-".to_owned());
            [shown.name.to_owned(), output::printable(&value), output::printable(&shown.source)]
        }));
        output::line(&output::table(&rows))?;
        for warning in &settings.warnings {
            eprintln!("warning: {warning}");
        }
        Ok(())
    }
}

/// What was found, as it is printed.
#[derive(Debug, Serialize)]
struct Found {
    outcome: &'static str,
    detail: String,
}

impl Check {
    fn run(&self, environment: &Environment) -> Result<(), CliError> {
        let (errors, warnings) = match Settings::examine(&self.flags, environment).and_then(check) {
            Ok(settings) => (Vec::new(), settings.warnings),
            Err(Faults { errors, warnings }) => (errors, warnings),
        };
        let mut errors: Vec<_> = errors.iter().map(|error| chain(error)).collect();
        let traced = TracesSettings::examine(environment).err().unwrap_or_default();
        errors.extend(traced.iter().map(|error| chain(error)));
        let is_wrong = !errors.is_empty();
        let is_told = is_wrong || !warnings.is_empty();
        let errors = errors.into_iter().map(|detail| Found { outcome: "fail", detail });
        for found in errors.chain(warnings.into_iter().map(|detail| Found { outcome: "warn", detail })) {
            match self.output {
                Output::Json => output::json(&found)?,
                Output::Text => {
                    let mark = if found.outcome == "fail" { '✗' } else { '!' };
                    output::line(&format!("{mark} {}", output::printable(&found.detail)))?;
                }
            }
        }
        if is_wrong {
            return Err(CliError::Status(2));
        }
        match self.output {
            // Every object is something that was found.
            Output::Json => Ok(()),
            Output::Text if is_told => {
                output::line("a relay can start with these settings; what is marked `!` should be looked at")
            }
            Output::Text => output::line("a relay can start with these settings"),
        }
    }
}

fn write(path: &Path) -> Result<(), CliError> {
    let failed = |cause: std::io::Error| match cause.kind() {
        std::io::ErrorKind::AlreadyExists => {
            CliError::Usage(format!("{} exists already; remove it, or name another file", path.display()))
        }
        _ => CliError::Failed("cannot write the file", cause.into()),
    };
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
    file.write_all(sample().as_bytes()).map_err(failed)?;
    eprintln!("wrote {0}; start with `tidemill serve --config {0}`", path.display());
    Ok(())
}
