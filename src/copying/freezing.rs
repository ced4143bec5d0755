//! Making a side read-only, so that nothing is accepted there that a copy has not got.

use std::collections::BTreeSet;
use std::time::Duration;

use tidemill_proto::copy::CopyRead;
use tidemill_proto::{BucketName, TopicName, TopicSelector};

use super::side::{CopySide, SideError, Write, ask, find};
use crate::storage::{CopiedBucket, CopiedTopic, Freeze};

/// How long after no more topics are to be made one may come that a node was about to make: longer than a call may take.
pub const NEW_TOPICS_SETTLE: Duration = Duration::from_secs(6);

/// How much was made read-only, or takes changes again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frozen {
    /// Topics.
    pub topics: usize,
    /// Buckets.
    pub buckets: usize,
    /// Topics that were named, and are not there.
    pub missing: Vec<TopicName>,
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
    for topic in selected(side, topics).await? {
        let found: Option<Box<CopiedTopic>> = find(side, CopyRead::Topic { topic: topic.clone() }).await?;
        match found {
            Some(found) if found.ended.is_some() => {}
            Some(found) => state.count(false, found.freeze),
            None if is_named(topics, &topic) => state.missing.push(topic),
            None => {}
        }
    }
    Ok(state)
}

/// Whether a topic is named, and not only matched by a pattern.
pub(super) fn is_named(topics: &[TopicSelector], topic: &TopicName) -> bool {
    topics.iter().any(|selector| matches!(selector, TopicSelector::Topic(named) if named == topic))
}

/// Makes topics read-only, or has them take messages again, and returns how many there are. Where none is named that goes
/// for all, and for all buckets, and no more are made.
///
/// # Errors
/// The side failed. It may be done in part, and can be done again.
pub async fn freeze(
    side: &dyn CopySide,
    topics: &[TopicSelector],
    frozen: bool,
) -> Result<Frozen, SideError> {
    // One that is being copied there is frozen, and stays so.
    let done = |result: Result<(), SideError>| match result {
        Ok(()) => Ok(1),
        Err(SideError::Missing | SideError::ReadOnly) => Ok(0),
        Err(error) => Err(error),
    };
    let mut count = Frozen::default();
    if topics.is_empty() {
        side.write(Write::RefuseNew { refused: frozen }).await?;
        for bucket in all_buckets(side).await? {
            count.buckets += done(side.write(Write::FreezeBucket { bucket, frozen }).await)?;
        }
    }
    for topic in selected(side, topics).await? {
        let result = side.write(Write::Freeze { topic: topic.clone(), frozen }).await;
        if matches!(result, Err(SideError::Missing)) && is_named(topics, &topic) {
            count.missing.push(topic);
        } else {
            count.topics += done(result)?;
        }
    }
    Ok(count)
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
