//! Limits of applications: what is owed of one is a text of its own, which a script reads and writes by the server's
//! clock. They are taken many at a time, over the connection of work.

use async_trait::async_trait;

use super::calls::Call;
use super::failure::{Effect, of_key, unexpected};
use super::resp::Reply;
use super::{Shard, Valkey, at, keys, scripts};
use crate::storage::{LIMIT_POLICIES_MAX, Owed, StorageError, Take, TakeKind, TakeStore, Taken};

/// Answers of the script beside 0.
const TOO_MANY: i64 = 1;
const FOREIGN: i64 = 2;

#[async_trait]
impl TakeStore for Valkey {
    async fn take(&self, take: &Take) -> Result<Taken, StorageError> {
        at!(self, &take.name, shard => shard.take(take).await)
    }
}

impl Shard {
    /// Takes of a limit, looks at it, or gives back to it.
    async fn take(&self, take: &Take) -> Result<Taken, StorageError> {
        let key = keys::taken(&take.name);
        let effect = match take.kind {
            TakeKind::Take | TakeKind::Refund => Effect::Write,
            TakeKind::Peek => Effect::Read,
        };
        let mut arguments = Vec::with_capacity(2 + take.policies.len() * 6);
        arguments.extend([take.kind.as_str().to_owned(), LIMIT_POLICIES_MAX.to_string()]);
        for policy in &take.policies {
            let (limit, per_ms, burst) = (policy.limit(), policy.per_ms(), policy.burst());
            arguments.extend([format!("{limit}/{per_ms}/{burst}"), limit.to_string()]);
            for Owed { micros, parts } in [policy.time_of(take.cost), policy.time_of(burst)] {
                arguments.extend([micros.to_string(), parts.to_string()]);
            }
        }
        let call = Call::new(&scripts::TAKE, effect, &[&key], &arguments);
        let count = take.policies.len();
        let answer = self.calls.call(call, move |reply| read(reply, count)).await;
        match answer.map_err(|error| of_key(error, &*key))? {
            Ok(taken) => Ok(taken),
            Err(TOO_MANY) => Err(StorageError::PoliciesLimit),
            Err(FOREIGN) => Err(StorageError::ForeignKey(key.into())),
            Err(_) => Err(unexpected("EVALSHA", effect)),
        }
    }
}

/// Reads an answer about so many policies: its code, or what follows a 0.
fn read(reply: Reply<'_>, policies: usize) -> Option<Result<Taken, i64>> {
    let Reply::Array(mut parts) = reply else { return None };
    let code = parts.next()?.integer()?;
    if code != 0 {
        return Some(Err(code));
    }
    let allowed = parts.next()?.integer()? == 1;
    let mut owed = Vec::with_capacity(policies);
    for _ in 0..policies {
        let micros = u64::try_from(parts.next()?.integer()?).ok()?;
        owed.push(Owed { micros, parts: u32::try_from(parts.next()?.integer()?).ok()? });
    }
    Some(Ok(Taken { allowed, owed }))
}
