//! The command line: what the commands are, and what their exit codes mean.
//!
//! One file per command. Commands that speak to a relay do so over HTTP or through
//! [`tidemill_client`], like any client: they know the wire contract and no room of the relay.
//!
//! Exit codes: 0 success, 1 the command failed, 2 it was not understood (flags, settings, input).

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Environment;
pub use parsing::parse;

mod administer;
#[cfg(feature = "bench")]
mod bench;
mod buckets;
mod claim;
mod client;
mod completions;
mod config;
mod confirm;
#[cfg(feature = "valkey")]
mod copy;
mod credentials;
mod dead;
mod doctor;
mod drain;
mod error;
mod explain;
#[cfg(feature = "valkey")]
mod export;
mod foreign;
#[cfg(feature = "valkey")]
mod freeze;
mod groups;
mod health;
#[cfg(feature = "valkey")]
mod import;
mod keys;
mod latest;
mod leases;
mod limits;
mod lock;
mod locks;
mod logs;
mod man;
mod manager;
mod nodes;
mod open_files;
mod output;
mod pages;
mod parsing;
mod points;
mod presence;
mod processes;
mod publish;
mod read;
mod reload;
mod roles;
mod schedule;
mod secret;
mod series;
mod serve;
mod sessions;
mod settle;
#[cfg(feature = "valkey")]
mod sides;
mod signals;
mod slow;
mod tail;
mod ticket;
mod tokens;
mod topics;
mod traced;
mod trim;
mod trust;
mod users;
mod watch;
mod why;
mod work;

pub use error::CliError;

const EXAMPLES: &str = "\
Examples:
  tidemill serve                                  start a relay that keeps messages in memory
  STORAGE_BACKEND=valkey tidemill serve           start a relay that keeps them in Valkey
  tidemill publish orders '{\"id\": 7}'             publish a message
  tidemill publish quakes < earthquakes.ndjson    publish every line of a file
  tidemill read orders --limit 5                  read the newest five
  tidemill tail orders                            see what comes, as it comes
  tidemill work jobs -g workers --create -- ./job run a command for each message, once
  tidemill doctor                                 see whether all is well, and what to do

Exit status: 0 success, 1 failure, 2 not understood.";

/// A persistent message relay built on streams
///
/// Programs publish messages to topics over HTTP and WebSocket. Tidemill keeps them in memory, or as
/// streams in a Valkey (or Redis) server, and serves them in order, as pages and live.
#[derive(Debug, Parser)]
#[command(name = "tidemill", version, after_long_help = EXAMPLES)]
#[command(max_term_width = 100, arg_required_else_help = true, subcommand_required = true)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a relay
    ///
    /// Keeps messages in memory unless told otherwise: they are gone when the process ends.
    Serve(serve::Serve),
    /// Look at a relay: its settings, its Valkey or Redis server, and how it is reached through proxies
    ///
    /// Does with a topic of its own what the relay does, under the same keys, scripts and channels, and
    /// looks at latency, clock, version, persistence and eviction policy. With --url it looks at a relay
    /// as its clients reach it: what stands in front may hold events back, cut connections, refuse
    /// WebSockets, or hide who calls. Says what to do about what it finds, and leaves nothing behind.
    Doctor(doctor::Doctor),
    /// Publish messages to a topic
    ///
    /// The payload is the argument, a file, or else standard input, where each line is one message.
    Publish(publish::Publish),
    /// Read messages of a topic
    ///
    /// Text prints id, time and payload. JSON prints one message a line, exactly as the relay serves it.
    Read(read::Read),
    /// Read messages of topics as they come
    ///
    /// Connects again by itself and goes on where it was; messages that are gone are told as gaps. Ctrl-C
    /// ends, and tells how to go on later.
    Tail(tail::Tail),
    /// List, show, create, change, close, cancel and delete topics
    ///
    /// Without a command, all topics are listed.
    Topics(topics::Topics),
    /// Remove old messages of a topic, or a single one
    ///
    /// The messages are gone for every reader. Prints how many were removed.
    Trim(trim::Trim),
    /// List, cancel and publish messages that wait for later, and set recurring ones
    Schedule(schedule::Schedule),
    /// Get, put, delete, list, watch and count keys of buckets
    Keys(keys::Keys),
    /// List, show, make, change and delete buckets of keys
    ///
    /// Without a command, all buckets are listed.
    Buckets(buckets::Buckets),
    /// List rooms, list and watch who is in one, and be in one
    Presence(presence::Presence),
    /// Take of limits of applications, look at them, and give back
    Limits(limits::Limits),
    /// Add to series of measurements, show them, and forget them
    Series(series::Series),
    /// List the relays that share the storage, with their versions
    Nodes(nodes::Nodes),
    /// List what is open on a node, with how far behind it is, and end it
    Sessions(sessions::Sessions),
    /// List what took long on a node, and what its servers have noted as slow
    Slow(slow::Slow),
    /// Create, renew, show and end leases, which keep locks, keys and members alive together
    Leases(leases::Leases),
    /// Run a command while a lock is held
    ///
    /// The command has the fence in its environment, and is stopped where the lock is lost.
    Lock(lock::Lock),
    /// List, show, release and take away locks
    Locks(locks::Locks),
    /// Run a command for each message of a group
    ///
    /// The message is its standard input, and its exit status says what becomes of the message.
    Work(work::Work),
    /// List, show, make, change and delete groups
    Groups(groups::Groups),
    /// Claim messages of a group
    Claim(claim::Claim),
    /// Say that messages are done
    Ack(settle::Ack),
    /// Say that messages have failed; they come again
    Nack(settle::Nack),
    /// Go on with messages for longer
    Extend(settle::Extend),
    /// Make messages dead letters
    Reject(settle::Reject),
    /// Give messages back
    Release(settle::Release),
    /// List dead letters, have them worked on again, or delete them
    Dead(dead::Dead),
    /// Tell what became of a message
    ///
    /// For each group of its topic: who has it and until when, what it waits for, or how it ended.
    Why(why::Why),
    /// Make, list, change and remove users
    ///
    /// Asks a relay, or, where the settings name a Valkey server and nothing a relay, the storage itself.
    User(users::User),
    /// Make, list and revoke tokens
    ///
    /// Asks a relay, or, where the settings name a Valkey server and nothing a relay, the storage itself.
    Token(tokens::Token),
    /// Make a ticket, which opens one stream or WebSocket by its URL
    Ticket(ticket::Ticket),
    /// Write, list and remove roles
    ///
    /// Asks a relay, or, where the settings name a Valkey server and nothing a relay, the storage itself.
    Role(roles::Role),
    /// Say which rule decides whether somebody may do something
    Explain(explain::Explain),
    /// Copy topics from one storage or relay to another
    ///
    /// With all that readers know of them. Nothing at the target is changed that is something else.
    #[cfg(feature = "valkey")]
    Copy(copy::Copy),
    /// Write topics and keys of a storage or a relay to a file
    ///
    /// With all that `tidemill copy` carries: a backup that any other storage or relay can take.
    #[cfg(feature = "valkey")]
    Export(export::Export),
    /// Bring what is in such a file into a storage or a relay
    ///
    /// The file is checked first. Nothing at the target is changed that is something else.
    #[cfg(feature = "valkey")]
    Import(import::Import),
    /// Make a storage, or that of a relay, read-only, or have it take messages again
    #[cfg(feature = "valkey")]
    Freeze(freeze::Freeze),
    /// Make secrets that nobody can guess
    Secret(secret::Secret),
    /// Measure how fast a relay or a bare server is
    ///
    /// Loads it from this machine, and prints rates, percentiles of latency, and what it cost.
    #[cfg(feature = "bench")]
    Bench(bench::Bench),
    /// Have a relay read its settings again
    ///
    /// What needs no restart is taken over; the rest is named.
    Reload(reload::Reload),
    /// Have a relay let go of its clients before it is stopped
    ///
    /// They are told to go on elsewhere, one after the other. The relay runs on until it is stopped.
    Drain(drain::Drain),
    /// Show and check the settings, or write a file with all of them
    Config(config::Config),
    /// Ask a relay how it is
    ///
    /// Exits with 0 if the relay is alive, also where its backend is not: restarting the relay would not
    /// help. With --ready, exits with 0 if messages can be published, else with 1.
    Health(health::Health),
    /// Print the completions of a shell
    Completions(completions::Completions),
    /// Write the manual pages of all commands
    Man(man::Man),
}

/// Runs a command and returns the code to exit with. Errors are printed.
#[must_use]
pub fn run(cli: Cli, environment: &Environment) -> ExitCode {
    let result = match cli.command {
        Command::Serve(serve) => serve.run(environment),
        Command::Doctor(doctor) => doctor.run(environment),
        Command::Publish(publish) => block_on(publish.run(environment)),
        Command::Read(read) => block_on(read.run(environment)),
        Command::Tail(tail) => block_on(tail.run(environment)),
        Command::Topics(topics) => block_on(topics.run(environment)),
        Command::Trim(trim) => block_on(trim.run(environment)),
        Command::Schedule(schedule) => block_on(schedule.run(environment)),
        Command::Keys(keys) => block_on(keys.run(environment)),
        Command::Buckets(buckets) => block_on(buckets.run(environment)),
        Command::Presence(presence) => block_on(presence.run(environment)),
        Command::Limits(limits) => block_on(limits.run(environment)),
        Command::Series(series) => block_on(series.run(environment)),
        Command::Nodes(nodes) => block_on(nodes.run(environment)),
        Command::Sessions(sessions) => block_on(sessions.run(environment)),
        Command::Slow(slow) => block_on(slow.run(environment)),
        Command::Leases(leases) => block_on(leases.run(environment)),
        Command::Lock(lock) => block_on(lock.run(environment)),
        Command::Locks(locks) => block_on(locks.run(environment)),
        Command::Work(work) => block_on(work.run(environment)),
        Command::Groups(groups) => block_on(groups.run(environment)),
        Command::Claim(claim) => block_on(claim.run(environment)),
        Command::Ack(ack) => block_on(ack.run(environment)),
        Command::Nack(nack) => block_on(nack.run(environment)),
        Command::Extend(extend) => block_on(extend.run(environment)),
        Command::Reject(reject) => block_on(reject.run(environment)),
        Command::Release(release) => block_on(release.run(environment)),
        Command::Dead(dead) => block_on(dead.run(environment)),
        Command::Why(why) => block_on(why.run(environment)),
        Command::User(user) => block_on(user.run(environment)),
        Command::Token(token) => block_on(token.run(environment)),
        Command::Ticket(ticket) => block_on(ticket.run(environment)),
        Command::Role(role) => block_on(role.run(environment)),
        Command::Explain(explain) => block_on(explain.run(environment)),
        #[cfg(feature = "valkey")]
        Command::Copy(copy) => block_on(copy.run(environment)),
        #[cfg(feature = "valkey")]
        Command::Export(export) => block_on(export.run(environment)),
        #[cfg(feature = "valkey")]
        Command::Import(import) => block_on(import.run(environment)),
        #[cfg(feature = "valkey")]
        Command::Freeze(freeze) => block_on(freeze.run(environment)),
        Command::Secret(secret) => secret.run(),
        #[cfg(feature = "bench")]
        Command::Bench(bench) => bench.run(environment),
        Command::Reload(reload) => block_on(reload.run(environment)),
        Command::Drain(drain) => block_on(drain.run(environment)),
        Command::Config(config) => config.run(environment),
        Command::Health(health) => block_on(health.run(environment)),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

/// Runs a command that waits for one thing at a time.
fn block_on(command: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| CliError::Failed("the runtime cannot start", cause.into()))?;
    let result = runtime.block_on(command);
    // A write that nobody reads must not keep a command from ending.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// Where there is no terminal, notes are broken at this width, in the middle of a line of two columns.
    #[test]
    fn notes_fit_where_there_is_no_terminal() {
        const COLUMNS: usize = 100;
        let mut commands = vec![Cli::command()];
        while let Some(command) = commands.pop() {
            let notes = command.get_after_long_help().or_else(|| command.get_after_help());
            let notes = notes.map(ToString::to_string).unwrap_or_default();
            for line in notes.lines() {
                assert!(line.chars().count() <= COLUMNS, "{}: {line}", command.get_name());
            }
            commands.extend(command.get_subcommands().cloned());
        }
    }
}
