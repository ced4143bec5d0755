//! The process: parses the command line, runs the command, exits with its code.

use std::process::ExitCode;

use tidemill::cli;

/// Gives back to the system what was freed, so that what is counted is what the process takes.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // What is not UTF-8 cannot be a value of ours; where it is a path, the error shows it.
    let variable = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
    };
    let environment = std::env::vars_os().map(variable).collect();
    cli::run(cli::parse(), &environment)
}
