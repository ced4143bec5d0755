//! `tidemill config`: the settings that hold here, with their sources, and a file to start from.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::config::{Environment, Flags, Settings, sample, show};

use super::CliError;
use super::output::{self, Output};

const EXAMPLES: &str = "\
Examples:
  tidemill config show                   every setting, its value and where it came from
  tidemill config show --config t.toml   the same, with a file
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
struct Init {
    /// Where to write it; printed, if not given. A file that exists is not overwritten
    path: Option<PathBuf>,
}

impl Config {
    pub(super) fn run(self, environment: &Environment) -> Result<(), CliError> {
        match self.action {
            Action::Show(show) => show.run(environment),
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
