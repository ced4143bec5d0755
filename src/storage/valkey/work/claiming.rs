//! Claims: one by one, and many of one message at once.

use futures_util::future::join_all;
use tidemill_proto::TopicName;
use tidemill_proto::work::{ConsumerName, GroupName};

use super::replies::{read_claimed, read_claimed_new};
use super::{CLAIM_BYTES_MAX, ENTRY_BYTES, behind_code, of_code};
use crate::storage::valkey::Shard;
use crate::storage::valkey::failure::Effect;
use crate::storage::valkey::scripts;
use crate::storage::{BEHIND_MAX, Claim, Claimed, StorageError};

/// Messages at which one step of a claim looks that may have to stand behind others of their keys.
const LOOKED_AT_MAX: usize = 500;
/// Steps of one claim: those in which as many as may stand behind others do, and some more.
const STEPS_MAX: usize = 2 * BEHIND_MAX / LOOKED_AT_MAX;
/// What a script answers where each is to claim by itself.
const ONE_BY_ONE: i64 = 8;

impl Shard {
    /// Claims for one consumer.
    async fn claim(&self, claim: Claim) -> Result<Claimed, StorageError> {
        let Claim { topic, group, consumer, max, bytes_max, claim_id } = claim;
        let remembered = match &claim_id {
            Some(id) => self.keys.claim(&topic, &group, &consumer, id),
            // A key that is not used.
            None => self.keys.stream(&topic),
        };
        let beside = [remembered, self.keys.description(&topic)];
        let (count, bytes) = (max.to_string(), bytes_max.to_string());
        let (behind, looked_at) = (BEHIND_MAX.to_string(), LOOKED_AT_MAX.to_string());
        let has_id = if claim_id.is_some() { "1" } else { "0" };
        let arguments = [consumer.as_str(), &count, &bytes, has_id, &behind, &looked_at];
        let mut step = 1;
        loop {
            let call = self
                .of_group((&topic, &group), &scripts::CLAIM, Effect::Write, &beside, &arguments)
                .replied(max.saturating_mul(ENTRY_BYTES).min(bytes_max), CLAIM_BYTES_MAX);
            let (claimed, is_more) = self.ask(call, read_claimed).await?;
            if !is_more || !claimed.deliveries.is_empty() || step == STEPS_MAX {
                return Ok(claimed);
            }
            step += 1;
        }
    }

    /// Claims one after the other; those that ask for one message of a group together, where that may be.
    pub(in crate::storage::valkey) async fn claim_all(
        &self,
        claims: Vec<Claim>,
    ) -> Vec<Result<Claimed, StorageError>> {
        if let [first, ..] = &claims[..]
            && first.is_of_one(first)
        {
            let consumers: Vec<_> = claims.iter().map(|claim| &claim.consumer).collect();
            match self.claim_new(&first.topic, &first.group, &consumers).await {
                Ok(Some(claimed)) => return claimed.into_iter().map(Ok).collect(),
                Ok(None) => {}
                Err(error) => return claims.iter().map(|_| Err(error.again())).collect(),
            }
        }
        join_all(claims.into_iter().map(|claim| self.claim(claim))).await
    }

    /// Claims one new message for each of several consumers of a group; `None` where they are to claim one by one.
    async fn claim_new(
        &self,
        topic: &TopicName,
        group: &GroupName,
        consumers: &[&ConsumerName],
    ) -> Result<Option<Vec<Claimed>>, StorageError> {
        let names: Vec<&str> = consumers.iter().map(|name| name.as_str()).collect();
        let count = names.len();
        let call = self
            .of_group(
                (topic, group),
                &scripts::CLAIM_NEW,
                Effect::Write,
                &[self.keys.description(topic)],
                &names,
            )
            .replied(count * ENTRY_BYTES, CLAIM_BYTES_MAX);
        let answer = self
            .calls
            .call(call, move |reply| behind_code(reply, |parts| read_claimed_new(count, parts)))
            .await?;
        match answer {
            Ok(claimed) => Ok(Some(claimed)),
            Err(ONE_BY_ONE) => Ok(None),
            Err(code) => Err(of_code(code)),
        }
    }
}
