//! `tidemill completions`: what a shell needs to complete this command line.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, CliError};

const EXAMPLES: &str = "\
Examples:
  tidemill completions bash > ~/.local/share/bash-completion/completions/tidemill
  tidemill completions zsh > \"${fpath[1]}/_tidemill\"
  tidemill completions fish > ~/.config/fish/completions/tidemill.fish";

/// The arguments of `tidemill completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> Result<(), CliError> {
        // Into memory first: the generator panics where its output cannot be written.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "tidemill", &mut script);
        super::output::line(String::from_utf8_lossy(&script).trim_end())
    }
}
