//! Tickets: for each a hash that the server forgets by itself, and sorted sets that bound how many there are.

use bytes::Bytes;
use glide::ValkeyValue;

use super::control::{bytes_of, checked};
use super::failure::{Effect, of_key, unexpected};
use super::{Shard, keys, scripts};
use crate::storage::StorageError;
use crate::storage::tickets::{NewTicket, TICKETS_MAX, TICKETS_PER_MAKER_MAX, TicketClaim};

/// The field of who holds a ticket, which the scripts spell, too.
const HOLDER: &str = "holder";

impl Shard {
    /// Keeps a ticket, and returns whether there was room.
    pub(super) async fn put_ticket(&self, new: NewTicket) -> Result<bool, StorageError> {
        let (ticket, of_maker) = (keys::ticket(&new.id), keys::tickets_of(new.maker));
        let mut pipeline = glide::pipe();
        pipeline.cmd("EVAL").arg(scripts::PUT_TICKET).arg("3");
        pipeline.arg(&*ticket).arg(&*of_maker).arg(keys::TICKETS);
        pipeline.arg(&*new.id).arg(hex::encode(new.hash)).arg(new.document.to_vec());
        pipeline.arg(new.opens_within.as_millis().to_string());
        pipeline.arg(TICKETS_PER_MAKER_MAX.to_string()).arg(TICKETS_MAX.to_string());
        let answer = self.change.run(&pipeline, Effect::Write).await?.pop().unwrap_or(ValkeyValue::Nil);
        match checked(answer).map_err(|error| of_key(error, keys::TICKETS))? {
            ValkeyValue::Int(kept) => Ok(kept == 1),
            _ => Err(unexpected("EVAL", Effect::Write)),
        }
    }

    /// Claims a ticket, and returns its document where that may be.
    pub(super) async fn claim_ticket(&self, claim: &TicketClaim) -> Result<Option<Bytes>, StorageError> {
        let mut pipeline = glide::pipe();
        pipeline.cmd("EVAL").arg(scripts::CLAIM_TICKET).arg("2");
        pipeline.arg(keys::ticket(&claim.id)).arg(keys::TICKETS);
        pipeline.arg(&*claim.id).arg(hex::encode(claim.hash)).arg(hex::encode(claim.place));
        pipeline.arg(if claim.resumes { "1" } else { "0" }).arg(claim.holder.to_string());
        pipeline.arg(claim.kept_for.as_millis().to_string());
        let answer = self.change.run(&pipeline, Effect::Write).await?.pop().unwrap_or(ValkeyValue::Nil);
        Ok(bytes_of(checked(answer).map_err(|error| of_key(error, keys::TICKETS))?))
    }

    /// Returns who holds each of these tickets.
    pub(super) async fn ticket_holders(&self, ids: &[Box<str>]) -> Result<Vec<Option<u64>>, StorageError> {
        let mut pipeline = glide::pipe();
        for id in ids {
            pipeline.cmd("HGET").arg(keys::ticket(id)).arg(HOLDER);
        }
        let holder = |answer| {
            let text = bytes_of(checked(answer).map_err(|error| of_key(error, keys::TICKETS))?);
            Ok(text.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok()))
        };
        self.change.run(&pipeline, Effect::Read).await?.into_iter().map(holder).collect()
    }
}
