//! Leases: everything about one is a script (see `scripts::leases`), called over the connection of work.

use std::time::Duration;

use async_trait::async_trait;
use tidemill_proto::Timestamp;

use super::calls::Call;
use super::failure::{Effect, of_key, unexpected};
use super::resp::{Parts, Reply};
use super::scripts::{self, Script};
use super::{Shard, Valkey, at, keys};
use crate::storage::{
    LEASED_MAX, LeaseFacts, LeaseSecret, LeaseSeen, LeaseStore, Leased, PutUnder, StorageError,
};

/// Bytes of an answer for each thing at most: two names of 255 bytes, a word, and a secret or a revision.
const THING_BYTES: usize = 640;
/// Bytes for which room is left in what comes at once.
const THINGS_BYTES: usize = 64 * 1024;
/// Things that one step takes from under a lease.
const LET_GO_MAX: usize = 500;

/// What scripts answer instead of what was asked for.
const NONE: i64 = 1;
const CROWDED: i64 = 2;
const FOREIGN: i64 = -1;

fn text<'a>(part: &Reply<'a>) -> Option<&'a str> {
    std::str::from_utf8(part.bytes()?).ok()
}

fn read_facts(parts: &mut Parts<'_>) -> Option<LeaseFacts> {
    let ttl = Duration::from_millis(text(&parts.next()?)?.parse().ok()?);
    let left = Duration::from_millis(u64::try_from(parts.next()?.integer()?).ok()?);
    let expires_at = Timestamp::from_millis(text(&parts.next()?)?.parse().ok()?);
    Some(LeaseFacts { ttl, left, expires_at, count: usize::try_from(parts.next()?.integer()?).ok()? })
}

fn read_things(parts: &mut Parts<'_>) -> Option<Vec<Leased>> {
    let mut things = Vec::new();
    while let Some(name) = parts.next() {
        // What another program has put there is no thing.
        things.extend(Leased::parse(text(&name)?, text(&parts.next()?)?));
    }
    things.sort_by_cached_key(Leased::name);
    Some(things)
}

/// What a script answers: what it tells behind 0, or another number.
fn read<T>(reply: Reply<'_>, of: impl FnOnce(&mut Parts<'_>) -> Option<T>) -> Option<Result<T, i64>> {
    let Reply::Array(mut parts) = reply else { return None };
    match parts.next()?.integer()? {
        0 => of(&mut parts).map(Ok),
        code => Some(Err(code)),
    }
}

fn seen(parts: &mut Parts<'_>) -> Option<LeaseSeen> {
    Some((read_facts(parts)?, read_things(parts)?))
}

impl Shard {
    async fn call_lease<T: Send + 'static>(
        &self,
        script: &'static Script,
        effect: Effect,
        secret: LeaseSecret,
        arguments: &[String],
        of: fn(&mut Parts<'_>) -> Option<T>,
    ) -> Result<Result<T, i64>, StorageError> {
        let key = keys::lease(secret);
        let call = Call::new(script, effect, &[&key], arguments);
        let call = call.replied(THINGS_BYTES, LEASED_MAX * THING_BYTES);
        match self.calls.call(call, move |reply| read(reply, of)).await {
            Ok(Err(FOREIGN)) => Err(StorageError::ForeignKey(key.into())),
            Ok(answer) => Ok(answer),
            Err(error) => Err(of_key(error, key)),
        }
    }

    /// Calls a script that answers with what it tells of a lease, or that there is none.
    async fn of_lease<T: Send + 'static>(
        &self,
        script: &'static Script,
        effect: Effect,
        secret: LeaseSecret,
        arguments: &[String],
        of: fn(&mut Parts<'_>) -> Option<T>,
    ) -> Result<Option<T>, StorageError> {
        match self.call_lease(script, effect, secret, arguments, of).await? {
            Ok(told) => Ok(Some(told)),
            Err(NONE) => Ok(None),
            Err(_) => Err(unexpected("EVALSHA", effect)),
        }
    }
}

#[async_trait]
impl LeaseStore for Valkey {
    async fn make_lease(&self, secret: LeaseSecret, ttl: Duration) -> Result<LeaseFacts, StorageError> {
        let arguments = [ttl.as_millis().to_string()];
        let made = at!(self, &secret, shard => {
            shard.of_lease(&scripts::MAKE_LEASE, Effect::Write, secret, &arguments, read_facts).await
        })?;
        made.ok_or_else(|| unexpected("EVALSHA", Effect::Write))
    }

    async fn lease(&self, secret: LeaseSecret) -> Result<Option<LeaseFacts>, StorageError> {
        at!(self, &secret, shard => {
            shard.of_lease(&scripts::SEE_LEASE, Effect::Read, secret, &["0".to_owned()], read_facts).await
        })
    }

    async fn leased(&self, secret: LeaseSecret) -> Result<Option<LeaseSeen>, StorageError> {
        at!(self, &secret, shard => {
            shard.of_lease(&scripts::SEE_LEASE, Effect::Read, secret, &["1".to_owned()], seen).await
        })
    }

    async fn put_under(&self, secret: LeaseSecret, thing: &Leased) -> Result<PutUnder, StorageError> {
        let arguments = [thing.name(), thing.proof(), LEASED_MAX.to_string()];
        let put = at!(self, &secret, shard => {
            shard.call_lease(&scripts::PUT_UNDER, Effect::Write, secret, &arguments, read_facts).await
        })?;
        match put {
            Ok(facts) => Ok(PutUnder::Kept(facts)),
            Err(NONE) => Ok(PutUnder::NoLease),
            Err(CROWDED) => Ok(PutUnder::Crowded),
            Err(_) => Err(unexpected("EVALSHA", Effect::Write)),
        }
    }

    async fn let_go(&self, secret: LeaseSecret, things: &[Leased]) -> Result<(), StorageError> {
        for some in things.chunks(LET_GO_MAX) {
            let arguments: Vec<_> = some.iter().flat_map(|thing| [thing.name(), thing.proof()]).collect();
            at!(self, &secret, shard => {
                shard.of_lease(&scripts::LET_GO, Effect::Write, secret, &arguments, |_| Some(())).await
            })?;
        }
        Ok(())
    }

    async fn renew_lease(&self, secret: LeaseSecret) -> Result<Option<LeaseSeen>, StorageError> {
        at!(self, &secret, shard => {
            shard.of_lease(&scripts::RENEW_LEASE, Effect::Write, secret, &[], seen).await
        })
    }

    async fn end_lease(&self, secret: LeaseSecret) -> Result<Option<Vec<Leased>>, StorageError> {
        let ended = at!(self, &secret, shard => {
            shard.of_lease(&scripts::END_LEASE, Effect::Write, secret, &[], seen).await
        })?;
        Ok(ended.map(|(_, things)| things))
    }
}
