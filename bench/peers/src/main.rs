//! What the comparison with other servers needs beside `tidemill bench`: an HTTP server that does
//! nothing, which is the most that any relay on the same HTTP library could reach, and loads for
//! `JetStream` and beanstalkd.
//!
//! It must not know the relay: what is compared with it shares none of its code.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

mod beanstalk;
mod jetstream;
mod lines;
mod noop;
mod pull;

/// Servers and loads that Tidemill is compared with
#[derive(Debug, Parser)]
enum Command {
    /// Answer publishes and do nothing else
    Noop {
        /// Address and port
        #[arg(long, value_name = "ADDRESS")]
        listen: SocketAddr,
    },
    /// Publish to a stream of nats-server over one connection, with a window of messages not yet acknowledged
    Jetstream {
        /// Address and port of nats-server
        #[arg(long, value_name = "ADDRESS")]
        server: SocketAddr,
        /// Messages that may wait for their acknowledgement
        #[arg(long, value_name = "COUNT", default_value_t = 1_024)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=65_536))]
        window: u32,
        /// Bytes of each payload
        #[arg(long, value_name = "BYTES", default_value_t = 200)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        payload_bytes: u32,
        /// Seconds of load before measuring
        #[arg(long, value_name = "SECONDS", default_value_t = 1)]
        #[arg(value_parser = clap::value_parser!(u64).range(0..=600))]
        warm_up: u64,
        /// Seconds of measuring
        #[arg(long, value_name = "SECONDS", default_value_t = 5)]
        #[arg(value_parser = clap::value_parser!(u64).range(1..=600))]
        duration: u64,
    },
    /// Work a stream of nats-server off: pull its messages in batches, and acknowledge each
    Pull {
        /// Address and port of nats-server
        #[arg(long, value_name = "ADDRESS")]
        server: SocketAddr,
        /// Messages of a batch
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
        batch: u32,
        #[command(flatten)]
        work: Work,
    },
    /// Work a tube of beanstalkd off: reserve its jobs, and delete each
    Beanstalk {
        /// Address and port of beanstalkd
        #[arg(long, value_name = "ADDRESS")]
        server: SocketAddr,
        #[command(flatten)]
        work: Work,
    },
}

/// What is worked off.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Work {
    /// Workers, each with a connection of its own
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    workers: u32,
    /// Messages that are there first
    #[arg(long, value_name = "COUNT", default_value_t = 100_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    messages: u64,
    /// Bytes of each payload
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    #[arg(value_parser = clap::value_parser!(u32).range(12..=60_000))]
    payload_bytes: u32,
}

fn main() -> ExitCode {
    match run(&Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<(), String> {
    match *command {
        Command::Noop { listen } => {
            let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
            runtime.block_on(noop::serve(listen))
        }
        Command::Jetstream { server, window, payload_bytes, warm_up, duration } => {
            let runtime = one_thread()?;
            let load = jetstream::Load {
                window,
                payload_bytes,
                warm_up: Duration::from_secs(warm_up),
                duration: Duration::from_secs(duration),
            };
            let report = runtime.block_on(jetstream::run(server, &load))?;
            println!("{report}");
            Ok(())
        }
        Command::Pull { server, batch, work } => {
            let load = pull::Load {
                workers: work.workers as usize,
                batch,
                messages: work.messages,
                payload_bytes: work.payload_bytes as usize,
            };
            println!("{}", one_thread()?.block_on(pull::run(server, load))?);
            Ok(())
        }
        Command::Beanstalk { server, work } => {
            let (workers, bytes) = (work.workers as usize, work.payload_bytes as usize);
            let worked = beanstalk::run(server, workers, work.messages, bytes);
            println!("{}", one_thread()?.block_on(worked)?);
            Ok(())
        }
    }
}

/// Returns what runs a load: one thread, as `tidemill bench` has on two processors.
fn one_thread() -> Result<tokio::runtime::Runtime, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())
}
