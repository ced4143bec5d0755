//! Asking before something is deleted. It must not know what.

use std::io::{self, IsTerminal as _, Write as _};

use super::CliError;

/// Asks on the terminal, and returns whether the answer is yes. Where nobody can be asked, `deletes` says in the error
/// what would be done.
pub(super) async fn confirm(
    deletes: &str,
    question: impl Future<Output = Result<String, CliError>>,
) -> Result<bool, CliError> {
    if !io::stdin().is_terminal() {
        return Err(CliError::Usage(format!("{deletes}; add --yes to do it without being asked")));
    }
    let question = question.await?;
    let mut err = io::stderr().lock();
    write!(err, "{question} [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    let is_yes = matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes");
    if !is_yes {
        eprintln!("kept");
    }
    Ok(is_yes)
}
