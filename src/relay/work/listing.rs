//! The list of the groups of all topics.
//!
//! No list of groups is kept: the topics are looked through for those that have some, in steps, so that a page takes a
//! bounded time however many topics have none.

use std::fmt;

use futures_util::{StreamExt as _, stream};
use tidemill_proto::work::{GroupDetail, GroupName};
use tidemill_proto::{Code, Problem, TopicName};

use super::groups::parse_group;
use crate::access::Verb;
use crate::relay::shown::STEP_NAMES;
use crate::relay::{Failure, Gate, parse_topic};

/// Topics that the storage is asked about in one step: what is published waits behind each.
const STEP_TOPICS: usize = 64;
/// Topics of which all is told of their groups, at the same time.
const TOLD_AT_ONCE: usize = 8;

/// Behind which group a page of the list begins: behind this one of a topic, or behind all of the topic. As text it is
/// `topic/group`, or `topic`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPlace {
    topic: TopicName,
    group: Option<GroupName>,
}

impl GroupPlace {
    /// Parses a place.
    ///
    /// # Errors
    /// The text is none; `field` is what the caller called it.
    pub fn parse(field: &str, text: &str) -> Result<Self, Failure> {
        let (topic, group) = text.split_once('/').map_or((text, None), |(topic, group)| (topic, Some(group)));
        let group = group.map(parse_group).transpose().map_err(|_| {
            Problem::field(field, "must be a topic, or a topic and a group of it, as in `jobs/workers`")
        })?;
        Ok(Self { topic: parse_topic(field, topic)?, group })
    }
}

impl fmt::Display for GroupPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "{}/{group}", self.topic),
            None => write!(f, "{}", self.topic),
        }
    }
}

/// A page of the groups of all topics.
#[derive(Clone, Debug)]
pub struct GroupList {
    /// The groups, in the order of their topics and of their names.
    pub groups: Vec<GroupDetail>,
    /// Behind which the next page begins; `None` where this one is the last.
    pub next: Option<GroupPlace>,
}

impl Gate {
    /// Returns up to `limit` groups of all topics, of those that the caller may see: all, or those that are unattended, as
    /// sweeps count them. A page may have fewer, or none, where others follow.
    ///
    /// # Errors
    /// The caller may see the groups of no topic, or the storage did not answer.
    pub async fn list_groups(
        &self,
        after: Option<GroupPlace>,
        limit: usize,
        unattended: bool,
    ) -> Result<GroupList, Failure> {
        self.check_some_topic(Verb::Work)?;
        let topics = &self.relay().storage.topics;
        let (behind, begun) = match after {
            Some(GroupPlace { topic, group }) => (Some(topic.clone()), group.map(|group| (topic, group))),
            None => (None, None),
        };
        let names = topics.names("", behind.as_ref(), STEP_NAMES).await;
        let names = names.map_err(|error| Failure::read(error, None))?;
        let end = names.last().filter(|_| names.len() == STEP_NAMES).cloned();
        // The topic in whose midst the page before has ended comes first.
        let names: Vec<TopicName> = begun.iter().map(|(topic, _)| topic.clone()).chain(names).collect();
        let mut groups = Vec::new();
        for topics in names.chunks(STEP_TOPICS) {
            let may = |topic: &&TopicName| self.caller().check(Verb::Work, topic).is_ok();
            let topics: Vec<TopicName> = topics.iter().filter(may).cloned().collect();
            let found = self.relay().storage.work.grouped(&topics).await;
            let found = found.map_err(|error| Failure::read(error, None))?;
            let is_wanted = |topic: &TopicName, group: &GroupName, is_unattended: bool| {
                let is_behind = begun.as_ref().is_none_or(|(of, last)| topic != of || group > last);
                is_behind && (is_unattended || !unattended)
            };
            let mut wanted: Vec<(TopicName, Vec<GroupName>)> = Vec::new();
            for (topic, group, has) in found {
                match wanted.last_mut() {
                    _ if !is_wanted(&topic, &group, has.unattended > 0) => {}
                    Some((last, groups)) if *last == topic => groups.push(group),
                    Some(_) | None => wanted.push((topic, vec![group])),
                }
            }
            let asked: Vec<_> =
                wanted.into_iter().map(|(topic, groups)| self.tell_wanted(topic, groups)).collect();
            let mut told = stream::iter(asked).buffered(TOLD_AT_ONCE);
            while let Some(of) = told.next().await {
                groups.extend(of?);
                // One more than fits, so that it is known whether another page follows.
                if groups.len() > limit {
                    groups.truncate(limit);
                    let last = groups.last().map(|last: &GroupDetail| GroupPlace {
                        topic: last.topic.clone(),
                        group: Some(last.group.clone()),
                    });
                    return Ok(GroupList { groups, next: last });
                }
            }
        }
        Ok(GroupList { groups, next: end.map(|topic| GroupPlace { topic, group: None }) })
    }

    /// Returns what these groups of one topic have. Nothing is told of what is gone by now, or turns out to be another's.
    async fn tell_wanted(
        &self,
        topic: TopicName,
        wanted: Vec<GroupName>,
    ) -> Result<Vec<GroupDetail>, Failure> {
        match self.groups(&topic).await {
            Ok(mut groups) => {
                groups.retain(|group| wanted.contains(&group.group));
                Ok(groups)
            }
            Err(failure) if matches!(failure.code(), Code::TopicNotFound | Code::Forbidden) => Ok(Vec::new()),
            Err(failure) => Err(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        for text in ["jobs", "jobs/workers", "a.b:c-d/e_f"] {
            assert_eq!(GroupPlace::parse("after", text).expect(text).to_string(), text);
        }
        for text in ["", "/", "jobs/", "/workers", "jobs/a/b", "a b"] {
            let failure = GroupPlace::parse("after", text).expect_err(text);
            assert_eq!(failure.problem().field.as_deref(), Some("after"), "{text}");
        }
    }
}
