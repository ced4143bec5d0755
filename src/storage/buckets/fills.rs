//! Filling keys: one of all who ask for a key that is not there, or stale, is to put it, and the others wait for that.

use std::fmt;
use std::time::Duration;

use tidemill_proto::{BucketName, KeyName};

use super::KeyEntry;

/// How long the token counts of who fills a key.
pub const FILL_MAX: Duration = Duration::from_mins(10);

/// Who fills a key says with it that the fill is its own: made up by who asks, and unguessable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FillToken(pub [u8; 16]);

impl fmt::Debug for FillToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FillToken(…)")
    }
}

/// Who would fill a key.
#[derive(Clone, Debug)]
pub struct FillAsked {
    /// The bucket.
    pub bucket: BucketName,
    /// The key.
    pub key: KeyName,
    /// The token that is to count.
    pub token: FillToken,
    /// For how long: 1 ms to [`FILL_MAX`].
    pub within: Duration,
    /// Whether to make the bucket, with the settings that are usual, where it is not there.
    pub create_bucket: bool,
}

/// Whether a key is to be filled, with its value where it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyFill {
    /// It is there, and its value is fresh.
    Fresh(KeyEntry),
    /// Who has asked is to fill it, under its token.
    Granted(Option<KeyEntry>),
    /// Another fills it.
    Filling {
        /// The key, where it is there: its value is stale.
        stale: Option<KeyEntry>,
        /// For how long its token counts, unless it fills the key before.
        over_in: Duration,
    },
}
