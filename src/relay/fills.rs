//! Filling keys: one of all who ask for a key that is not there, or stale, is to put it; the others have the stale value, or
//! wait.
//!
//! Who waits reads the log of the bucket, as who watches does, and asks the storage again only where the key has changed
//! or the time of who fills it is over.

use std::time::Duration;

use tidemill_proto::sessions::SessionKind;
use tidemill_proto::{BucketName, Code, Cursor, KeyName, Problem, Since, TopicName, duration};
use tokio::time::{Instant, timeout};

use super::live::{Item, LiveReader, NoOutlet, TakeLimit};
use super::watch::change_of;
use super::{Failure, Gate, within};
use crate::access::{Verb, secret_id};
use crate::slow;
use crate::storage::{FILL_MAX, FillAsked, FillToken, KeyCondition, KeyEntry, KeyFill};

/// For how long a token can count.
const FILL: [Duration; 2] = [Duration::from_millis(1), FILL_MAX];
/// How long can be waited for a key.
const WAIT: [Duration; 2] = [Duration::ZERO, Duration::from_mins(1)];
/// Changes of a bucket that are looked at in one turn by who waits.
const LOOKED_AT: TakeLimit = TakeLimit { items: 100, bytes: 64 * 1024 };

/// A key that is asked for, to be filled where it has to be.
#[derive(Clone, Copy, Debug)]
pub struct FillDraft {
    /// For how long the token counts.
    pub within: Duration,
    /// How long to wait for who fills it, where there is no value.
    pub wait: Duration,
}

/// What who asks for a key to be filled gets.
#[derive(Debug)]
pub enum KeyToFill {
    /// The key, whose value is fresh, or stale and being filled by another.
    Found(KeyEntry),
    /// It is to fill the key.
    Granted {
        /// What to put it under.
        token: FillToken,
        /// The key, where it is there: its value is stale.
        stale: Option<KeyEntry>,
    },
}

/// Parses for how long a token counts, and how long to wait; who says nothing waits as long as the token counts.
///
/// # Errors
/// One of them is no duration, or out of bounds.
pub fn parse_fill(fill: &str, wait: Option<&str>) -> Result<FillDraft, Failure> {
    let for_how_long = within("fill", duration::parse(fill).ok(), FILL)?;
    let wait = match wait {
        Some(text) => within("wait", duration::parse(text).ok(), WAIT)?,
        None => for_how_long.min(WAIT[1]),
    };
    Ok(FillDraft { within: for_how_long, wait })
}

/// Returns the condition that a key is being filled under a token; `field` is what it was called.
///
/// # Errors
/// It is none.
pub fn parse_fill_token(field: &str, text: &str) -> Result<KeyCondition, Failure> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let digits = Some(text).filter(|text| text.len() == 32 && text.bytes().all(is_digit));
    let token = digits.and_then(|digits| u128::from_str_radix(digits, 16).ok()).ok_or_else(|| {
        Problem::field(field, "must be a token as an answer had it: 32 hexadecimal digits in lower case")
    })?;
    Ok(KeyCondition::Filling(FillToken(token.to_be_bytes())))
}

/// Returns the text of a token.
#[must_use]
pub fn fill_token_text(token: FillToken) -> String {
    format!("{:032x}", u128::from_be_bytes(token.0))
}

impl Gate {
    /// Returns whether the value of a key is stale by now.
    #[must_use]
    pub fn is_stale(&self, entry: &KeyEntry) -> bool {
        entry.is_stale(self.relay().storage.upkeep.now())
    }

    /// Returns a key; where it is not there, or stale, one of all who ask is to fill it.
    ///
    /// # Errors
    /// The caller may not read it, or put it; another is filling it, and nothing was there at the end of the wait:
    /// `filling`; the value is damaged, there may be no more topics or buckets, or the storage did not answer.
    ///
    /// # Cancel safety
    /// Not cancel-safe: when the future is dropped, a token may count that nobody has.
    pub async fn key_to_fill(
        &self,
        bucket: &BucketName,
        key: &KeyName,
        draft: FillDraft,
    ) -> Result<KeyToFill, Failure> {
        self.check_key(Verb::Read, bucket, key)?;
        self.check_key(Verb::Publish, bucket, key)?;
        let store = &self.relay().storage.buckets;
        let until = Instant::now() + draft.wait;
        let mut asked = FillAsked {
            bucket: bucket.clone(),
            key: key.clone(),
            token: FillToken(secret_id()),
            within: draft.within,
            create_bucket: false,
        };
        let mut log: Option<LiveReader<NoOutlet>> = None;
        loop {
            // A value that is fresh costs no more than a read.
            let found = store.key(bucket, key, true).await;
            let found = found.map_err(|error| Failure::read_bucket(error, bucket))?;
            if let Some(entry) = found.filter(|entry| !self.is_stale(entry)) {
                self.note_read(bucket, &entry);
                return Ok(KeyToFill::Found(super::keys::sound(bucket, entry)?));
            }
            if !asked.create_bucket && self.relay().options.topic_auto_create {
                if self.meter().counts_topics() {
                    self.admit_topic(&TopicName::log_of(bucket)).await?;
                }
                asked.create_bucket = true;
            }
            let fill = store.fill_key(&asked).await;
            let over_in = match fill.map_err(|error| Failure::change_keys(error, false, bucket))? {
                KeyFill::Fresh(entry) | KeyFill::Filling { stale: Some(entry), .. } => {
                    self.note_read(bucket, &entry);
                    return Ok(KeyToFill::Found(super::keys::sound(bucket, entry)?));
                }
                KeyFill::Granted(stale) => {
                    if let Some(entry) = &stale {
                        self.note_read(bucket, entry);
                    }
                    return Ok(KeyToFill::Granted { token: asked.token, stale });
                }
                KeyFill::Filling { stale: None, over_in } => over_in,
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(filling(bucket, key, over_in));
            }
            let Some(log) = &mut log else {
                // What comes between the answer and this is seen by asking again.
                let mut reader = self.live_reader(SessionKind::Poll);
                reader.add_log(bucket, Since::Cursor(Cursor::Latest)).await?;
                log = Some(reader);
                continue;
            };
            let farewell = log.farewell();
            // A millisecond more, since the storage counts whole ones.
            let next_look = left.min(over_in + Duration::from_millis(1));
            let is_over = tokio::select! {
                _ = slow::awaited(timeout(next_look, changed(log, key))) => false,
                _ = farewell => true,
            };
            if is_over {
                return Err(filling(bucket, key, over_in));
            }
        }
    }
}

/// Waits until a key may have changed.
async fn changed(log: &mut LiveReader<NoOutlet>, key: &KeyName) {
    let is_of_it = |item: &Item| match item {
        Item::Message(message) => change_of(message).is_some_and(|logged| logged.key == key.as_str()),
        Item::Gap(_) | Item::Closed(_) => true,
        Item::Bookmark(..) => false,
    };
    while !log.next(LOOKED_AT).await.iter().any(is_of_it) {}
}

fn filling(bucket: &BucketName, key: &KeyName, over_in: Duration) -> Failure {
    let detail = format!(
        "key `{key}` of bucket `{bucket}` is not there, and another fills it; ask again, or wait longer (`wait`)"
    );
    let seconds = over_in.as_millis().div_ceil(1_000).max(1);
    let retry_after_seconds = Some(u64::try_from(seconds).unwrap_or(u64::MAX));
    Problem { retry_after_seconds, ..Problem::new(Code::Filling, detail) }.into()
}
