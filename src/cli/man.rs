//! `tidemill man`: the manual pages of this command line, for packages.

use std::path::PathBuf;

use clap::CommandFactory as _;

use super::{Cli, CliError, output};

const EXAMPLES: &str = "\
Examples:
  tidemill man /usr/local/share/man/man1
  tidemill man . && man ./tidemill.1";

/// The arguments of `tidemill man`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Man {
    /// The folder in which they are written, a file for each command
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

impl Man {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let failed =
            |cause: std::io::Error| CliError::Failed("the manual pages cannot be written", cause.into());
        std::fs::create_dir_all(&self.folder).map_err(failed)?;
        clap_mangen::generate_to(Cli::command(), &self.folder).map_err(failed)?;
        let pages = std::fs::read_dir(&self.folder).map_err(failed)?;
        let is_ours = |name: &str| name.starts_with("tidemill") && name.ends_with(".1");
        let names = pages.filter_map(|page| page.ok()?.file_name().into_string().ok());
        let count = names.filter(|name| is_ours(name)).count();
        output::line(&format!("{} in {}", output::counted(count as u64, "page"), self.folder.display()))
    }
}
