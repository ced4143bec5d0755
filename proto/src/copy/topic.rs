//! A topic without its messages, as a copy has it.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::topics::{RunEnd, Topic};
use crate::{MessageId, Timestamp};

/// Which of the topics that have had a name: each time that it is made, it is another one, with another epoch.
/// The epoch lies in what it tells apart and is gone with it, so that nobody can put another topic in its
/// place unseen.
///
/// On the wire it is sixteen hexadecimal digits, and null where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Epoch {
    /// Nobody has written it down: another producer made the topic, and no sweep has come by. Or nobody has
    /// looked.
    #[default]
    Unmarked,
    /// This one. It differs from those of all other topics, of this name and of others.
    Marked(u64),
}

impl Epoch {
    /// Whether a topic that had this epoch may have that one now. A topic gets an epoch where it had none; it
    /// never loses one, nor gets another.
    #[must_use]
    pub fn may_be(self, now: Self) -> bool {
        self == Self::Unmarked || self == now
    }
}

impl Serialize for Epoch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unmarked => serializer.serialize_none(),
            Self::Marked(epoch) => digits::serialize(epoch, serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<Cow<'_, str>>::deserialize(deserializer)?;
        text.map_or(Ok(Self::Unmarked), |text| digits::parse(&text).map(Self::Marked))
    }
}

/// A number of sixteen hexadecimal digits, which common readers of JSON could not read as a number.
pub(super) mod digits {
    use std::borrow::Cow;

    use serde::de::Error;
    use serde::{Deserialize as _, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it so")]
    pub(in crate::copy) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{number:016x}"))
    }

    pub(in crate::copy) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        parse(&Cow::<'_, str>::deserialize(deserializer)?)
    }

    pub(super) fn parse<E: Error>(text: &str) -> Result<u64, E> {
        let is_it = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| is_it);
        number.ok_or_else(|| E::custom("must be sixteen hexadecimal digits"))
    }
}

/// Why a topic takes no message, other than that it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Freeze {
    /// It is being taken over from elsewhere.
    Importing,
    /// Somebody has said so.
    ReadOnly,
}

/// A topic without its messages, as a copy has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CopiedTopic {
    /// The description.
    pub topic: Topic,
    /// Which topic it is.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, pattern = "^[0-9a-fA-F]{16}$"))]
    pub epoch: Epoch,
    /// The smallest id that it can give, where somebody has written it down.
    pub born: Option<MessageId>,
    /// When it was noticed last that its ids do not follow the clock.
    pub late: Option<Timestamp>,
    /// Messages kept, expired ones included.
    pub length: u64,
    /// The oldest kept message.
    pub first: Option<MessageId>,
    /// The last id that it has given; `0-0` where it has given none.
    pub last: MessageId,
    /// How many messages it was ever given, where the backend counts them.
    pub given: Option<u64>,
    /// The newest message that was taken out alone, and the newest of which it is known that others than the relay did so.
    pub taken_out: Option<MessageId>,
    /// See there.
    pub taken_out_by_others: Option<MessageId>,
    /// Where it is compacted: what is gone of which the table of the latest messages has no trace.
    pub untold: Option<CopiedUntold>,
    /// Where the backend has lost messages that it had confirmed, in their order.
    #[serde(default)]
    pub holes: Vec<CopiedHole>,
    /// That it has ended, if it has.
    pub ended: Option<RunEnd>,
    /// Why it takes no message, if it is frozen.
    pub freeze: Option<Freeze>,
}

/// What is gone of a topic that is compacted, and is not among its latest messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CopiedUntold {
    /// The newest such message, whatever its key.
    pub newest: Option<MessageId>,
    /// The newest message without a key.
    pub keyless: Option<MessageId>,
}

/// Where messages were lost that the backend had confirmed: behind the one id, up to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CopiedHole {
    /// Behind which.
    pub from: MessageId,
    /// The last that is gone.
    pub to: MessageId,
}
