//! The load generator behind `tidemill bench`: for relays, and for the bare servers that stand behind them.
//!
//! A scenario opens its connections, loads the target for a while that does not count and then for one
//! that does, and returns rows. Everything has a bound, and whatever fails is counted and shown.
//! **Invariant:** an operation is never left out because it was slow.
//!
//! It owns the flags, the load and the figures. It must not know the relay, only the wire contract, nor
//! the backend, only the form of its commands: both are loaded as any client would. What it must know of
//! the process around it comes as [`Surroundings`]; what becomes of a [`Report`] is the caller's. It prints
//! signs of life, and what it had to leave behind, on standard error.

use compare::Compare;
use flags::Flags;
use scenario::Scenario;
use tidemill_proto::Timestamp;

mod check;
mod compare;
mod connected;
mod error;
mod fanout;
mod flags;
mod flow;
mod html;
mod http;
mod idle;
mod keys;
mod live;
mod load;
mod mark;
mod measure;
mod pace;
mod page;
mod process;
mod progress;
mod publish;
mod reader;
mod report;
mod resp;
mod scenario;
mod sender;
mod target;
mod topics;
mod work;
mod ws;

pub use error::BenchError;
pub use html::page;
pub use report::{COLUMNS, Part, Report};

/// What a run must know of the process around it.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// What is loaded where no flag names another.
    pub url: &'a str,
    /// The token or JWT that says to a relay who loads it, where no header does.
    pub token: Option<&'a str>,
    /// How many files this process may have open; `None` where there is no limit.
    pub open_files_max: Option<u64>,
    /// Tells the time of day.
    pub now: fn() -> Timestamp,
}

/// What is measured, and how: the arguments of a command line.
#[derive(Debug, clap::Args)]
pub struct Plan {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    #[command(flatten)]
    One(Scenario),
    /// Run a scenario against two targets in turn, and tell who wins
    Compare(Compare),
}

impl Plan {
    /// Runs the load on threads of its own, and returns what was measured, failures among it.
    ///
    /// # Errors
    /// Nothing could be measured.
    pub fn run(&self, surroundings: &Surroundings<'_>) -> Result<Report, BenchError> {
        let threads = self.flags.threads();
        // With one thread nothing need be shared between threads, which is faster than one of several.
        let mut runtime = match threads {
            1 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        if threads > 1 {
            runtime.worker_threads(threads);
        }
        let runtime = runtime.enable_all().build().map_err(BenchError::Runtime)?;
        let (runs, verdicts) = runtime.block_on(async {
            match &self.what {
                What::One(scenario) => {
                    let load = self.flags.load(self.flags.url(surroundings), surroundings)?;
                    Ok((vec![scenario.run(&load).await?], Vec::new()))
                }
                What::Compare(compare) => compare.run(&self.flags, surroundings).await,
            }
        })?;
        Ok(Report::new(runs, verdicts, (surroundings.now)()))
    }
}
