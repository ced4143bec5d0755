//! Logs: where they go and in which form. They go to standard error, so that standard output holds
//! only what a command prints.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogLevel};

/// What the relay itself logs as, all crates of it.
const OWN: &str = "tidemill";

/// What says nothing that the relay does not say itself: the client library's own log, which calls
/// every reconnect an error, and what repeats a refused certificate with paths of the build.
const SILENT: [&str; 2] = ["glide_logger", "rustls_platform_verifier"];

/// Starts logging. Must come before the first connection to Valkey: its client library sets up logs
/// of its own where it finds none.
///
/// Of libraries no more than warnings is logged, whatever the level: some of them write what they read into their
/// log, payloads and tokens too, and each attempt to connect.
pub(super) fn start(level: LogLevel, format: LogFormat) {
    let libraries = if level == LogLevel::Error { LogLevel::Error } else { LogLevel::Warn };
    let silent = SILENT.map(|target| format!(",{target}=off"));
    start_with(&format!("{},{OWN}={}{}", libraries.as_str(), level.as_str(), silent.concat()), format);
}

/// Starts logging of a command that says itself, in what it prints, what went wrong: of the libraries
/// nothing is logged. Must come before the first connection to Valkey.
pub(super) fn start_silent() {
    start_with(&format!("off,{OWN}=error"), LogFormat::Auto);
}

fn start_with(directives: &str, format: LogFormat) {
    let filter = EnvFilter::new(directives);
    let is_terminal = io::stderr().is_terminal();
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(is_terminal);
    let is_text = match format {
        LogFormat::Auto => is_terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    // In one process logging starts once; a second start (in a test) changes nothing.
    let _ = if is_text { builder.try_init() } else { builder.json().flatten_event(true).try_init() };
}
