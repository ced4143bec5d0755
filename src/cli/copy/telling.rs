//! What a copy tells while it runs: what it would do, and how far it is, how fast, and for how long yet.
//!
//! It must not know what is copied, nor where its sides lie.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use serde::Serialize;
use tidemill_proto::{BucketName, TopicName};
use tokio::time::{Instant, interval};

use super::{advice, outline};
use crate::cli::CliError;
use crate::cli::output::{self, Output, counted};
use crate::cli::sides::Kept;
use crate::copying::{Copy as Copying, Plan, Progress, Reached, named};

/// What is said where there is nothing to do.
const NOTHING: &str = "the source has nothing to copy: no topics, and no buckets";

/// The exit status of a dry run that has found something in the way.
pub(in crate::cli) const IN_THE_WAY: u8 = 3;

/// How often it is said how far it is: to a terminal or a program, and else.
const TOLD_EVERY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

/// How many are named of many.
const SOME_MAX: usize = 10;

/// How a copy is told of.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Telling {
    /// What is done with what is copied, as in `copied`.
    pub(in crate::cli) done: &'static str,
    pub(in crate::cli) output: Output,
    /// Whether topics of the target are replaced.
    pub(in crate::cli) overwrite: bool,
    /// Whether standard output has what is copied, so that all is said on standard error.
    pub(in crate::cli) is_data: bool,
    /// Within which time the target removes messages.
    pub(in crate::cli) kept: Kept,
}

/// How far it is, as it is printed.
#[derive(Debug, Serialize)]
struct Far {
    done: bool,
    topics: u64,
    finished: u64,
    messages: u64,
    messages_expected: u64,
    bytes: u64,
    buckets: u64,
    buckets_finished: u64,
    keys: u64,
    messages_per_second: u64,
    /// Whether all that there was is copied, and it goes on with what comes.
    caught_up: bool,
    /// Whether the source is read-only as a whole, or --switch has made it so.
    source_read_only: bool,
    /// What the target has lost of what was replaced there.
    replaced_messages: u64,
    replaced_keys: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_left: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failing: Option<String>,
    /// What was deleted at the source before it was whole; on the last line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deleted_topics: Vec<TopicName>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deleted_buckets: Vec<BucketName>,
}

impl Telling {
    /// Prints what would be done, and what stands in the way.
    pub(in crate::cli) async fn plan(&self, copy: &Copying, plan: &Plan) -> Result<(), CliError> {
        let progress = copy.progress();
        let mut told = interval(TOLD_EVERY[1]);
        told.tick().await;
        let mut planning = std::pin::pin!(copy.plan());
        let outline = loop {
            tokio::select! {
                outline = &mut planning => break outline?,
                _ = told.tick() => {
                    if let Some(failing) = progress.reached().failing {
                        eprintln!("trying again: {}", output::printable(&failing));
                    }
                }
            }
        };
        output::unless_closed(outline::tell(&outline, self.overwrite, self.output))?;
        if outline.is_without_source() {
            match self.output {
                Output::Json => eprintln!("{NOTHING}"),
                Output::Text => output::unless_closed(output::line(NOTHING))?,
            }
        }
        outline::tell_left_out(&outline, plan);
        outline::tell_old(&outline, self.kept);
        let obstacles = outline.obstacles(plan);
        let Some(first) = obstacles.first() else { return Ok(()) };
        let more = match obstacles.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        eprintln!("in the way: {first}{more}; {}", advice(first));
        Err(CliError::Status(IN_THE_WAY))
    }

    /// Copies, and tells now and then how far it is. Between planning and copying comes what is to be done before, and what
    /// is to be done at the end comes before that is told.
    pub(in crate::cli) async fn copy(
        &self,
        copy: &Copying,
        before: impl AsyncFnOnce() -> Result<(), CliError>,
        end: impl AsyncFnOnce() -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let progress = copy.progress();
        let [often, seldom] = TOLD_EVERY;
        let mut told =
            interval(if io::stderr().is_terminal() || self.output == Output::Json { often } else { seldom });
        told.tick().await;
        let mut pace = Pace::new();
        let run = async {
            let outline = copy.plan().await?;
            if outline.is_without_source() {
                eprintln!("{NOTHING}");
            }
            outline::tell_left_out(&outline, copy.to_do());
            outline::tell_old(&outline, self.kept);
            // Where it is not to be overwritten, nothing is.
            if self.overwrite {
                outline::tell_replaced(&outline, self.output)?;
            } else {
                outline::tell_lacking(&outline, self.output);
            }
            if let Some(obstacle) = outline.obstacles(copy.to_do()).into_iter().next() {
                return Err(obstacle.into());
            }
            before().await?;
            copy.run_as(&outline).await?;
            end().await
        };
        let mut run = std::pin::pin!(run);
        let mut is_told = false;
        let done = loop {
            tokio::select! {
                biased;
                done = &mut run => break done,
                () = progress.source_is_read_only(), if !is_told => {
                    is_told = true;
                    self.tell_switched(&pace.far(&progress, false))?;
                }
                _ = told.tick() => self.tell(&pace.far(&progress, false))?,
            }
        };
        done?;
        self.tell(&pace.whole(&progress))
    }

    /// Says that the source is read-only.
    fn tell_switched(&self, far: &Far) -> Result<(), CliError> {
        if self.output == Output::Json {
            return self.tell(far);
        }
        eprintln!("the source is read-only now, and takes no changes; the rest of it is copied");
        Ok(())
    }

    /// Says on standard error how far it is; as JSON, on standard output.
    fn tell(&self, far: &Far) -> Result<(), CliError> {
        if self.output == Output::Json {
            if !self.is_data {
                return output::json(far);
            }
            let text = serde_json::to_string(far)
                .map_err(|cause| CliError::Failed("cannot encode", cause.into()))?;
            eprintln!("{text}");
            return Ok(());
        }
        let Far { topics, finished, messages, messages_expected, messages_per_second, .. } = far;
        let mut line = format!(
            "{messages} of {} ({messages_per_second}/s), {finished} of {} done",
            counted(*messages_expected, "message"),
            counted(*topics, "topic")
        );
        if far.buckets > 0 {
            let (buckets, keys) = (counted(far.buckets, "bucket"), counted(far.keys, "key"));
            let _ = write!(line, ", {} of {buckets} done ({keys})", far.buckets_finished);
        }
        if let Some(seconds) = far.seconds_left {
            let _ = write!(line, ", about {seconds} s left");
        }
        if far.caught_up && !far.done {
            line.push_str("; it has all that there was, and goes on until the source is read-only");
        }
        if let Some(failing) = &far.failing {
            let _ = write!(line, "; trying again: {}", output::printable(failing));
        }
        if far.replaced_messages + far.replaced_keys > 0 {
            let messages = counted(far.replaced_messages, "message");
            let keys = counted(far.replaced_keys, "key");
            let _ = write!(line, "; replaced at the target: {messages}, {keys}");
        }
        let logs = far.deleted_buckets.iter().map(TopicName::log_of);
        let gone: Vec<String> =
            far.deleted_topics.iter().cloned().chain(logs).map(|name| named(&name)).collect();
        if !gone.is_empty() {
            let _ = write!(line, "; deleted at the source meanwhile, and left out: {}", some_of(&gone));
        }
        if far.done && !self.is_data {
            return output::line(&format!("{}: {line}", self.done));
        }
        eprintln!("{}{line}", if far.done { format!("{}: ", self.done) } else { String::new() });
        Ok(())
    }
}

/// Returns the first of many, and how many more there are.
pub(in crate::cli) fn some_of(all: &[String]) -> String {
    let some = all[..all.len().min(SOME_MAX)].join(", ");
    match all.len().saturating_sub(SOME_MAX) {
        0 => some,
        more => format!("{some}, and {more} more"),
    }
}

/// How fast it is.
struct Pace {
    began: Instant,
    at: Instant,
    messages: u64,
}

impl Pace {
    fn new() -> Self {
        let now = Instant::now();
        Self { began: now, at: now, messages: 0 }
    }

    /// Returns how far it is, and how fast since the last time.
    fn far(&mut self, progress: &Progress, done: bool) -> Far {
        let reached = progress.reached();
        let rate = rate_of(reached.messages.saturating_sub(self.messages), self.at.elapsed());
        (self.at, self.messages) = (Instant::now(), reached.messages);
        far(reached, rate, done)
    }

    /// Returns how far it has come in the end, and how fast on the whole.
    fn whole(&self, progress: &Progress) -> Far {
        let reached = progress.reached();
        let rate = rate_of(reached.messages, self.began.elapsed());
        far(reached, rate, true)
    }
}

fn rate_of(messages: u64, time: Duration) -> u64 {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    messages.saturating_mul(1_000) / ms
}

fn far(reached: Reached, messages_per_second: u64, done: bool) -> Far {
    let Reached { topics, finished, expected, messages, bytes, passes, caught_up, failing, .. } = reached;
    let Reached { buckets, buckets_finished, keys, replaced_messages, replaced_keys, .. } = reached;
    let Reached { source_read_only, gone, .. } = reached;
    let deleted_buckets = gone.iter().filter_map(TopicName::bucket).collect();
    let deleted_topics = gone.into_iter().filter(|name| name.bucket().is_none()).collect();
    let left = (!done && passes == 0 && messages_per_second > 0)
        .then(|| (expected - messages).div_ceil(messages_per_second));
    Far {
        done,
        topics,
        finished,
        messages,
        messages_expected: expected,
        bytes,
        buckets,
        buckets_finished,
        keys,
        messages_per_second,
        caught_up,
        source_read_only,
        replaced_messages,
        replaced_keys,
        seconds_left: left,
        failing,
        deleted_topics,
        deleted_buckets,
    }
}
