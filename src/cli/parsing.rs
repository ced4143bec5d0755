//! Reading the command line, and what to write in place of what is not understood.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory as _, Parser as _};

use super::Cli;

/// Reads the command line of the process. Where it is not understood, says so, and ends the process.
#[must_use]
pub fn parse() -> Cli {
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    Cli::try_parse().unwrap_or_else(|error| advised(error, &words).exit())
}

/// Adds to an error what to do, where a command to be run is not behind `--`.
fn advised(mut error: clap::Error, words: &[String]) -> clap::Error {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg) else { return error };
    if error.kind() == ErrorKind::UnknownArgument && !word.starts_with('-') && runs_a_command(words) {
        let tip = format!("the command to be run comes behind `--`: `-- {word}`");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// Whether the words name one of our commands that runs another.
fn runs_a_command(words: &[String]) -> bool {
    fn is_run_by(command: &Command, words: &[String]) -> bool {
        let found = words
            .iter()
            .enumerate()
            .find_map(|(at, word)| command.find_subcommand(word).map(|command| (command, &words[at + 1..])));
        match found {
            Some((command, words)) => is_run_by(command, words),
            None => command.get_arguments().any(clap::Arg::is_last_set),
        }
    }
    is_run_by(&Cli::command(), words.get(1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_is_not_behind_its_dashes_is_told_where_it_comes() {
        let told = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let error = Cli::try_parse_from(&words).expect_err(line);
            advised(error, &words).to_string()
        };
        for line in ["tidemill lock nightly ./report", "tidemill work jobs -g workers ./report --fast"] {
            let told = told(line);
            assert!(told.contains("comes behind `--`: `-- ./report`"), "{line}: {told}");
        }
        for line in
            ["tidemill locks nightly", "tidemill lock nightly --tll 3s -- ./report", "tidemill read t u"]
        {
            assert!(!told(line).contains("comes behind"), "{line}");
        }
    }
}
