//! `tidemill bench`: a load generator for relays, and for the bare servers that stand behind them.
//!
//! A scenario opens its connections, loads the target for a while that does not count and then for one
//! that does, and returns rows. Everything has a bound, and whatever fails is counted and shown.
//! **Invariant:** an operation is never left out because it was slow.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::CliError;
use super::output::{self, Output};
use crate::config::{Environment, URL_VARIABLE};
use mark::Topics;
use measure::{Meter, Window};
use process::{Processes, Usage};
use report::{Report, Run};
use target::{Kind, Paths, TOPIC_PLACE, Target};

mod check;
mod compare;
mod fanout;
mod flow;
mod http;
mod idle;
mod live;
mod mark;
mod measure;
mod pace;
mod page;
mod process;
mod publish;
mod reader;
mod report;
mod resp;
mod sender;
mod target;
mod topics;
mod ws;

/// Most connections of one run.
const CONNECTIONS_MAX: u64 = 200_000;
/// How long answers and messages are waited for after the end of a run.
const GRACE: Duration = Duration::from_secs(10);
/// How long a relay may take to deal with what it has got.
const SETTLE: Duration = Duration::from_millis(300);
/// Longest run, and longest warm-up.
const DURATION_MAX: Duration = Duration::from_hours(1);
/// Most operations a second of a fixed rate.
const RATE_MAX: f64 = 10_000_000.0;
/// Most threads.
const THREADS_MAX: u64 = 256;
/// How often the progress is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// What is drawn of a run, and of what has no known end.
const BAR: &str = "{msg} {bar:40} {elapsed}, {eta} left";
const BUSY: &str = "{spinner} {msg}, {elapsed}";
/// The relay, when nobody names another.
const URL_DEFAULT: &str = "http://127.0.0.1:8080";

const URL_HELP: &str = "What is loaded: http://… is a relay, redis://… or valkey://… a bare server \
                        [env: TIDEMILL_URL] [default: http://127.0.0.1:8080]";

const EXAMPLES: &str = "\
Examples:
  tidemill bench publish                                 as fast as 50 connections can
  tidemill bench publish --url redis://127.0.0.1:6379    the same to a bare server
  tidemill bench fanout --subscribers 100                deliveries a second, every message checked
  tidemill bench latency --rate 200                      from publish to receipt
  tidemill bench publish --html report.html -o json      also a page with charts, and JSON
  tidemill bench compare --a redis://127.0.0.1:6379 --b valkey://127.0.0.1:6380

`tidemill bench publish --help` tells the flags of one scenario. A run makes topics of its own
(bench-…) and deletes them at its end, also when it fails or is interrupted; on a relay that others use, it
takes its share of it.

Only this machine is loaded, unless --allow-remote is given. The exit status is 1 if anything failed
or any message was lost.";

/// The arguments of `tidemill bench`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, arg_required_else_help = true)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    #[command(flatten)]
    One(Scenario),
    /// Run a scenario against two targets in turn, and tell who wins
    Compare(compare::Compare),
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Scenario {
    /// Publish as fast as connections can, or at a fixed rate
    Publish(publish::Publish),
    /// Deliver every message to many subscribers
    Fanout(fanout::Fanout),
    /// Publish at a fixed rate, and measure the time to the receipt
    Latency(fanout::Latency),
    /// Read pages at several depths of a topic
    Page(page::Page),
    /// Measure the memory of the relay for subscribers that get nothing
    Idle(idle::Idle),
    /// Measure how latency grows with the number of live topics
    Topics(topics::Topics),
}

/// The flags of every scenario.
#[derive(Debug, clap::Args)]
struct Common {
    /// The target.
    #[arg(long, value_name = "URL", global = true, help = URL_HELP)]
    url: Option<String>,

    /// How long to measure, as in 10, 500ms, 10s or 2m
    #[arg(long, short, value_name = "TIME", default_value = "10s", value_parser = time, global = true)]
    duration: Duration,

    /// How long to load before measuring
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time, global = true)]
    warm_up: Duration,

    /// Threads of the load generator; half the processors where none is given
    #[arg(long, value_name = "COUNT", global = true)]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=THREADS_MAX))]
    threads: Option<usize>,

    /// The target is no relay: post messages, as they are, to this path; {topic} in it stands for the topic
    #[arg(long, value_name = "PATH", requires = "subscribe_path", value_parser = path, global = true)]
    publish_path: Option<String>,

    /// The target is no relay: read messages, as they are, from a WebSocket on this path
    #[arg(long, value_name = "PATH", requires = "publish_path", value_parser = path, global = true)]
    subscribe_path: Option<String>,

    /// Load another machine than this one
    #[arg(long, global = true)]
    allow_remote: bool,

    /// A header for every request, as in "Authorization: Bearer …"
    #[arg(long, value_name = "NAME: VALUE", value_parser = header, global = true)]
    header: Vec<String>,

    /// The process of the relay; found by its port where none is given
    #[arg(long, value_name = "PID", global = true)]
    pid: Option<u32>,

    /// The process of the server behind the relay; found by the relay's connections where none is given
    #[arg(long, value_name = "PID", global = true)]
    server_pid: Option<u32>,

    /// Also write a page with charts
    #[arg(long, value_name = "PATH", global = true)]
    html: Option<PathBuf>,

    /// The form of what is printed
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t, global = true)]
    output: Output,
}

/// What a scenario is given: where the load goes, and for how long.
#[derive(Clone, Debug)]
struct Load {
    target: Target,
    /// Lines of headers, each with its end.
    headers: String,
    warm_up: Duration,
    duration: Duration,
    threads: usize,
    processes: Processes,
    /// Topics that are to be deleted.
    own: Arc<Mutex<Vec<Topics>>>,
}

impl Bench {
    pub(super) fn run(self, environment: &Environment) -> Result<(), CliError> {
        super::open_files::raise();
        let threads = self.common.threads.unwrap_or_else(|| (cores() / 2).max(1));
        // With one thread nothing need be shared between threads, which is faster than one of several.
        let mut runtime = match threads {
            1 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        if threads > 1 {
            runtime.worker_threads(threads);
        }
        let runtime = runtime
            .enable_all()
            .build()
            .map_err(|cause| CliError::Failed("the runtime cannot start", cause.into()))?;
        // Before the load: a path that cannot be written to must not cost the figures.
        let open = |path| std::fs::OpenOptions::new().create(true).write(true).truncate(false).open(path);
        let unwritten =
            |cause: io::Error| CliError::Failed("the page of --html cannot be written", cause.into());
        let html = self.common.html.as_ref().map(open).transpose().map_err(unwritten)?;
        let report = runtime.block_on(self.measure(environment, threads))?;
        let written = html.map_or(Ok(()), |mut html| {
            html.set_len(0)?;
            html.write_all(report::html::page(&report).as_bytes())
        });
        match self.common.output {
            Output::Json => output::json(&report)?,
            Output::Text => output::line(&report.text())?,
        }
        written.map_err(unwritten)?;
        if report.is_clean() { Ok(()) } else { Err(CliError::Told) }
    }

    async fn measure(&self, environment: &Environment, threads: usize) -> Result<Report, CliError> {
        let scenario = match &self.what {
            What::One(scenario) => scenario,
            What::Compare(compare) => return compare.run(&self.common, threads).await,
        };
        let variable = environment.get(URL_VARIABLE).filter(|url| !url.is_empty());
        let url = self.common.url.as_ref().or(variable).map_or(URL_DEFAULT, String::as_str);
        let load = self.common.load(url, threads)?;
        Ok(Report::new(vec![scenario.run(&load).await?], Vec::new()))
    }
}

impl Common {
    fn load(&self, url: &str, threads: usize) -> Result<Load, CliError> {
        let paths = self.publish_path.clone().zip(self.subscribe_path.clone());
        let paths = paths.map(|(publish, subscribe)| Paths { publish, subscribe });
        let target = Target::parse(url, paths, self.allow_remote)?;
        Ok(Load {
            processes: Processes::find(target.address, self.pid, self.server_pid),
            target,
            headers: self.header.concat(),
            warm_up: self.warm_up,
            duration: self.duration,
            threads,
            own: Arc::default(),
        })
    }
}

impl Scenario {
    /// Runs the scenario, and leaves no topic behind, however it ends.
    async fn run(&self, load: &Load) -> Result<Run, CliError> {
        let stop = || async { drop(tokio::signal::ctrl_c().await) };
        let outcome = tokio::select! {
            outcome = Box::pin(self.measure(load)) => outcome,
            () = stop() => Err(CliError::Interrupted),
        };
        let clean = async {
            if !outcome.as_ref().is_ok_and(Run::is_clean) {
                // A publish that is still under way would make its topic again.
                sleep(SETTLE).await;
            }
            load.clean().await;
        };
        tokio::select! {
            () = clean => {}
            () = stop() => load.tell_left("interrupted"),
        }
        outcome
    }

    async fn measure(&self, load: &Load) -> Result<Run, CliError> {
        match self {
            Self::Publish(publish) => publish.run(load).await,
            Self::Fanout(fanout) => fanout.run(load).await,
            Self::Latency(latency) => latency.run(load).await,
            Self::Page(page) => page.run(load).await,
            Self::Idle(idle) => idle.run(load).await,
            Self::Topics(topics) => topics.run(load).await,
        }
    }
}

impl Load {
    /// Returns the window of a run that starts now.
    fn window(&self, paced: bool) -> Window {
        let from = Instant::now() + self.warm_up;
        Window { from, until: from + self.duration, paced }
    }

    fn unreachable(&self, why: String) -> CliError {
        CliError::NoAnswer { url: self.target.name.clone(), why }
    }

    /// Waits until the tasks have ended, shows the progress, and returns what the measured part used.
    async fn drive(&self, what: &str, meter: &Meter, mut tasks: JoinSet<()>) -> Usage {
        let bar = progress(what, self.warm_up + self.duration);
        let start = meter.window.from.checked_sub(self.warm_up).unwrap_or(meter.window.from);
        let (mut before, mut after) = (None, None);
        let mut ticks = interval(DRAW_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = sleep_until(meter.window.from), if before.is_none() => {
                    before = Some(self.processes.snapshot());
                }
                // Without a pace, what comes after it is not counted.
                () = sleep_until(meter.window.until), if after.is_none() && !meter.window.paced => {
                    after = Some(self.processes.snapshot());
                }
                ended = tasks.join_next() => match ended {
                    None => break,
                    Some(Err(error)) if error.is_panic() => meter.failed("the load generator is broken"),
                    Some(_) => {}
                },
                now = ticks.tick() => {
                    let millis = now.saturating_duration_since(start).as_millis();
                    bar.set_position(u64::try_from(millis).unwrap_or_default());
                }
            }
        }
        bar.finish_and_clear();
        let after = after.unwrap_or_else(|| self.processes.snapshot());
        after.since(before.unwrap_or(after))
    }

    /// Makes topics, which must be there before they are subscribed to. To other servers they need not.
    async fn create(&self, topics: &Topics) -> Result<(), CliError> {
        if self.target.kind != Kind::Relay {
            return Ok(());
        }
        let _busy = busy("making topics");
        let create = async {
            let mut connection = http::Connection::open(&self.target).await?;
            self.own(topics);
            let headers = &self.headers;
            for topic in topics.names() {
                let body = format!(r#"{{"topic_name":"{topic}"}}"#);
                let length = body.len();
                let headers =
                    format!("Content-Type: application/json\r\nContent-Length: {length}\r\n{headers}");
                let mut request = http::request(&self.target, &headers, "POST", "/api/v1/topics");
                request.extend_from_slice(body.as_bytes());
                let status = connection.exchange(&request).await?.status;
                if !matches!(status, 200..300 | 409) {
                    return Err(format!("the topic {topic} cannot be made: status {status}"));
                }
            }
            Ok(())
        };
        create.await.map_err(|why| self.unreachable(why))
    }

    /// Notes topics that may be there from now on, to delete them later if they are the run's own.
    fn own(&self, topics: &Topics) {
        let mut own = self.own.lock();
        if topics.own && !own.contains(topics) {
            own.push(topics.clone());
        }
    }

    /// Deletes the load's own topics. What cannot be deleted is told: it is left behind.
    async fn clean(&self) {
        let own = self.own.lock().clone();
        let _busy = busy("deleting topics");
        for topics in own {
            let deleted = match self.target.kind {
                Kind::Relay => self.delete_from_relay(&topics).await,
                Kind::Server => self.delete_from_server(&topics).await,
                // It has no way that is known here.
                Kind::Plain => Ok(()),
            };
            if let Err(why) = deleted {
                return self.tell_left(&why);
            }
            self.own.lock().retain(|own| *own != topics);
        }
    }

    /// Tells which topics are left behind, and why. Nobody tries again.
    fn tell_left(&self, why: &str) {
        for topics in std::mem::take(&mut *self.own.lock()) {
            eprintln!("the topics of the run, {}…, are left behind: {why}", topics.name(0));
        }
    }

    async fn delete_from_relay(&self, topics: &Topics) -> Result<(), String> {
        let mut connection = http::Connection::open(&self.target).await?;
        for topic in topics.names() {
            let path = format!("/api/v1/topics/{topic}");
            let request = http::request(&self.target, &self.headers, "DELETE", &path);
            let answer = timeout(GRACE, connection.exchange(&request)).await.map_err(|_| "no answer")??;
            if !matches!(answer.status, 200..300 | 404) {
                return Err(format!("status {}", answer.status));
            }
        }
        Ok(())
    }

    async fn delete_from_server(&self, topics: &Topics) -> Result<(), String> {
        let mut connection = resp::Connection::open(&self.target, 0).await?;
        for topic in topics.names() {
            let command = resp::command(&["UNLINK", &sender::key(&topic)]);
            timeout(GRACE, connection.ask(&command)).await.map_err(|_| "no answer")??;
        }
        Ok(())
    }
}

/// Returns a bar of milliseconds, on a terminal.
fn progress(what: &str, whole: Duration) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(BAR).expect("the template is a constant, and a test makes it");
    let bar = ProgressBar::new(u64::try_from(whole.as_millis()).unwrap_or(u64::MAX)).with_style(style);
    bar.set_message(what.to_owned());
    bar
}

/// Returns a sign of life for something of unknown length, on a terminal, until it is dropped.
fn busy(what: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(BUSY).expect("the template is a constant, and a test makes it");
    let busy = ProgressBar::new_spinner().with_style(style).with_finish(ProgressFinish::AndClear);
    busy.set_message(what.to_owned());
    busy.enable_steady_tick(DRAW_EVERY);
    busy
}

/// Reads a time.
fn time(text: &str) -> Result<Duration, String> {
    let number = text.trim_end_matches(char::is_alphabetic);
    let unit = match &text[number.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        _ => return Err("write a number and ms, s or m, as in 500ms".to_owned()),
    };
    let seconds: f64 = number.parse().map_err(|_| "write a number and ms, s or m, as in 500ms".to_owned())?;
    let time = Duration::try_from_secs_f64(seconds * unit).map_err(|error| error.to_string())?;
    if time > DURATION_MAX { Err("it is longer than an hour".to_owned()) } else { Ok(time) }
}

/// Reads a rate.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= RATE_MAX => Ok(rate),
        _ => Err("write a number above 0 and up to 10,000,000".to_owned()),
    }
}

/// Reads a path in which the topic has its place.
fn path(text: &str) -> Result<String, String> {
    let is_path = text.starts_with('/') && text.is_ascii() && !text.contains([' ', '\r', '\n']);
    if is_path && text.contains(TOPIC_PLACE) {
        Ok(text.to_owned())
    } else {
        Err(format!("write a path with {TOPIC_PLACE} in it, as in /publish/{TOPIC_PLACE}"))
    }
}

/// Reads a header, and returns it as a line.
fn header(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some((name, _)) if !name.is_empty() && !text.contains(['\r', '\n']) => Ok(format!("{text}\r\n")),
        _ => Err("write it as in \"Name: value\"".to_owned()),
    }
}

/// Returns how many processors there are.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_rates_and_headers_are_read() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!((time("2m"), time("1.5")), (Ok(Duration::from_mins(2)), Ok(Duration::from_millis(1_500))));
        for text in ["", "x", "-1s", "2h", "61m", "1e400s", "NaN"] {
            assert!(time(text).is_err(), "{text}");
        }
        assert!(rate("0").is_err() && rate("inf").is_err() && rate("0.5").is_ok());
        assert!(path("/a/{topic}?b").is_ok() && path("/a").is_err() && path("{topic}").is_err());
        assert!(header("A: b").is_ok() && header("A: b\r\nC: d").is_err() && header("A").is_err());
    }

    #[test]
    fn the_bar_can_be_made() {
        assert!(ProgressStyle::with_template(BAR).is_ok() && ProgressStyle::with_template(BUSY).is_ok());
    }
}
