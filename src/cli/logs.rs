//! Logs: where they go and in which form. They go to standard error, so that standard output holds
//! only what a command prints.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogLevel, LogLevels};

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
///
/// Returns what has it tell more or less.
pub(super) fn start(levels: &LogLevels, format: LogFormat) -> Box<dyn Fn(&LogLevels) + Send + Sync> {
    let set = start_with(&directives(levels), format);
    Box::new(move |levels| set(&directives(levels)))
}

/// Returns these levels as the filter of logs reads them.
fn directives(levels: &LogLevels) -> String {
    let level = levels.level;
    let libraries = if level == LogLevel::Error { LogLevel::Error } else { LogLevel::Warn };
    let silent = SILENT.map(|target| format!(",{target}=off"));
    let modules = levels.modules.iter().map(|(module, level)| format!(",{module}={}", level.as_str()));
    let modules: String = modules.collect();
    format!("{},{OWN}={}{}{modules}", libraries.as_str(), level.as_str(), silent.concat())
}

/// Starts logging of a command that says itself, in what it prints, what went wrong: of the libraries
/// nothing is logged. Must come before the first connection to Valkey.
pub(super) fn start_silent() {
    drop(start_with(&format!("off,{OWN}=error"), LogFormat::Auto));
}

/// Starts logging; returns what replaces the filter.
fn start_with(directives: &str, format: LogFormat) -> Box<dyn Fn(&str) + Send + Sync> {
    let filter = EnvFilter::new(directives);
    let is_terminal = io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(is_terminal);
    let is_text = match format {
        LogFormat::Auto => is_terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    // In one process logging starts once; a second start (in a test) changes nothing.
    if is_text {
        let builder = builder.with_env_filter(filter).with_filter_reloading();
        let handle = builder.reload_handle();
        let _ = builder.try_init();
        // It is there as long as the process.
        Box::new(move |directives| drop(handle.reload(EnvFilter::new(directives))))
    } else {
        let builder = builder.json().flatten_event(true).with_env_filter(filter).with_filter_reloading();
        let handle = builder.reload_handle();
        let _ = builder.try_init();
        Box::new(move |directives| drop(handle.reload(EnvFilter::new(directives))))
    }
}
