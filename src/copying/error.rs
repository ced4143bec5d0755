//! Why a copy has ended before it was whole.

use tidemill_proto::{TopicName, TopicSelector};

use super::side::SideError;

/// Why a copy has ended before it was whole. What it has copied stays, and the next one goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The target has something else under that name; a log stands for its bucket, here and below, and it was not said to overwrite it. Nothing was changed.
    #[error("{} is at the target already{}; nothing was changed of it", named(.0), .1.told(.0))]
    Taken(TopicName, Clash),
    /// Source and target are one storage under two names, or a topic is the same one for both.
    #[error("{}", same(.0.as_ref()))]
    Same(Option<TopicName>),
    /// Source and target have a server in common, and no topic was named.
    #[error("the source and the target have a server in common, and what lives there is the same for both")]
    Shared,
    /// The target makes no topics.
    #[error("the target is read-only, and takes nothing over")]
    TargetReadOnly,
    /// A topic has what is not copied.
    #[error("{} cannot be copied: {why}", named(.topic))]
    NotCopied {
        /// The topic.
        topic: TopicName,
        /// Why, as a clause.
        why: &'static str,
    },
    /// The source has no such topic, or none that matches the pattern.
    #[error("the source has no topic `{0}`")]
    Missing(TopicSelector),
    /// A topic of the target was written to, finished or deleted by somebody else while it was copied: by another copy to that
    /// target, mostly.
    #[error(
        "{} was written to, finished or deleted at the target by somebody else while it was copied, as another copy to this target does it",
        named(.0)
    )]
    Changed(TopicName),
    /// What the target has of a topic, or had of one of that name, the source has no more, and it was started again since the
    /// copy began: it may have lost it.
    #[error(
        "the source was started again, and does not have {} any more that was copied; nothing was deleted at the target",
        named(.0)
    )]
    Restarted(TopicName),
    /// The target has a part of a topic from a copy that was broken off, and the source has none of that name.
    #[error("{} is at the target as a part of a copy, and not at the source", named(.0))]
    Left(TopicName),
    /// A topic that was named, and was there as the copy began, was deleted at the source before it was whole.
    #[error("{} was deleted at the source while it was read", named(.0))]
    Deleted(TopicName),
    /// The target has dropped what it was given: topics with how many messages it lacks, and logs of buckets.
    #[error("the target does not keep what it was given: {}", not_kept(.0))]
    NotKept(Vec<(TopicName, u64)>),
    /// The target has got messages of the topic meanwhile, by a call of this copy of which nobody knew whether it had done that.
    #[error("{} has got more at the target by a call that had no answer", named(.0))]
    Passed(TopicName),
    /// One of the sides failed.
    #[error("{side} failed{}", .topic.as_ref().map_or_else(String::new, |topic| format!(" at {}", named(topic))))]
    Failed {
        /// Which.
        side: Side,
        /// At which topic.
        topic: Option<TopicName>,
        /// How.
        #[source]
        error: SideError,
    },
}

/// What there is of one name at both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clash {
    /// Whether that of the target was copied from that of the source; else it is another one.
    pub is_copy: bool,
    /// Messages, or keys, of the source.
    pub source: u64,
    /// Those of the target.
    pub target: u64,
}

impl Clash {
    fn told(self, topic: &TopicName) -> String {
        let (unit, come) = match topic.bucket() {
            Some(_) => ("keys", "changes may have come"),
            None => ("messages", "messages have come"),
        };
        let Self { is_copy, source, target } = self;
        let what = if is_copy {
            format!(" as a whole copy, and {come} to the source since that it has not")
        } else {
            ", and is another one than that of the source, of which it has nothing".to_owned()
        };
        format!("{what} ({unit} there: {target}, at the source: {source})")
    }
}

/// Returns a topic by its name, or the bucket whose log it is.
#[must_use]
pub fn named(topic: &TopicName) -> String {
    topic.bucket().map_or_else(|| format!("topic `{topic}`"), |bucket| format!("bucket `{bucket}`"))
}

/// How many are named of many.
const NAMED_MAX: usize = 10;

fn not_kept(lacking: &[(TopicName, u64)]) -> String {
    let one = |(topic, count): &(TopicName, u64)| match topic.bucket() {
        Some(_) => format!("{} is gone", named(topic)),
        None => format!("{} lacks {count} message{}", named(topic), if *count == 1 { "" } else { "s" }),
    };
    let some: Vec<String> = lacking.iter().take(NAMED_MAX).map(one).collect();
    match lacking.len().saturating_sub(NAMED_MAX) {
        0 => some.join(", "),
        more => format!("{}, and {more} more", some.join(", ")),
    }
}

fn same(topic: Option<&TopicName>) -> String {
    topic.map_or_else(
        || "the source and the target are one storage".to_owned(),
        |topic| format!("{} is the same one at the source and at the target", named(topic)),
    )
}

/// Source or target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where it is copied from.
    Source,
    /// Where it is copied to.
    Target,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Source => "the source",
            Self::Target => "the target",
        })
    }
}

impl Side {
    /// Returns the error of a side that has failed at no topic.
    pub(super) fn failed_at_all(self) -> impl FnOnce(SideError) -> CopyError {
        move |error| CopyError::Failed { side: self, topic: None, error }
    }

    pub(super) fn failed(self, topic: &TopicName) -> impl FnOnce(SideError) -> CopyError {
        let topic = Some(topic.clone());
        move |error| CopyError::Failed { side: self, topic, error }
    }
}

impl CopyError {
    /// Whether the same may succeed later: nobody has refused it.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Passed(_) | Self::Failed { error: SideError::Passing(_), .. })
    }

    /// Returns it with what lies under it, in one line.
    pub(super) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

/// Returns what there is in place of what has gone from the source while it was looked at.
pub(super) fn unless_gone<T>(result: Result<T, CopyError>, gone: T) -> Result<T, CopyError> {
    match result {
        Err(CopyError::Failed { side: Side::Source, topic: Some(_), error: SideError::Missing }) => Ok(gone),
        result => result,
    }
}

/// Returns the error of what the target did not take over.
pub(super) fn not_imported(topic: &TopicName, error: SideError) -> CopyError {
    match error {
        SideError::NotLast | SideError::Exists | SideError::Missing => CopyError::Changed(topic.clone()),
        error => Side::Target.failed(topic)(error),
    }
}
