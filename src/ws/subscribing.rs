//! What a connection reads: the answers to `subscribe` and `unsubscribe`.

use tidemill_proto::frame::{ErrorClass, ServerFrame};
use tidemill_proto::{MessageId, Problem, TopicName, TopicSelector};

use super::Ws;
use super::frames::Outgoing;
use super::requests::{Rejection, Subscription};
use crate::relay::{Begun, Gate, LiveReader, StartAt};

/// Subscribes to what a frame names, and answers it, on a connection with so many watches.
pub(super) async fn subscribe(
    ws: &Ws,
    gate: &Gate,
    session: u64,
    reader: &mut LiveReader<Outgoing>,
    out: &mut Outgoing,
    watches: usize,
    asked: Subscription,
) {
    let Subscription { reference, topics, absent, latest, refused } = asked;
    for rejection in &refused {
        refuse(out, rejection);
    }
    let topics_of = reader.cursors().into_iter().map(|(topic, _)| TopicSelector::from(topic));
    let patterns = reader.pattern_cursors().into_iter().map(|(pattern, _)| pattern.into());
    let known: Vec<_> = topics_of.chain(patterns).collect();
    let added = topics.iter().filter(|(topic, _)| !known.contains(topic)).count();
    let topics_max = ws.0.options.topics_max;
    if known.len() + added + watches > topics_max {
        let problem = Problem::field("topics", format_args!("are too many: {}", reads_at_most(topics_max)));
        return refuse(out, &Rejection::new(reference, ErrorClass::Subscription, problem));
    }
    let mut started: Vec<(TopicName, MessageId)> = Vec::with_capacity(topics.len());
    let (mut started_patterns, mut waits_for) = (Vec::new(), Vec::new());
    let mut down: Option<Problem> = None;
    for (selector, from) in topics {
        if down.is_none() {
            let begun = match (selector.clone(), &from) {
                (TopicSelector::Topic(topic), StartAt::Since(since)) => {
                    let begun = if latest {
                        reader.add_latest(&topic, *since, absent).await
                    } else {
                        reader.add(&topic, *since, absent).await
                    };
                    begun.map(|Begun { cursor, exists, .. }| {
                        if !exists {
                            waits_for.push(topic.clone());
                        }
                        started.push((topic, cursor));
                    })
                }
                (TopicSelector::Topic(_), StartAt::Cursor(_)) => {
                    Err(Problem::field("cursors", "is the cursor of a pattern").into())
                }
                (TopicSelector::Pattern(_), _) if latest => {
                    Err(Problem::field("view", "is of topics; name them in place of a pattern").into())
                }
                (TopicSelector::Pattern(pattern), from) => {
                    let cursor = reader.add_pattern(&pattern, from).await;
                    cursor.map(|cursor| started_patterns.push((pattern, cursor)))
                }
            };
            match begun {
                Ok(()) => continue,
                // What holds for one topic holds for all, and each could take as long to fail.
                Err(failure) if failure.problem().retryable => down = Some(failure.problem().clone()),
                Err(failure) => {
                    ws.audit(gate, session, &failure);
                    let rejection = Rejection::new(reference.clone(), ErrorClass::Subscription, failure);
                    refuse(out, &rejection);
                }
            }
        }
        if let Some(problem) = &down {
            let class = ErrorClass::Subscription;
            let rejection = Rejection::new(reference.clone(), class, problem.clone()).of_topic(&selector);
            refuse(out, &rejection);
        }
    }
    if !started.is_empty() || !started_patterns.is_empty() {
        let session_id = format!("{session:016x}");
        let subscribed = ServerFrame::Subscribed {
            reference: reference.map(Into::into),
            topics: started,
            patterns: started_patterns,
            absent: waits_for,
            session_id: session_id.into(),
            timestamp: ws.0.relay.clock().now(),
        };
        out.put(&subscribed);
    }
}

/// Returns the rule on how much one connection reads.
pub(super) fn reads_at_most(topics_max: usize) -> String {
    format!(
        "a connection reads at most {topics_max} topics, what it watches counted with them (setting `TIDEMILL_WS_TOPICS_MAX`)"
    )
}

/// Ends what a frame names, and answers it.
pub(super) fn unsubscribe(
    reader: &mut LiveReader<Outgoing>,
    out: &mut Outgoing,
    selectors: Vec<TopicSelector>,
) {
    let (mut topics, mut patterns) = (Vec::new(), Vec::new());
    for selector in selectors {
        match selector {
            TopicSelector::Topic(topic) => {
                if let Some(cursor) = reader.cursor(&topic)
                    && reader.remove(&topic)
                {
                    topics.push((topic, cursor));
                }
            }
            TopicSelector::Pattern(pattern) => {
                let cursor = reader.pattern_cursors().into_iter().find(|(of, _)| *of == pattern);
                reader.remove_pattern(&pattern);
                patterns.extend(cursor);
            }
        }
    }
    out.put(&ServerFrame::Unsubscribed { topics, patterns });
}

/// Answers what is refused.
pub(super) fn refuse(out: &mut Outgoing, rejection: &Rejection) {
    out.put(&ServerFrame::Error(rejection.frame()));
}
