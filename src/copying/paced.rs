//! A side that is asked for so many messages a second and no more: it has clients, too.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tidemill_proto::copy::CopyRead;
use tokio::time::{Instant, sleep_until};

use super::side::{CopySide, SideError, Told, Write};
use crate::storage::{KeysPart, StoredMessage};

/// Bytes of a message that count as one more: large ones cost a server by their bytes.
const MESSAGE_BYTES: usize = 1024;

/// A side that is asked as fast as this allows: steps begin one behind the other, each once there is room for what it has
/// told or written.
#[derive(Debug)]
pub struct Paced {
    side: Arc<dyn CopySide>,
    per_second: u32,
    pace: Mutex<Pace>,
}

#[derive(Debug)]
struct Pace {
    /// When the next step may begin.
    next: Instant,
    /// How much the step before has told: what the next is taken to tell.
    expected: Duration,
}

impl Paced {
    /// Returns a side that is asked for so many messages a second, of up to 1 KiB; a larger one counts as several.
    #[must_use]
    pub fn new(side: Arc<dyn CopySide>, per_second: u32) -> Self {
        let pace = Pace { next: Instant::now(), expected: Duration::ZERO };
        Self { side, per_second: per_second.max(1), pace: Mutex::new(pace) }
    }

    /// Waits for a turn, and returns how long what is told was taken to need.
    async fn turn(&self) -> Duration {
        let (at, expected) = {
            let mut pace = self.pace.lock();
            let at = pace.next.max(Instant::now());
            pace.next = at + pace.expected;
            (at, pace.expected)
        };
        sleep_until(at).await;
        expected
    }

    /// Counts what was told in place of what was expected.
    fn count(&self, expected: Duration, messages: usize) {
        let needs = Duration::from_secs(1) * u32::try_from(messages).unwrap_or(u32::MAX) / self.per_second;
        let mut pace = self.pace.lock();
        pace.expected = needs;
        pace.next += needs.saturating_sub(expected);
        pace.next = pace.next.checked_sub(expected.saturating_sub(needs)).unwrap_or(pace.next);
    }
}

#[async_trait]
impl CopySide for Paced {
    async fn read(&self, asked: &CopyRead) -> Result<Told, SideError> {
        let expected = self.turn().await;
        let told = self.side.read(asked).await;
        self.count(expected, told.as_ref().map_or(1, told_of));
        told
    }

    async fn write(&self, write: Write) -> Result<(), SideError> {
        let messages = written_of(&write);
        let expected = self.turn().await;
        self.count(expected, messages);
        self.side.write(write).await
    }

    fn behind(&self) -> Option<&dyn CopySide> {
        Some(&*self.side)
    }
}

/// Returns as how many messages it counts.
fn weight(messages: &[StoredMessage]) -> usize {
    messages.iter().map(|message| message.body.len_bytes().div_ceil(MESSAGE_BYTES).max(1)).sum()
}

fn told_of(told: &Told) -> usize {
    match told {
        Told::Messages(messages) => weight(messages),
        Told::Pending(pending) => pending.len(),
        Told::Dead(dead) => dead.len(),
        Told::Waiting(page) => page.messages.len(),
        Told::Keys(page) => page.keys.len(),
        Told::SomeKeys(keys) => keys.len(),
        _ => 1,
    }
    .max(1)
}

fn written_of(write: &Write) -> usize {
    match write {
        Write::Messages { messages, .. } | Write::Changes { changes: messages, .. } => weight(messages),
        Write::Pending { pending, .. } => pending.len(),
        Write::Dead { dead, .. } => dead.len(),
        Write::Waiting { waiting, .. } => waiting.len(),
        Write::Keys { keys, .. } => match keys {
            KeysPart::First(keys) | KeysPart::More(keys) | KeysPart::Last(keys) => keys.len(),
            KeysPart::Changed(keys) => keys.len(),
        },
        _ => 1,
    }
    .max(1)
}

#[cfg(test)]
mod tests {
    use tidemill_proto::{MessageId, TopicName};

    use super::*;

    /// Tells 200 ids each time, which count as one step, and takes a while for it.
    #[derive(Debug)]
    struct Slow;

    #[async_trait]
    impl CopySide for Slow {
        async fn read(&self, _: &CopyRead) -> Result<Told, SideError> {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(Told::Ids(vec![MessageId::MIN; 200]))
        }

        async fn write(&self, _: Write) -> Result<(), SideError> {
            Ok(())
        }

        fn behind(&self) -> Option<&dyn CopySide> {
            None
        }
    }

    #[tokio::test(start_paused = true)]
    async fn steps_begin_as_fast_as_they_may_however_many_there_are_and_however_long_each_takes() {
        let paced = Paced::new(Arc::new(Slow), 100);
        let topic = TopicName::parse("t").expect("a name");
        let began = Instant::now();
        let ask = async || {
            for _ in 0..25 {
                let asked = CopyRead::Deletions { topic: topic.clone() };
                paced.read(&asked).await.expect("an answer");
            }
        };
        futures_util::join!(ask(), ask(), ask(), ask());
        let took = began.elapsed().as_millis();
        // A hundred steps at a hundred a second; the first of each of the four come before it is known what they tell.
        assert!((950..1_050).contains(&took), "{took} ms");
    }
}
