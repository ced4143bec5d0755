//! A group of consumers, as a copy has it.

use serde::{Deserialize, Serialize};

use super::topic::digits;
use crate::work::{GroupName, GroupSettings};
use crate::{MessageId, Timestamp};

/// A group, without what it knows of messages, which is told in parts. Results, and what happened in which minute, are not
/// copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CopiedGroup {
    /// Its name.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub group: GroupName,
    /// Its settings.
    pub settings: GroupSettings,
    /// Which of the groups of that name it is, and since which seek.
    #[serde(with = "digits")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^[0-9a-fA-F]{16}$"))]
    pub epoch: u64,
    /// When it was made, if that is known.
    pub created_at: Option<Timestamp>,
    /// Behind which it began, or was set.
    pub start: MessageId,
    /// The last message that it has given out.
    pub last_delivered: MessageId,
    /// Messages of the topic up to there, those included that were gone, where that is known.
    pub passed: Option<u64>,
    /// Messages that were done, failed, were given out again, and were gone, ever.
    pub counts: [u64; 4],
}

/// A key of which one message at a time may be there, with that and its time.
pub type CopiedUnique = (Box<str>, MessageId, Timestamp);

/// A page of such keys, in no order; one may be told twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UniquePage {
    /// The keys.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Vec<String>>))]
    pub unique: Vec<CopiedUnique>,
    /// From where the next page is asked for; null where this one is the last.
    pub next: Option<String>,
}

/// A message that was given out and is not done. One that a consumer has is told as waiting until its time is over: no
/// consumer takes its messages along.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CopiedPending {
    /// Its id.
    pub id: MessageId,
    /// How often it was given out.
    pub deliveries: u64,
    /// How often it has failed.
    pub failures: u32,
    /// How many consumers were lost with it.
    pub crashes: u32,
    /// The last error.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub error: Option<Box<str>>,
    /// Where it is.
    pub place: CopiedPlace,
}

/// Where a message is that is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum CopiedPlace {
    /// It can be given out from then on.
    Waits(Timestamp),
    /// Another message holds its order key.
    Behind,
    /// It is to become a dead letter, for this reason.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    Dying(Box<str>),
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CopiedDead {
    /// The id of the message.
    pub id: MessageId,
    /// The id of its letter, where there is one.
    pub letter: Option<MessageId>,
    /// How often it was given out.
    pub deliveries: u64,
    /// Why it died.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub reason: Box<str>,
}
