//! The flags of every scenario, and how their values are read.

use std::sync::Arc;
use std::time::Duration;

use crate::Surroundings;
use crate::error::BenchError;
use crate::load::Load;
use crate::process::{Processes, cores};
use crate::target::{Paths, TOPIC_PLACE, Target};

/// Longest run, and longest warm-up.
pub(crate) const DURATION_MAX: Duration = Duration::from_hours(1);
/// Most operations a second of a fixed rate.
const RATE_MAX: f64 = 10_000_000.0;
/// Most threads.
const THREADS_MAX: u64 = 256;

const URL_HELP: &str = "What is loaded: http://… is a relay, redis://… or valkey://… a bare server \
                        [env: TIDEMILL_URL] [default: http://127.0.0.1:8080]";

/// The flags of every scenario.
#[derive(Debug, clap::Args)]
pub(crate) struct Flags {
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
}

impl Flags {
    /// Returns how many threads load.
    pub(crate) fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| (cores() / 2).max(1))
    }

    /// Returns the one target.
    pub(crate) fn url<'a>(&'a self, surroundings: &Surroundings<'a>) -> &'a str {
        self.url.as_deref().unwrap_or(surroundings.url)
    }

    /// Returns whether a process is named that is to be watched.
    pub(crate) fn names_process(&self) -> bool {
        self.pid.is_some() || self.server_pid.is_some()
    }

    /// Returns a load on the target at `url`.
    pub(crate) fn load(&self, url: &str, surroundings: &Surroundings<'_>) -> Result<Load, BenchError> {
        let paths = self.publish_path.clone().zip(self.subscribe_path.clone());
        let paths = paths.map(|(publish, subscribe)| Paths { publish, subscribe });
        // A server of another kind is none of those who are to see a token.
        let token = surroundings.token.filter(|_| paths.is_none());
        let target = Target::parse(url, paths, self.allow_remote)?;
        Ok(Load {
            processes: Processes::find(target.address, self.pid, self.server_pid),
            target,
            headers: headers(&self.header, token),
            warm_up: self.warm_up,
            duration: self.duration,
            threads: self.threads(),
            open_files_max: surroundings.open_files_max,
            own: Arc::default(),
        })
    }
}

/// Returns the lines of the headers of every request.
fn headers(own: &[String], token: Option<&str>) -> String {
    let name = |line: &String| line.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let token = token.filter(|_| own.iter().all(|line| name(line) != "authorization"));
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    own.concat() + &token.unwrap_or_default()
}

/// Reads a time.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let time = tidemill_proto::duration::parse(text).map_err(|_| {
        "write seconds, or a number with a unit (`ms`, `s`, `m`, `h`), as in `500ms`".to_owned()
    })?;
    if time > DURATION_MAX { Err("it is longer than an hour".to_owned()) } else { Ok(time) }
}

/// Reads a rate.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
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
        let own = ["authorization: x\r\n".to_owned()];
        assert_eq!(headers(&own, Some("t")), own[0]);
        assert_eq!(headers(&[], Some("t")), "Authorization: Bearer t\r\n");
        assert_eq!(headers(&own, None) + &headers(&[], None), own[0]);
        assert!(header("A: b").is_ok() && header("A: b\r\nC: d").is_err() && header("A").is_err());
    }
}
