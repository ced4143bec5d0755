//! What the model knows of gaps: who reads, and what must be told.

use tidemill::proto::page::Order;
use tidemill::proto::{Gap, GapReason, MessageId};
use tidemill::storage::{GapCheck, Range};

use super::{Model, Topic, Who};

impl Model<'_> {
    /// Returns who reads, as the contract has it.
    pub(super) async fn gap_check(&self, order: Order, after: Option<MessageId>, who: Who) -> GapCheck {
        match (order, who, &self.topic) {
            (Order::Asc, Who::Reader, _) => GapCheck::Seen,
            (Order::Asc, Who::Follower, Some(topic)) => {
                let epoch = self.storage.live.tail(&self.name).await.expect("the topic exists").epoch;
                let given = self.given[topic.given_before..].iter().position(|id| Some(*id) == after);
                match given.map(|place| place as u64 + 1) {
                    _ if after == Some(MessageId::MIN) => GapCheck::follows(epoch, Some(0)),
                    given @ Some(_) => GapCheck::follows(epoch, given),
                    // Who follows has made nothing up.
                    None => GapCheck::Seen,
                }
            }
            (Order::Desc | Order::Asc, _, _) => GapCheck::None,
        }
    }

    /// A gap must be told where messages behind the cursor are gone and were not deleted by request, and must
    /// not where none can be; and to who counts, exactly.
    pub(super) fn check_gap(&self, topic: &Topic, range: Range, gap: Option<&Gap>) {
        let cursor = range.after.filter(|_| range.gap_check != GapCheck::None);
        let Some(cursor) = cursor else { return assert_eq!(gap, None) };
        let kept = |id: &MessageId| topic.messages.iter().any(|(message, _)| message.id == *id);
        let is_gone = |id: &MessageId| !kept(id) && !topic.removed.contains(id);
        let gone_behind =
            |given: &[MessageId]| given.iter().filter(|id| **id > cursor && is_gone(id)).count();
        // Who was there before the first message knows nothing of an earlier topic of the name.
        let given_before = if cursor == MessageId::MIN { topic.given_before } else { 0 };
        let gone = gone_behind(&self.given[given_before..]);
        assert!(gone == 0 || gap.is_some(), "what is missing after {cursor} is not told");
        let of_topic = &self.given[topic.given_before..];
        let is_own = cursor == MessageId::MIN || of_topic.contains(&cursor);
        if let GapCheck::Follows { given: Some(_), .. } = range.gap_check {
            assert_eq!(gap.map(|gap| gap.missed), (gone > 0).then_some(Some(gone as u64)), "{cursor}");
        }
        if is_own && (kept(&cursor) || !of_topic.iter().any(is_gone)) {
            assert_eq!(gap, None, "nothing is missing after {cursor}");
        }
        let to = topic.messages.first().map(|(message, _)| message.id);
        if let Some(gap) = gap {
            assert_eq!((&gap.topic, gap.from), (&self.name, cursor));
            assert!(to.is_none_or(|to| gap.to == to), "{gap:?}");
            match gap.reason {
                GapReason::Trimmed => assert!(of_topic.iter().any(is_gone), "{gap:?}"),
                GapReason::Compacted => panic!("the topic is not compacted: {gap:?}"),
                GapReason::Deleted | GapReason::Reset => assert!(!is_own, "{gap:?}"),
            }
        }
    }
}
