//! Copying the groups of a topic, part by part.

use tidemill_proto::copy::CopyRead;
use tidemill_proto::work::GroupName;
use tidemill_proto::{MessageId, TopicName};

use super::side::{Answer, find};
use super::{Copy, CopyError, Side, Write};
use crate::storage::{CopiedDead, CopiedGroup, CopiedPending, CopiedPlace, IMPORTED_MAX, UniquePage};

impl Copy {
    /// Copies the groups of a topic, whose messages have come.
    pub(super) async fn copy_groups(&self, topic: &TopicName) -> Result<(), CopyError> {
        let groups: Vec<GroupName> =
            self.ask_source(topic, CopyRead::Groups { topic: topic.clone() }).await?;
        for group in groups {
            let look = async || {
                let asked = CopyRead::Group { topic: topic.clone(), group: group.clone() };
                self.of_group::<Box<CopiedGroup>>(topic, asked).await
            };
            // Where there is none, it was deleted at this moment.
            while let Some(copied) = look().await? {
                let epoch = copied.epoch;
                self.copy_group(topic, &group, copied).await?;
                // One that was set to another place meanwhile is told in parts that do not belong together.
                if look().await?.is_some_and(|now| now.epoch == epoch) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Asks the source about a group, which may be gone.
    async fn of_group<A: Answer>(&self, topic: &TopicName, asked: CopyRead) -> Result<Option<A>, CopyError> {
        find(&*self.from, asked).await.map_err(Side::Source.failed(topic))
    }

    async fn copy_group(
        &self,
        topic: &TopicName,
        group: &GroupName,
        copied: Box<CopiedGroup>,
    ) -> Result<(), CopyError> {
        let last = copied.last_delivered;
        self.import_part(topic, Write::Group { topic: topic.clone(), group: copied }).await?;
        let of = || (topic.clone(), group.clone());
        let import_pending = async |pending: Vec<CopiedPending>| {
            let (topic_name, group) = of();
            self.import_part(topic, Write::Pending { topic: topic_name, group, pending }).await
        };
        // These come behind all that hold their keys. A group has few of them (`BEHIND_MAX`).
        let mut behind = Vec::new();
        let mut after: Option<MessageId> = None;
        loop {
            let (topic_name, group) = of();
            let asked = CopyRead::Pending { topic: topic_name, group, after };
            let page: Option<Vec<CopiedPending>> = self.of_group(topic, asked).await?;
            let Some(page) = page else { return Ok(()) };
            after = page.last().map(|one| one.id);
            // What it has given out since comes to the copy as new.
            let known = page.into_iter().filter(|one| one.id <= last);
            let (stand, hold): (Vec<_>, Vec<_>) = known.partition(|one| one.place == CopiedPlace::Behind);
            behind.extend(stand);
            if !hold.is_empty() {
                import_pending(hold).await?;
            }
            if after.is_none_or(|after| after >= last) {
                break;
            }
        }
        for some in behind.chunks(IMPORTED_MAX) {
            import_pending(some.to_vec()).await?;
        }
        let mut after: Option<MessageId> = None;
        loop {
            let (topic_name, group) = of();
            let asked = CopyRead::Dead { topic: topic_name, group, after };
            let page: Option<Vec<CopiedDead>> = self.of_group(topic, asked).await?;
            let Some(mut dead) = page else { return Ok(()) };
            after = dead.last().map(|one| one.id);
            if after.is_none() {
                break;
            }
            dead.retain(|one| one.id <= last);
            let (topic_name, group) = of();
            self.import_part(topic, Write::Dead { topic: topic_name, group, dead }).await?;
        }
        let mut after: Option<String> = None;
        loop {
            let (topic_name, group) = of();
            let asked = CopyRead::Unique { topic: topic_name, group, after };
            let page: Option<UniquePage> = self.of_group(topic, asked).await?;
            let Some(UniquePage { unique, next }) = page else { return Ok(()) };
            for some in unique.chunks(IMPORTED_MAX) {
                let (topic_name, group) = of();
                let write = Write::Unique { topic: topic_name, group, unique: some.to_vec() };
                self.import_part(topic, write).await?;
            }
            if next.is_none() {
                return Ok(());
            }
            after = next;
        }
    }

    /// Has the target take over a part of a group.
    async fn import_part(&self, topic: &TopicName, write: Write) -> Result<(), CopyError> {
        self.go_on_claiming(topic).await?;
        self.import(topic, write).await?;
        *self.fails_since.lock() = None;
        Ok(())
    }
}
