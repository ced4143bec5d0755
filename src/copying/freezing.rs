//! Making a side read-only, so that nothing is accepted there that a copy has not got.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use tidemill_proto::copy::CopyRead;
use tidemill_proto::{BucketName, TopicName, TopicSelector};
use tokio::time::{Instant, sleep};

use super::AT_ONCE;
use super::side::{CopySide, SideError, Write, ask, find};
use crate::storage::{Cause, CopiedBucket, CopiedTopic, Freeze, Unlisted};

/// How long after no more topics are to be made one may come that a node was about to make: longer than a call may take.
pub const NEW_TOPICS_SETTLE: Duration = Duration::from_secs(6);
/// For how long what was done in part is tried to be undone, and how often.
const UNDO_MAX: Duration = Duration::from_secs(10);
const UNDO_EVERY: Duration = Duration::from_millis(500);

/// How much was made read-only, or takes changes again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frozen {
    /// Topics.
    pub topics: usize,
    /// Buckets.
    pub buckets: usize,
    /// How many of these topics were so before, and of these buckets.
    pub unchanged: [usize; 2],
    /// Topics that were named, and are not there.
    pub missing: Vec<TopicName>,
    /// Patterns that match no topic.
    pub unmatched: Vec<TopicSelector>,
}

/// How much is read-only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrozenState {
    /// Whether no more topics are made; false where only some topics were asked about.
    pub refuses_new: bool,
    /// Topics that are read-only, and those that take messages.
    pub topics: [usize; 2],
    /// Buckets that are read-only, and those that take changes.
    pub buckets: [usize; 2],
    /// Topics and buckets that are taken over from another side, and take nothing else until they are whole.
    pub taken_over: usize,
    /// Topics that were named, and are not there.
    pub missing: Vec<TopicName>,
    /// Patterns that match no topic.
    pub unmatched: Vec<TopicSelector>,
}

/// Why not all was made read-only, or takes changes again: what stands.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// Nothing was changed.
    #[error("nothing was changed")]
    Nothing(#[source] SideError),
    /// What was changed was changed back.
    #[error("what was changed before it failed is undone")]
    Undone(#[source] SideError),
    /// Something is changed, or may be, as undoing it failed, too.
    #[error("{topics} topics and {buckets} buckets may stay changed{}, as undoing that failed, too ({undo})", if *.new { ", and whether more are made" } else { "" })]
    Left {
        /// Topics.
        topics: usize,
        /// Buckets.
        buckets: usize,
        /// Whether that goes for whether more are made, too.
        new: bool,
        /// Why it could not be undone.
        undo: Cause,
        /// Why it was to be undone.
        #[source]
        error: SideError,
    },
}

impl FrozenState {
    fn count(&mut self, is_bucket: bool, freeze: Option<Freeze>) {
        let [frozen, open] = if is_bucket { &mut self.buckets } else { &mut self.topics };
        *match freeze {
            Some(Freeze::ReadOnly) => frozen,
            Some(Freeze::Importing) => &mut self.taken_over,
            None => open,
        } += 1;
    }
}

/// Returns how much is read-only of topics; of all, and of all buckets, where none is named. Topics that have ended are not
/// counted: they take no messages.
///
/// # Errors
/// The side failed.
pub async fn frozen(side: &dyn CopySide, topics: &[TopicSelector]) -> Result<FrozenState, SideError> {
    let mut state = FrozenState::default();
    if topics.is_empty() {
        state.refuses_new = ask(side, CopyRead::RefusesNew).await?;
        for bucket in all_buckets(side).await? {
            let found: Option<Box<CopiedBucket>> = find(side, CopyRead::Bucket { bucket }).await?;
            if let Some(found) = found {
                state.count(true, found.freeze);
            }
        }
    }
    let mut names = selected(side, topics).await?;
    let unlisted = unlisted(side, topics).await?;
    names.extend(unlisted.names.into_iter().filter(|name| name.bucket().is_none()));
    for topic in names.iter().cloned() {
        let found: Option<Box<CopiedTopic>> = find(side, CopyRead::Topic { topic: topic.clone() }).await?;
        match found {
            Some(found) if found.ended.is_some() => {}
            Some(found) => state.count(false, found.freeze),
            None if is_named(topics, &topic) => state.missing.push(topic),
            None => {}
        }
    }
    state.unmatched = unmatched(topics, &names);
    Ok(state)
}

/// Returns the patterns that match none of some topics.
fn unmatched(topics: &[TopicSelector], names: &BTreeSet<TopicName>) -> Vec<TopicSelector> {
    let matches = |pattern: &TopicSelector| names.iter().any(|name| pattern.matches(name));
    let patterns = topics.iter().filter(|selector| matches!(selector, TopicSelector::Pattern(_)));
    patterns.filter(|pattern| !matches(pattern)).cloned().collect()
}

/// Whether a topic is named, and not only matched by a pattern.
pub(super) fn is_named(topics: &[TopicSelector], topic: &TopicName) -> bool {
    topics.iter().any(|selector| matches!(selector, TopicSelector::Topic(named) if named == topic))
}

/// Makes topics read-only, or has them take messages again, and returns how many there are. Topics that have ended are not
/// counted. Where none is named that goes for all, and for all buckets, and no more are made.
///
/// # Errors
/// The side failed. It may be done in part, and can be done again.
pub async fn freeze(
    side: &dyn CopySide,
    topics: &[TopicSelector],
    frozen: bool,
) -> Result<Frozen, SideError> {
    Freezing { side, topics, frozen, needs_all: false, undoing: Vec::new() }.run().await
}

/// The same, all or nothing: what was done when the side fails is undone, and where a topic that was named is not there, or
/// a pattern matches none, nothing is done.
///
/// # Errors
/// The side failed; the error says what stands.
pub async fn freeze_or_undo(
    side: &dyn CopySide,
    topics: &[TopicSelector],
    frozen: bool,
) -> Result<Frozen, FreezeError> {
    let mut freezing = Freezing { side, topics, frozen, needs_all: true, undoing: Vec::new() };
    match freezing.run().await {
        Ok(count) => Ok(count),
        Err(error) => Err(freezing.undo(error).await),
    }
}

/// What is being made read-only, or takes changes again.
struct Freezing<'a> {
    side: &'a dyn CopySide,
    topics: &'a [TopicSelector],
    frozen: bool,
    /// Whether nothing is done where not all is there.
    needs_all: bool,
    /// What undoes what was done, or may have been.
    undoing: Vec<Write>,
}

/// How a topic or a bucket is before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Missing,
    /// It takes no messages anyway.
    Ended,
    There(Option<Freeze>),
}

impl Freezing<'_> {
    async fn run(&mut self) -> Result<Frozen, SideError> {
        // All is looked at before anything is changed: where one of several servers is away, nothing is.
        let refused = match self.topics {
            [] => ask(self.side, CopyRead::RefusesNew).await?,
            _ => false,
        };
        let before = self.look(self.names().await?).await?;
        if self.needs_all {
            let is_missing = |(name, found): &(&TopicName, &Before)| {
                **found == Before::Missing && is_named(self.topics, name)
            };
            let missing = before.iter().filter(is_missing).map(|(name, _)| name.clone()).collect();
            let unmatched = unmatched(self.topics, &before.keys().cloned().collect());
            let nothing = Frozen { missing, unmatched, ..Frozen::default() };
            if nothing != Frozen::default() {
                return Ok(nothing);
            }
        }
        if self.topics.is_empty() {
            let undoing = (refused != self.frozen).then_some(Write::RefuseNew { refused });
            // Of several servers some may have done it whatever the error is.
            self.write(Write::RefuseNew { refused: self.frozen }, undoing, true).await?;
        }
        let mut count = Frozen::default();
        // What has been made meanwhile is among them.
        let names = self.names().await?;
        let (known, new): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| before.contains_key(name));
        let new = self.look(new.into_iter().collect()).await?;
        let all = known.into_iter().filter_map(|name| before.get(&name).map(|found| (name.clone(), *found)));
        for (name, before) in all.chain(new) {
            let is_done = match before {
                Before::Missing if is_named(self.topics, &name) => {
                    count.missing.push(name);
                    continue;
                }
                // One that is being copied there is frozen, and stays so.
                Before::Missing | Before::Ended | Before::There(Some(Freeze::Importing)) => continue,
                Before::There(freeze) => freeze.is_some() == self.frozen,
            };
            if !is_done {
                let of = |frozen| match name.bucket() {
                    Some(bucket) => Write::FreezeBucket { bucket, frozen },
                    None => Write::Freeze { topic: name.clone(), frozen },
                };
                let write = self.write(of(self.frozen), Some(of(!self.frozen)), false).await;
                match write {
                    Err(SideError::Missing | SideError::ReadOnly) => continue,
                    write => write?,
                }
            }
            let [topics, buckets] = &mut count.unchanged;
            let (all, unchanged) = match name.bucket() {
                Some(_) => (&mut count.buckets, buckets),
                None => (&mut count.topics, topics),
            };
            *all += 1;
            *unchanged += usize::from(is_done);
        }
        Ok(count)
    }

    /// Returns the names of what it is about: topics, and the logs of buckets.
    async fn names(&self) -> Result<BTreeSet<TopicName>, SideError> {
        let mut names = selected(self.side, self.topics).await?;
        if self.topics.is_empty() {
            names.extend(all_buckets(self.side).await?.iter().map(TopicName::log_of));
        }
        names.extend(unlisted(self.side, self.topics).await?.names);
        Ok(names)
    }

    async fn look(&self, names: BTreeSet<TopicName>) -> Result<BTreeMap<TopicName, Before>, SideError> {
        let side = self.side;
        let look = async |name: TopicName| {
            let before = if let Some(bucket) = name.bucket() {
                let found: Option<Box<CopiedBucket>> = find(side, CopyRead::Bucket { bucket }).await?;
                found.map_or(Before::Missing, |found| Before::There(found.freeze))
            } else {
                let asked = CopyRead::Topic { topic: name.clone() };
                let found: Option<Box<CopiedTopic>> = find(side, asked).await?;
                found.map_or(Before::Missing, |found| match found.ended {
                    Some(_) => Before::Ended,
                    None => Before::There(found.freeze),
                })
            };
            Ok::<_, SideError>((name, before))
        };
        stream::iter(names).map(look).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Changes something, and notes what undoes it where it was done, or may have been.
    async fn write(
        &mut self,
        write: Write,
        undoing: Option<Write>,
        may_be_partly: bool,
    ) -> Result<(), SideError> {
        let written = self.side.write(write).await;
        let may_be = match &written {
            Ok(()) | Err(SideError::Passing(_)) => true,
            Err(SideError::Denied(_)) => false,
            Err(_) => may_be_partly,
        };
        self.undoing.extend(undoing.filter(|_| may_be));
        written
    }

    /// Undoes what was done, as this error came, again and again for a while.
    async fn undo(self, error: SideError) -> FreezeError {
        let side = self.side;
        if self.undoing.is_empty() {
            return FreezeError::Nothing(error);
        }
        let until = Instant::now() + UNDO_MAX;
        let mut left = self.undoing;
        loop {
            let undo = async |write: Write| match side.write(write.clone()).await {
                Ok(()) | Err(SideError::Missing | SideError::ReadOnly) => None,
                Err(error) => Some((write, error)),
            };
            let undone: Vec<_> = stream::iter(left).map(undo).buffer_unordered(AT_ONCE).collect().await;
            let mut failed: Vec<(Write, SideError)> = undone.into_iter().flatten().collect();
            let Some((write, undo)) = failed.pop() else { return FreezeError::Undone(error) };
            left = failed.into_iter().map(|(write, _)| write).chain([write]).collect();
            if until <= Instant::now() {
                let count = |is_it: fn(&Write) -> bool| left.iter().filter(|write| is_it(write)).count();
                return FreezeError::Left {
                    topics: count(|write| matches!(write, Write::Freeze { .. })),
                    buckets: count(|write| matches!(write, Write::FreezeBucket { .. })),
                    new: count(|write| matches!(write, Write::RefuseNew { .. })) > 0,
                    undo: undo.into(),
                    error,
                };
            }
            sleep(UNDO_EVERY).await;
        }
    }
}

/// Returns the names of all buckets of a side, in their order.
pub(super) async fn all_buckets(side: &dyn CopySide) -> Result<Vec<BucketName>, SideError> {
    let mut names: Vec<BucketName> = Vec::new();
    loop {
        let page: Vec<BucketName> = ask(side, CopyRead::BucketNames { after: names.last().cloned() }).await?;
        if page.is_empty() {
            return Ok(names);
        }
        names.extend(page);
    }
}

/// Returns topics that are selected and that no list names; where all are, the logs of such buckets, too.
pub(super) async fn unlisted(side: &dyn CopySide, topics: &[TopicSelector]) -> Result<Unlisted, SideError> {
    // What is named is asked for whether it is listed or not.
    if !topics.is_empty() && !topics.iter().any(|topic| matches!(topic, TopicSelector::Pattern(_))) {
        return Ok(Unlisted::default());
    }
    let is_selected = |name: &TopicName| {
        topics.is_empty() || name.bucket().is_none() && topics.iter().any(|selector| selector.matches(name))
    };
    let mut unlisted = side.unlisted().await?;
    unlisted.names.retain(is_selected);
    if !topics.is_empty() {
        // No pattern matches them, but they may be meant.
        let patterns = || topics.iter().filter(|topic| matches!(topic, TopicSelector::Pattern(_)));
        unlisted.odd.first.retain(|name| patterns().any(|pattern| name.starts_with(pattern.prefix())));
        unlisted.odd.count = unlisted.odd.first.len() as u64;
    }
    Ok(unlisted)
}

/// Returns the names of topics that are selected, and those that are named whether they are there or not.
pub(super) async fn selected(
    side: &dyn CopySide,
    topics: &[TopicSelector],
) -> Result<BTreeSet<TopicName>, SideError> {
    let mut names = BTreeSet::new();
    if topics.is_empty() {
        add_names(side, "", |_| true, &mut names).await?;
    }
    for selector in topics {
        match selector {
            TopicSelector::Topic(topic) => _ = names.insert(topic.clone()),
            TopicSelector::Pattern(_) => {
                add_names(side, selector.prefix(), |name| selector.matches(name), &mut names).await?;
            }
        }
    }
    Ok(names)
}

async fn add_names(
    side: &dyn CopySide,
    prefix: &str,
    is_wanted: impl Fn(&TopicName) -> bool + Send,
    names: &mut BTreeSet<TopicName>,
) -> Result<(), SideError> {
    let mut after: Option<TopicName> = None;
    loop {
        let page: Vec<TopicName> =
            ask(side, CopyRead::TopicNames { prefix: prefix.to_owned(), after }).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        names.extend(page.into_iter().filter(|name| is_wanted(name)));
    }
}
