//! What a session watches: the answers to `watch` and `unwatch`, and what is told.

use tidemill_proto::frame::{ServerFrame, Watched};
use tidemill_proto::{MessageId, Problem};

use super::{Ending, Session};
use crate::limits::Asks;
use crate::relay::Failure;
use crate::ws::frames::Outgoing;
use crate::ws::requests::Watch;
use crate::ws::subscribing::reads_at_most;
use crate::ws::watching::{Asked, Come, Unwatched, Watching};

impl Session {
    /// Returns how many watches there are.
    pub(super) fn watches(&self) -> usize {
        self.watching.as_ref().map_or(0, |watching| watching.len())
    }

    /// Watches what a frame names, beside so many topics. That it has begun is told later.
    pub(super) async fn watch(&mut self, topics: usize, out: &mut Outgoing, asked: Watch) {
        let reference = asked.reference.clone();
        if let Err(failure) = self.try_to_watch(topics, out.bytes_max(), asked).await {
            self.refuse_frame(out, reference, failure);
        }
    }

    async fn try_to_watch(&mut self, topics: usize, bytes_max: usize, asked: Watch) -> Result<(), Failure> {
        self.gate.admit_request(Asks::Other).await?;
        let topics_max = self.ws.0.options.topics_max;
        if topics + self.watches() >= topics_max {
            let rule = format_args!("is one too many: {}", reads_at_most(topics_max));
            return Err(Problem::field("watch", rule).into());
        }
        let Self { ws, gate, watching, .. } = self;
        let new = || Box::new(Watching::new(gate, bytes_max, ws.0.options.bookmark_every));
        watching.get_or_insert_with(new).watch(asked)
    }

    /// Ends a watch, if there is one of this name, and answers that.
    pub(super) fn unwatch(&mut self, out: &mut Outgoing, reference: Option<String>, name: &str) {
        let ended = self.watching.as_mut().and_then(|watching| watching.unwatch(name));
        let (asked, cursor) = ended.map_or((None, None), |Unwatched { asked, cursor }| (asked, cursor));
        if let Some(Asked { reference }) = asked {
            put_began(out, reference, name);
        }
        put_ended(out, reference, name, cursor, None);
    }

    /// Writes what comes of watches.
    pub(super) async fn write_watched(&mut self, out: &mut Outgoing, come: Come) -> Result<(), Ending> {
        match come {
            Come::Began { reference, name } => put_began(out, reference, &name),
            Come::Told { name, kind, told, held } => {
                if out.len() > 0 {
                    // What is large is not copied behind something else.
                    self.flush(out).await?;
                }
                out.put_told(&name, kind, &told, held);
            }
            Come::Refused { reference, failure } => self.refuse_frame(out, reference, failure),
            Come::Ended { name, cursor, reason } => put_ended(out, None, &name, cursor, Some(reason)),
        }
        Ok(())
    }
}

fn put_began(out: &mut Outgoing, reference: Option<String>, name: &str) {
    out.put(&ServerFrame::Watched(Watched::Began {
        reference: reference.map(Into::into),
        watch: name.into(),
    }));
}

fn put_ended(
    out: &mut Outgoing,
    reference: Option<String>,
    name: &str,
    cursor: Option<MessageId>,
    reason: Option<String>,
) {
    out.put(&ServerFrame::Watched(Watched::Ended {
        reference: reference.map(Into::into),
        watch: name.into(),
        cursor,
        reason: reason.map(Into::into),
    }));
}
