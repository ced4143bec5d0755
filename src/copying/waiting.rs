//! Copying what waits in a topic for later.

use tidemill_proto::TopicName;
use tidemill_proto::copy::{CopyRead, DueAfter};

use super::{Copy, CopyError, Write};
use crate::storage::{StoredRecurring, WaitingPage};

impl Copy {
    /// Copies what waits in a topic for later.
    pub(super) async fn copy_waiting(&self, topic: &TopicName) -> Result<(), CopyError> {
        let import = async |first, waiting, recurring| {
            self.go_on_claiming(topic).await?;
            self.import(topic, Write::Waiting { topic: topic.clone(), first, waiting, recurring }).await
        };
        import(true, Vec::new(), Vec::new()).await?;
        let recurring: Vec<StoredRecurring> =
            self.ask_source(topic, CopyRead::Recurring { topic: topic.clone() }).await?;
        // Each may be as large as a message can be.
        for one in recurring {
            import(false, Vec::new(), vec![one]).await?;
        }
        let mut after = None;
        loop {
            let page: WaitingPage =
                self.ask_source(topic, CopyRead::Waiting { topic: topic.clone(), after }).await?;
            if !page.messages.is_empty() {
                import(false, page.messages, Vec::new()).await?;
            }
            let Some(next) = page.next else { return Ok(()) };
            after = Some(DueAfter { deliver_at: next.due, schedule_id: next.id });
        }
    }
}
