//! Detours: what is published to topics that come to live on another server, meanwhile.
//!
//! A topic has one order, and two servers at that moment. So its messages are in one place at a time: those that lanes
//! had when it began come first, in the order of their lane; what comes later is held. The first are sent one pipeline
//! after the other, wherever the servers say. When each lane has passed its mark and nothing was sent elsewhere any more,
//! what is held is queued with the server that has the topic by then, in its order, and the detour is over.
//!
//! A topic that is on a detour delays no other: lanes only hand its messages on.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::{Job, Lanes, Queueing, Told, pacing};
use crate::storage::NewMessage;
use crate::storage::valkey::failure::Failure;
use crate::storage::valkey::pipeline::Outcome;

/// What a lane has handed on, with who waits for what becomes of it.
type Handed = (Vec<NewMessage>, oneshot::Sender<Told>);

/// The way of some slots' topics while they move.
#[derive(Debug, Default)]
pub(in super::super) struct Detour {
    /// What lanes have handed on; the bounds of their queues hold for it, too.
    handed: Mutex<VecDeque<Handed>>,
    /// Told when there is more of it.
    more: Notify,
    held: Mutex<VecDeque<Job>>,
}

/// What becomes of the messages of a detour, as whoever walks it decides.
pub(in super::super) trait Walk: Send + Sync {
    /// Sends messages to where their topics live, in their order; returns the outcomes, and whether the servers have
    /// agreed where that is.
    fn follow(&self, messages: Vec<NewMessage>) -> impl Future<Output = (Vec<Outcome>, bool)> + Send;

    /// Ends the detour: what is held is queued with the lanes that get it.
    fn end(&self, detour: &Detour);
}

impl Detour {
    /// Takes messages that a lane has handed on, behind those before.
    pub(in super::super) fn hand_on(&self, messages: Vec<NewMessage>) -> oneshot::Receiver<Told> {
        let (reply, receiver) = oneshot::channel();
        self.handed.lock().push_back((messages, reply));
        self.more.notify_one();
        receiver
    }

    /// Holds messages of one slot, within the bounds of these lanes.
    pub(in super::super) fn hold(&self, lanes: &Lanes, messages: Vec<NewMessage>) -> Queueing {
        let count = messages.len();
        let queued = Job::new(messages, &lanes.budget).map(|(job, receiver)| {
            self.held.lock().push_back(job);
            receiver
        });
        Queueing { count, queued }
    }

    /// Queues what is held with lanes, by the first message of each call. Only called while nobody can hold more.
    pub(in super::super) fn queue_held<'a>(
        &self,
        lanes_of: impl Fn(&NewMessage) -> Option<(&'a Lanes, usize)>,
    ) {
        for job in self.held.lock().drain(..) {
            match job.messages.first().and_then(&lanes_of) {
                // Lanes that are full or have ended drop it, which its publisher is told.
                Some((lanes, lane)) => drop(lanes.put(lane, job)),
                None => job.refuse(|| Failure::Unserved),
            }
        }
    }

    /// Takes what is held, up to the bounds of a pipeline.
    fn take_held(&self) -> Vec<Job> {
        let mut held = self.held.lock();
        let (mut messages, mut bytes) = (0, 0);
        let mut jobs = Vec::new();
        while pacing::takes_more(messages, bytes)
            && let Some(job) = held.pop_front()
        {
            messages += job.ticket.messages;
            bytes += job.ticket.bytes;
            jobs.push(job);
        }
        jobs
    }

    /// Walks it to its end; `passed` are the marks in the lanes.
    pub(in super::super) async fn walk(self: Arc<Self>, walk: impl Walk, passed: Vec<oneshot::Receiver<()>>) {
        let mut agreed = true;
        let mut passed = std::pin::pin!(join_all(passed));
        let mut is_passed = false;
        loop {
            let next = self.handed.lock().pop_front();
            let Some((messages, reply)) = next else {
                if is_passed {
                    // Lanes hand nothing on behind their marks.
                    break;
                }
                tokio::select! {
                    () = self.more.notified() => {}
                    _ = &mut passed => is_passed = true,
                }
                continue;
            };
            let outcomes;
            (outcomes, agreed) = walk.follow(messages).await;
            let _ = reply.send(Told::at_once(outcomes));
        }
        while !agreed {
            let jobs = self.take_held();
            if jobs.is_empty() {
                // The next message finds out whether they agree by then.
                break;
            }
            let mut messages = Vec::new();
            let mut waiting = Vec::with_capacity(jobs.len());
            for Job { messages: more, reply, ticket, .. } in jobs {
                waiting.push((more.len(), reply, ticket));
                messages.extend(more);
            }
            let outcomes;
            (outcomes, agreed) = walk.follow(messages).await;
            let mut outcomes = outcomes.into_iter();
            for (count, reply, ticket) in waiting {
                drop(ticket);
                let _ = reply.send(Told::at_once(outcomes.by_ref().take(count).collect()));
            }
        }
        walk.end(&self);
    }
}
