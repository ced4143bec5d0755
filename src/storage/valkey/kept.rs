//! What topics keep: the server weighs streams, one node asks it, and the others read what that has found.
//!
//! A stream weighs what `MEMORY USAGE` says, with a bounded number of its nodes looked at, each of about 100 entries:
//! longer streams are told by the average of their oldest [`SAMPLES`] nodes. Beside the stream a topic has a
//! description, and ids that were deleted; these are left out.
//!
//! Nobody waits for it, and publishes wait behind each of its questions. So these are small, and it rests after each.

use std::time::Duration;

use glide::ValkeyValue;
use sha1::{Digest as _, Sha1};
use tidemill_proto::{TopicName, TopicSelector};
use tokio::time::sleep;

use super::control::bytes_of;
use super::failure::Effect;
use super::{Shard, keys};
use crate::storage::StorageError;

/// Nodes of a stream that are looked at: 100,000 entries, which takes the server some 50 µs.
pub(super) const SAMPLES: &str = "1000";
/// Names that are looked at in one step, and topics that are weighed in one.
const STEP_NAMES: usize = 1_000;
const STEP_TOPICS: usize = 64;
/// Topics that are weighed in one turn. Those beyond it count as what these have on the average.
const WEIGHED_MAX: u64 = 100_000;
/// The rest after a step.
const REST: Duration = Duration::from_millis(2);
/// Part of the interval of sweeps for which what was found holds, as the lock of a sweep does.
const HELD_SHARE: f64 = 0.9;

/// What one selector has.
#[derive(Clone, Copy, Debug, Default)]
struct Weight {
    bytes: u64,
    weighed: u64,
    /// Topics that were not weighed any more.
    others: u64,
}

impl Weight {
    fn total(self) -> u64 {
        let average = self.bytes.checked_div(self.weighed).unwrap_or(0);
        self.bytes.saturating_add(average.saturating_mul(self.others))
    }
}

impl Shard {
    /// Returns how many bytes the topics of each selector keep here, about; `None` while another node weighs them.
    pub(super) async fn kept(&self, selectors: &[TopicSelector]) -> Result<Option<Vec<u64>>, StorageError> {
        let key = keys::of_server(&keys::kept(digest(selectors)), self.own_slot());
        let held_ms = self.sweep_interval.mul_f64(HELD_SHARE).as_millis().max(1).to_string();
        let mut pipeline = glide::pipe();
        // An empty text is of who has begun to weigh.
        pipeline.cmd("SET").arg(&key).arg("").arg("NX").arg("PX").arg(&held_ms);
        match self.change.run_one(&pipeline, Effect::Write).await {
            Ok(ValkeyValue::Nil) => {
                let mut pipeline = glide::pipe();
                pipeline.cmd("GET").arg(&key);
                let found = bytes_of(self.change.run_one(&pipeline, Effect::Read).await?);
                return Ok(found.and_then(|text| read(&text, selectors.len())));
            }
            // A server at its memory limit takes no note, and is weighed by each node.
            Ok(_) | Err(StorageError::Full(_)) => {}
            Err(error) => return Err(error),
        }
        let kept = self.weigh(selectors).await?;
        let mut pipeline = glide::pipe();
        pipeline.cmd("SET").arg(&key).arg(written(&kept)).arg("PX").arg(&held_ms);
        match self.change.run_one(&pipeline, Effect::Write).await {
            Ok(_) | Err(StorageError::Full(_)) => Ok(Some(kept)),
            Err(error) => Err(error),
        }
    }

    async fn weigh(&self, selectors: &[TopicSelector]) -> Result<Vec<u64>, StorageError> {
        let mut weights = vec![Weight::default(); selectors.len()];
        let (mut after, mut left) = (None, WEIGHED_MAX);
        loop {
            let names = self.indexes.topics.near(after.as_ref(), STEP_NAMES).await?;
            let Some(last) = names.last() else { break };
            after = Some(last.clone());
            let is_wanted = |name: &&TopicName| {
                selectors.iter().any(|selector| selector.matches(name)) && self.has(*name)
            };
            let wanted: Vec<&TopicName> = names.iter().filter(is_wanted).collect();
            for topics in wanted.chunks(STEP_TOPICS) {
                let weighed: Vec<Option<u64>> = if left == 0 {
                    vec![None; topics.len()]
                } else {
                    left = left.saturating_sub(topics.len() as u64);
                    self.weigh_some(topics).await?.into_iter().map(Some).collect()
                };
                for (topic, bytes) in topics.iter().zip(weighed) {
                    let of_it = selectors.iter().zip(&mut weights);
                    for (_, weight) in of_it.filter(|(selector, _)| selector.matches(topic)) {
                        match bytes {
                            Some(bytes) => {
                                weight.bytes = weight.bytes.saturating_add(bytes);
                                weight.weighed += 1;
                            }
                            None => weight.others += 1,
                        }
                    }
                }
                sleep(REST).await;
            }
            sleep(REST).await;
        }
        Ok(weights.into_iter().map(Weight::total).collect())
    }

    async fn weigh_some(&self, topics: &[&TopicName]) -> Result<Vec<u64>, StorageError> {
        let mut pipeline = glide::pipe();
        for topic in topics {
            pipeline.cmd("MEMORY").arg("USAGE").arg(self.keys.stream(topic)).arg("SAMPLES").arg(SAMPLES);
        }
        let weighed = self.change.run(&pipeline, Effect::Read).await?;
        // One that is gone meanwhile weighs nothing.
        let bytes = |reply| match reply {
            ValkeyValue::Int(bytes) => u64::try_from(bytes).unwrap_or(0),
            _ => 0,
        };
        Ok(weighed.into_iter().map(bytes).collect())
    }
}

/// Returns what tells one list of selectors from another: nodes that are set in the same way share what they find.
fn digest(selectors: &[TopicSelector]) -> [u8; 16] {
    let mut digest = Sha1::new();
    for selector in selectors {
        // A blank stands in no name and no pattern.
        digest.update(selector.to_string());
        digest.update(b" ");
    }
    let [digest @ .., _, _, _, _] = <[u8; 20]>::from(digest.finalize());
    digest
}

fn written(kept: &[u64]) -> String {
    let numbers: Vec<_> = kept.iter().map(u64::to_string).collect();
    numbers.join(" ")
}

fn read(text: &[u8], count: usize) -> Option<Vec<u64>> {
    let numbers = std::str::from_utf8(text).ok()?.split(' ').map(str::parse);
    numbers.collect::<Result<Vec<u64>, _>>().ok().filter(|numbers| numbers.len() == count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selectors(texts: &[&str]) -> Vec<TopicSelector> {
        texts.iter().map(|text| TopicSelector::parse(text).expect(text)).collect()
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        for kept in [&[0][..], &[1, u64::MAX], &[7, 8, 9]] {
            assert_eq!(read(written(kept).as_bytes(), kept.len()).as_deref(), Some(kept));
            assert_eq!(read(written(kept).as_bytes(), kept.len() + 1), None);
        }
        for text in ["", " ", "1 ", "x", "1 -1", "1  2"] {
            assert_eq!(read(text.as_bytes(), 2), None, "{text:?}");
        }
        let lists = [&["a", "b"][..], &["ab"], &["b", "a"], &["a"], &["a*", "b"]];
        let digests: std::collections::BTreeSet<_> =
            lists.iter().map(|list| digest(&selectors(list))).collect();
        assert_eq!(digests.len(), lists.len());
    }

    #[test]
    fn topics_that_were_not_weighed_count_as_the_others_do() {
        let total = |bytes, weighed, others| Weight { bytes, weighed, others }.total();
        assert_eq!((total(100, 4, 0), total(100, 4, 2), total(0, 0, 0), total(0, 0, 3)), (100, 150, 0, 0));
    }
}
