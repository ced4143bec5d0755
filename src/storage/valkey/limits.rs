//! Allowances: for each quota the grants that still count, as the fields of a hash, by the server's clock; and what
//! each node holds of one, as the fields of another.

use glide::ValkeyValue;

use super::control::{bytes_of, checked};
use super::failure::{Effect, of_key, unexpected};
use super::{Shard, keys, scripts};
use crate::storage::StorageError;
use crate::storage::limits::{Draw, Drawn, Places};

impl Shard {
    /// Draws from a quota.
    pub(super) async fn draw(&self, draw: &Draw) -> Result<Drawn, StorageError> {
        let key = keys::quota(draw.quota);
        let (slice, amount) = draw.back.map_or((0, 0), |back| (back.slice, back.amount));
        let numbers = [
            u128::from(draw.rate.amount),
            u128::from(draw.width_ms()),
            draw.counts_for().as_millis(),
            u128::from(draw.most),
            u128::from(slice),
            u128::from(amount),
        ];
        let mut pipeline = glide::pipe();
        pipeline.cmd("EVAL").arg(scripts::DRAW).arg("1").arg(&*key);
        for number in numbers {
            pipeline.arg(number.to_string());
        }
        let answer = self.change.run(&pipeline, Effect::Write).await?.pop().unwrap_or(ValkeyValue::Nil);
        let answer = checked(answer).map_err(|error| of_key(error, key))?;
        read(answer).ok_or_else(|| unexpected("EVAL", Effect::Write))
    }

    /// Tells how many places a node holds from now on, and returns whether it may.
    pub(super) async fn hold(&self, places: &Places) -> Result<bool, StorageError> {
        let key = keys::places(places.quota);
        let mut pipeline = glide::pipe();
        pipeline.cmd("EVAL").arg(scripts::HOLD_PLACES).arg("1").arg(&*key).arg(places.node.to_string());
        pipeline.arg(places.count.to_string()).arg(places.most.to_string());
        pipeline.arg(places.lease.as_millis().to_string());
        let answer = self.change.run(&pipeline, Effect::Write).await?.pop().unwrap_or(ValkeyValue::Nil);
        match checked(answer).map_err(|error| of_key(error, key))? {
            ValkeyValue::Int(may) => Ok(may == 1),
            _ => Err(unexpected("EVAL", Effect::Write)),
        }
    }
}

fn read(answer: ValkeyValue) -> Option<Drawn> {
    let ValkeyValue::Array(parts) = answer else { return None };
    let number = |part: ValkeyValue| std::str::from_utf8(&bytes_of(part)?).ok()?.parse::<u64>().ok();
    let mut parts = parts.into_iter().map(number);
    let [granted, slice, left, wait] = std::array::from_fn(|_| parts.next().flatten());
    Some(Drawn {
        granted: granted?.try_into().ok()?,
        slice: slice?,
        left: left?.try_into().ok()?,
        wait: std::time::Duration::from_millis(wait?),
    })
}
