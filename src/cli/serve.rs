//! `tidemill serve`: runs a relay from its settings until a signal.
//!
//! It owns the process around the relay: logs, runtime, signals, and the lines that greet a newcomer.

use std::io::{self, IsTerminal as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;

use clap::builder::UnknownArgumentValueParser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::client::reachable;
use super::{CliError, logs, manager, open_files, output};
use crate::config::{Backend, Environment, Flags, Settings};
use crate::server::reload::Again;
use crate::server::wiring::{Node, WiringError};
use crate::server::{Bound, ServeError};
use crate::traces::{Traces, TracesSettings};

const EXAMPLES: &str = "\
Every setting is a flag, a variable, and a key of the file (`drain_ms` for --drain-ms); a flag wins
over a variable, which wins over the file. `tidemill config show` tells what holds.

Examples:
  tidemill serve
  TIDEMILL_ADMIN_PASSWORD_FILE=admin.txt tidemill serve --listen 0.0.0.0:8080
  tidemill serve --listen 127.0.0.1:8443 --tls-cert cert.pem --tls-key key.pem
  STORAGE_BACKEND=valkey VALKEY_URL=redis://cache:6379 tidemill serve
  tidemill serve --config tidemill.toml

SIGTERM and SIGINT stop it: it accepts nothing more, finishes what is under way, and exits with 0.
A second signal ends it at once. SIGHUP has it read its settings again, as `tidemill reload` does.
As a service of systemd it says when it is ready (NOTIFY_SOCKET, WATCHDOG_USEC), and takes the
socket that it is given (LISTEN_FDS), which must be bound to the address in TIDEMILL_LISTEN.";

/// The arguments of `tidemill serve`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Serve {
    #[command(flatten)]
    flags: Flags,

    // What newcomers write, to tell them what is meant.
    #[arg(long = "port", hide = true, num_args = 0..=1)]
    #[arg(value_parser = UnknownArgumentValueParser::suggest_arg("--listen").and_suggest("as in `--listen 127.0.0.1:8081`"))]
    _port: Option<String>,
    #[arg(hide = true, value_name = "ARGUMENT", value_parser = stray)]
    _stray: Option<String>,
}

/// Refuses what stands alone: no setting does.
fn stray(_: &str) -> Result<String, &'static str> {
    Err("it belongs to no flag; the value of a switch stands behind `=`, as in `--docs=false`")
}

impl Serve {
    pub(super) fn run(self, environment: &Environment) -> Result<(), CliError> {
        let settings = Settings::load(&self.flags, environment)?;
        let handed = manager::handed_socket(settings.listen)?;
        let log = logs::start(&settings.log_level, settings.log_format);
        for warning in &settings.warnings {
            tracing::warn!("{warning}");
        }
        let files = open_files::raise();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        if let Some(threads) = settings.worker_threads {
            runtime.worker_threads(threads);
        }
        let runtime = runtime
            .enable_all()
            .build()
            .map_err(|cause| CliError::Failed("the runtime cannot start", cause.into()))?;
        let traced =
            TracesSettings::read(environment).and_then(|traced| traced.map(Traces::start).transpose());
        let sending = traced.map_err(|error| CliError::Usage(error.to_string()))?;
        let (flags, environment) = (self.flags, environment.clone());
        let load = Arc::new(move || Settings::examine(&flags, &environment));
        let result = runtime.block_on(serve(&settings, handed, files, Again { load, log }));
        if let Some(sending) = sending {
            sending.stop();
        }
        // Behind what the sending of spans may say: it is the last line.
        match result {
            Ok(Ok(())) => tracing::info!("stopped"),
            Ok(Err(_)) => tracing::warn!("stopped before everything was done"),
            Err(_) => {}
        }
        result?
    }
}

/// Serves, with so many files open at the most; returns what came of it, or why it could not begin.
async fn serve(
    settings: &Settings,
    handed: Option<TcpListener>,
    files: Option<u64>,
    again: Again,
) -> Result<Result<(), CliError>, CliError> {
    // Before listening, so that no signal finds the process without a handler.
    let mut signals = Signals::new()?;
    let failed = |cause| match cause {
        WiringError::Settings(error) => CliError::Config(error),
        WiringError::Serve(ServeError::Listen { address, source })
            if source.kind() == io::ErrorKind::AddrInUse =>
        {
            CliError::AddressTaken(address)
        }
        cause => CliError::Failed("the relay cannot serve", Box::new(cause)),
    };
    let mut node = Node::bind(settings, handed).await.map_err(failed)?;
    if let Some([few, advice]) = open_files::lacking(files, settings.connections_max) {
        tracing::warn!("open files: {few}; {advice}");
    }
    let reloads = node.read_again(settings, again);
    // For people alone: who starts the relay from a program reads its log, which says where it listens. It
    // serves whether or not someone reads its greeting.
    if io::stderr().is_terminal() {
        let _ = greet(settings, node.local_addrs());
    }

    manager::tell_ready();
    let stop = CancellationToken::new();
    let told = async {
        // Not inside the macro: where a level is off, nothing in it is run, so nothing is waited for.
        let signal = loop {
            match signals.next().await {
                // What came of it is in the log.
                RELOAD => {
                    manager::tell_reloading();
                    drop(reloads.ask(RELOAD.to_owned()).await);
                    manager::tell_ready();
                }
                signal => break signal,
            }
        };
        tracing::info!(signal, "stopping");
        manager::tell_stopping();
        stop.cancel();
        let signal = loop {
            match signals.next().await {
                RELOAD => {}
                signal => break signal,
            }
        };
        tracing::warn!(signal, "stopping at once");
    };
    Ok(tokio::select! {
        result = node.run(stop.clone().cancelled_owned()) => result.map_err(failed),
        () = told => Err(CliError::Told),
        never = manager::tell_alive() => match never {},
    })
}

/// The signal that has settings read again.
const RELOAD: &str = "SIGHUP";

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    reload: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, CliError> {
        let open =
            |kind| signal(kind).map_err(|cause| CliError::Failed("cannot listen for signals", cause.into()));
        Ok(Self {
            terminate: open(SignalKind::terminate())?,
            interrupt: open(SignalKind::interrupt())?,
            reload: open(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.reload.recv() => RELOAD,
        }
    }
}

/// Prints what this is, where it listens, what it keeps, and two lines to try it with.
fn greet<'a>(settings: &Settings, bound: impl Iterator<Item = &'a Bound>) -> io::Result<()> {
    let mut bound = bound.peekable();
    // Where clients on this machine reach it, which an address for all of its networks does not tell.
    let url = bound.peek().map_or_else(String::new, |Bound { url, address }| match address {
        Some(address) => url.replace(&address.to_string(), &reachable(*address).to_string()),
        None => url.clone(),
    });
    let mut out = io::stderr().lock();
    writeln!(out, "Tidemill {}, a persistent message relay", env!("CARGO_PKG_VERSION"))?;
    for (at, bound) in bound.enumerate() {
        let documentation = if at == 0 { format!(" (documentation at {url}/docs)") } else { String::new() };
        writeln!(out, "  listening on  {bound}{documentation}")?;
    }
    writeln!(out, "  messages      {}", kept(settings))?;
    if !settings.is_open() {
        writeln!(out, "Who calls has to say so. Make a token, then publish with it and read back:")?;
        writeln!(
            out,
            "  tidemill token new demo --rule 'allow publish,read *' --url {url} --user {} > token.txt",
            settings.admin_name
        )?;
        writeln!(out, "  tidemill publish demo '{{\"hello\":\"tide\"}}' --url {url} --token @token.txt")?;
        writeln!(out, "  tidemill read demo --url {url} --token @token.txt")?;
        return out.flush();
    }
    writeln!(out, "Publish a message, then read it back:")?;
    writeln!(
        out,
        "  curl -H 'content-type: application/json' -d '{{\"hello\":\"tide\"}}' {url}/api/v1/topics/demo/messages"
    )?;
    writeln!(out, "  curl {url}/api/v1/topics/demo/messages")?;
    out.flush()
}

/// Tells in a phrase where messages are kept, and for how long.
fn kept(settings: &Settings) -> String {
    let count = settings.max_messages_per_topic;
    let bounds = match settings.persistent_tier_retention {
        0 => format!("the newest {count} of each topic"),
        seconds => format!("for {}, the newest {count} of each topic", span(seconds)),
    };
    match settings.storage_backend {
        Backend::Memory => format!("kept in memory, {bounds}; they are gone when the process ends"),
        #[cfg(feature = "valkey")]
        Backend::Valkey => match settings.valkey_target() {
            Ok(target) => match settings.servers_beside() {
                0 => format!("kept in {target}, {bounds}"),
                beside => format!("kept in {target}, and by their names in {beside} more, {bounds}"),
            },
            Err(_) => format!("kept in Valkey, {bounds}"),
        },
        #[cfg(not(feature = "valkey"))]
        Backend::Valkey => format!("kept in Valkey, {bounds}"),
    }
}

/// Returns seconds in the largest unit that leaves no rest.
fn span(seconds: u64) -> String {
    let (count, unit) = match seconds {
        _ if seconds.is_multiple_of(86_400) => (seconds / 86_400, "day"),
        _ if seconds.is_multiple_of(3_600) => (seconds / 3_600, "hour"),
        _ if seconds.is_multiple_of(60) => (seconds / 60, "minute"),
        _ => (seconds, "second"),
    };
    output::counted(count, unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_people_say_them() {
        let cases = [(86_400, "1 day"), (7_200, "2 hours"), (60, "1 minute"), (90, "90 seconds")];
        for (seconds, text) in cases {
            assert_eq!(span(seconds), text);
        }
    }
}
