//! What is printed of what a copy would do, and of what it replaces.
//!
//! It must not know how that is found out, nor what is copied.

use std::time::Duration;

use serde::Serialize;
use tidemill_proto::{BucketName, TopicName};

use crate::cli::CliError;
use crate::cli::output::{self, Output, counted};
use crate::cli::sides::Kept;
use crate::clock::Clock;
use crate::copying::{Action, Ages, Lacks, Outline, Plan, Planned, PlannedBucket, Replaced};
use crate::storage::OddNames;

/// Within which time relays remove messages where nothing is set (`PERSISTENT_TIER_RETENTION`).
const RETENTION_UNSET: Duration = Duration::from_hours(24);

/// A topic, as it is printed.
#[derive(Debug, Serialize)]
struct ToldTopic<'a> {
    topic: &'a TopicName,
    action: &'static str,
    messages: u64,
    groups: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced_messages: Option<u64>,
    /// Whether the last message of the target is younger than that of the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    target_is_younger: Option<bool>,
    /// What the target lacks of a topic that is there already, or is replaced since it lacks that.
    #[serde(skip_serializing_if = "Option::is_none")]
    lacking_messages: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lacking_groups: Option<usize>,
}

/// A bucket, as it is printed.
#[derive(Debug, Serialize)]
struct ToldBucket<'a> {
    bucket: &'a BucketName,
    action: &'static str,
    keys: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced_keys: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_is_younger: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lacking_keys: Option<u64>,
}

/// What goes at the target, of all together.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Sums {
    replaced_topics: u64,
    replaced_messages: u64,
    replaced_buckets: u64,
    replaced_keys: u64,
}

/// What would go with `--overwrite`, where that is more than what is in the way.
#[derive(Debug, Serialize)]
struct WithOverwrite {
    with_overwrite: Sums,
}

impl Sums {
    fn of(outline: &Outline) -> Self {
        Self::with(outline, |_, replaced| replaced.map(|replaced| replaced.count))
    }

    /// The same, with what is there already and lacks something: that is replaced, too, where it is said to overwrite.
    fn of_all(outline: &Outline) -> Self {
        Self::with(outline, |(there, lacks), replaced| {
            replaced.map(|replaced| replaced.count).or_else(|| lacks.map(|_| there))
        })
    }

    fn with(
        outline: &Outline,
        count: impl Fn((u64, Option<Lacks>), Option<Replaced>) -> Option<u64>,
    ) -> Self {
        let mut sums = Self::default();
        for one in &outline.topics {
            let Some(messages) = count((one.there, one.lacks), one.replaced) else { continue };
            sums.replaced_topics += 1;
            sums.replaced_messages += messages;
        }
        for one in &outline.buckets {
            let Some(keys) = count((one.there, one.lacks), one.replaced) else { continue };
            sums.replaced_buckets += 1;
            sums.replaced_keys += keys;
        }
        sums
    }

    fn told(&self) -> String {
        let pair = |(names, what): (u64, &str), (count, of): (u64, &str)| {
            (names > 0).then(|| format!("{} with {}", counted(names, what), counted(count, of)))
        };
        let topics = pair((self.replaced_topics, "topic"), (self.replaced_messages, "message"));
        let buckets = pair((self.replaced_buckets, "bucket"), (self.replaced_keys, "key"));
        topics.into_iter().chain(buckets).collect::<Vec<_>>().join(", ")
    }
}

/// Prints what a dry run has found, and how much would go at the target.
pub(super) fn tell(outline: &Outline, overwrite: bool, output: Output) -> Result<(), CliError> {
    let action = |action: Action| match action {
        Action::Make => "would be copied",
        Action::GoOn => "would be gone on with",
        Action::Keep => "there already",
        Action::Overwrite if overwrite => "would be overwritten",
        Action::Overwrite => "in the way: needs --overwrite",
        Action::Refuse => "not copied: it is not whole at the source",
        Action::Left => "in the way: a part of a copy, and not at the source",
    };
    let line = |text: &str| output::line(text);
    for planned in &outline.topics {
        tell_topic(planned, action(planned.action), output, line)?;
    }
    for planned in &outline.buckets {
        tell_bucket(planned, action(planned.action), output, line)?;
    }
    tell_sums(outline, output, |sums| output::line(&format!("the target would lose {sums}")))?;
    let all = Sums::of_all(outline);
    match output {
        _ if overwrite || all == Sums::of(outline) => Ok(()),
        Output::Json => output::json(&WithOverwrite { with_overwrite: all }),
        Output::Text => output::line(&format!(
            "with --overwrite it would lose {}: what lacks something is replaced, too",
            all.told()
        )),
    }
}

/// Says what is replaced, before it is; on standard error, where it is no JSON.
pub(super) fn tell_replaced(outline: &Outline, output: Output) -> Result<(), CliError> {
    const ACTION: &str = "is overwritten";
    let line = |text: &str| {
        eprintln!("{text}");
        Ok(())
    };
    for planned in outline.topics.iter().filter(|planned| planned.replaced.is_some()) {
        tell_topic(planned, ACTION, output, line)?;
    }
    for planned in outline.buckets.iter().filter(|planned| planned.replaced.is_some()) {
        tell_bucket(planned, ACTION, output, line)?;
    }
    tell_sums(outline, output, |sums| line(&format!("the target loses {sums}")))
}

fn tell_topic(
    planned: &Planned,
    action: &'static str,
    output: Output,
    line: impl Fn(&str) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let Planned { topic, messages, groups, replaced, lacks, .. } = planned;
    match output {
        Output::Json => output::json(&ToldTopic {
            topic,
            action,
            messages: *messages,
            groups: *groups,
            replaced_messages: replaced.map(|replaced| replaced.count),
            target_is_younger: replaced.map(|replaced| replaced.is_younger),
            lacking_messages: lacks.map(|lacks| lacks.count),
            lacking_groups: lacks.map(|lacks| lacks.groups),
        }),
        Output::Text => {
            let (messages, groups) = (counted(*messages, "message"), counted(*groups as u64, "group"));
            let (without, lost) = (without(*lacks, *replaced, "message"), lost(*replaced, "message"));
            line(&format!("{topic}: {messages}, {groups}; {action}{without}{lost}"))
        }
    }
}

fn tell_bucket(
    planned: &PlannedBucket,
    action: &'static str,
    output: Output,
    line: impl Fn(&str) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let PlannedBucket { bucket, keys, replaced, lacks, .. } = planned;
    match output {
        Output::Json => output::json(&ToldBucket {
            bucket,
            action,
            keys: *keys,
            replaced_keys: replaced.map(|replaced| replaced.count),
            target_is_younger: replaced.map(|replaced| replaced.is_younger),
            lacking_keys: lacks.map(|lacks| lacks.count),
        }),
        Output::Text => {
            let keys = counted(*keys, "key");
            let (without, lost) = (without(*lacks, *replaced, "key"), lost(*replaced, "key"));
            line(&format!("bucket {bucket}: {keys}; {action}{without}{lost}"))
        }
    }
}

/// Prints what goes in all, if anything does.
fn tell_sums(
    outline: &Outline,
    output: Output,
    tell: impl FnOnce(&str) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let sums = Sums::of(outline);
    match (sums.replaced_topics + sums.replaced_buckets, output) {
        (0, _) => Ok(()),
        (_, Output::Json) => output::json(&sums),
        (_, Output::Text) => tell(&sums.told()),
    }
}

/// Says how much is there already without something, before a copy that brings nothing of that back; on standard error.
pub(super) fn tell_lacking(outline: &Outline, output: Output) {
    let topics = outline.topics.iter().filter_map(|one| one.lacks);
    let buckets = outline.buckets.iter().filter_map(|one| one.lacks);
    let (topics, buckets) = (topics.count() as u64, buckets.count() as u64);
    if topics + buckets > 0 && output == Output::Text {
        let (topics, buckets) = (counted(topics, "topic"), counted(buckets, "bucket"));
        eprintln!(
            "there already, and without something that the source has: {topics}, {buckets}; --dry-run names them, and --overwrite puts what the source has in their place"
        );
    }
}

/// Says what is left out of what may be meant, on standard error: what has a name that Tidemill does not allow, and dead letters
/// of topics that are named without them.
pub(super) fn tell_left_out(outline: &Outline, plan: &Plan) {
    let Outline { odd_topics, odd_groups, .. } = outline;
    let topics = odd_topics.first.iter().map(|name| format!("topic `{name}`"));
    let odd: Vec<String> = topics.chain(odd_groups.first.iter().cloned()).take(OddNames::FIRST_MAX).collect();
    if !odd.is_empty() {
        let more = match odd_topics.count + odd_groups.count - odd.len() as u64 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let odd = output::printable(&odd.join(", "));
        eprintln!("left out, as Tidemill allows no such names: {odd}{more}");
    }
    let with_groups = outline.topics.iter().filter(|one| one.groups > 0);
    let names: Vec<&TopicName> = with_groups.map(|one| &one.topic).collect();
    let is_alone = |topic: &&&TopicName| {
        let dead = TopicName::parse(&format!("{topic}.group.dead"));
        dead.is_ok_and(|dead| !plan.topics.is_empty() && !plan.topics.iter().any(|one| one.matches(&dead)))
    };
    if let Some(first) = names.iter().find(is_alone) {
        eprintln!(
            "dead letters of groups are topics of their own, as `{first}.GROUP.dead`; where there are some, and they are to come along, name them, too"
        );
    }
}

/// Says, on standard error, how many messages the target would remove soon, as they are older than it keeps them.
pub(super) fn tell_old(outline: &Outline, kept: Kept) {
    let now = Clock::system().now().as_millis();
    let ms_of = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let age = match kept {
        Kept::ForEver => None,
        Kept::For(age) => Some(age),
        Kept::Perhaps => Some(RETENTION_UNSET),
    };
    let limit = |ages: Ages| match ages.retention_seconds {
        Some(_) => None,
        None => age.map(|age| now.saturating_sub(ms_of(age))),
    };
    let own =
        |ages: Ages| ages.retention_seconds.map(|seconds| now.saturating_sub(seconds.saturating_mul(1_000)));
    let said = |(topics, messages): (u64, u64)| {
        format!("up to {} of {}", counted(messages, "message"), counted(topics, "topic"))
    };
    let old = outline.older(limit);
    if let (true, Some(age)) = (old.0 > 0, age) {
        let (said, seconds) = (said(old), age.as_secs());
        let who = match kept {
            Kept::Perhaps => format!(
                "relays of the target on which PERSISTENT_TIER_RETENTION is not set remove what is older than {seconds} s"
            ),
            Kept::ForEver | Kept::For(_) => {
                format!("the target removes what is older than {seconds} s (PERSISTENT_TIER_RETENTION)")
            }
        };
        eprintln!(
            "too old to stay: {said}; {who}; with PERSISTENT_TIER_RETENTION=0 at all of its relays nothing is removed by age"
        );
    }
    let old = outline.older(own);
    if old.0 > 0 {
        eprintln!("too old to stay: {}, which have a retention of their own that is over", said(old));
    }
}

/// Says what the target lacks, as a part of a line.
fn without(lacks: Option<Lacks>, replaced: Option<Replaced>, unit: &str) -> String {
    let Some(Lacks { count, groups }) = lacks else { return String::new() };
    let count = (count > 0).then(|| counted(count, unit));
    let groups = (groups > 0).then(|| counted(groups as u64, "group"));
    let all: Vec<String> = count.into_iter().chain(groups).collect();
    let said = if replaced.is_some() { "as the target lacks" } else { "without" };
    format!(", {said} {}", all.join(" and "))
}

/// Says how much of what is replaced goes, as the end of a line.
fn lost(replaced: Option<Replaced>, unit: &str) -> String {
    let Some(Replaced { count, is_younger, .. }) = replaced else { return String::new() };
    let not = if is_younger { "" } else { "not " };
    let last = if unit == "key" { "change" } else { "message" };
    format!(
        "; the target has {}, and its last {last} is {not}younger than that of the source",
        counted(count, unit)
    )
}
