//! Logs: where they go and in which form. They go to standard error, so that standard output holds
//! only what a command prints.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogLevel};

/// What the client library of Valkey and the libraries under it log as. They report each attempt to
/// connect at `info`; the relay says itself, once, when a connection is lost and found again.
const CHATTY: [&str; 7] = ["glide", "glide_core", "logger_core", "redis", "hyper", "hyper_util", "rustls"];

/// What says nothing that the relay does not say itself: the client library's own log, which calls
/// every reconnect an error.
const SILENT: &str = "glide_logger";

/// Starts logging. Must come before the first connection to Valkey: its client library sets up logs
/// of its own where it finds none.
pub(super) fn start(level: LogLevel, format: LogFormat) {
    let chatty = if level == LogLevel::Error { LogLevel::Error } else { LogLevel::Warn };
    let directives = CHATTY.map(|target| format!(",{target}={}", chatty.as_str()));
    let filter = EnvFilter::new(format!("{}{},{SILENT}=off", level.as_str(), directives.concat()));
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
