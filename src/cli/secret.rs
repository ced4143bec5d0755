//! `tidemill secret`: makes secrets that nobody can guess.

use secrecy::ExposeSecret as _;

use super::CliError;
use super::output;
use crate::server::administration::new_secret;

/// The arguments of `tidemill secret`.
#[derive(Debug, clap::Args)]
pub struct Secret {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a secret of 256 bits, and print it
    New,
}

impl Secret {
    pub(super) fn run(&self) -> Result<(), CliError> {
        match self.action {
            Action::New => output::line(new_secret().expose_secret()),
        }
    }
}
