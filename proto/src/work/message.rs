//! Messages of a group on the wire: as they are claimed, and what became of one.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::names::{ConsumerName, GroupName};
use super::receipt::Receipt;
use crate::{Message, MessageId, MessageRef, Timestamp, TopicName};

/// A message that a consumer has, as it reads it.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Delivered {
    /// The message.
    #[serde(flatten)]
    pub message: Message,
    /// What settles it.
    pub receipt: String,
    /// Which of its deliveries to the group this is, from 1 on.
    pub delivery: u64,
    /// Until when the consumer has it.
    pub deadline: Timestamp,
    /// Why its topic was cancelled, where it was when the message was claimed: a worker may have nothing more to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub cancelled: Option<String>,
}

impl<'de> Deserialize<'de> for Delivered {
    /// By hand: a derived one keeps what it flattens in a form in which JSON is no longer as it was written.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Own {
            receipt: String,
            delivery: u64,
            deadline: Timestamp,
            #[serde(default)]
            cancelled: Option<String>,
        }

        let json = Box::<RawValue>::deserialize(deserializer)?;
        let Own { receipt, delivery, deadline, cancelled } =
            serde_json::from_str(json.get()).map_err(D::Error::custom)?;
        let message = serde_json::from_str(json.get()).map_err(D::Error::custom)?;
        Ok(Self { message, receipt, delivery, deadline, cancelled })
    }
}

/// The answer to a claim.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Work {
    /// The messages, none where there were none in time.
    pub messages: Vec<Delivered>,
}

/// A message that a consumer has, about to be written.
#[derive(Clone, Copy, Debug)]
pub struct DeliveredRef<'a> {
    /// The message.
    pub message: MessageRef<'a>,
    /// What settles it.
    pub receipt: &'a Receipt,
    /// Until when the consumer has it.
    pub deadline: Timestamp,
    /// Why its topic was cancelled, if it was.
    pub cancelled: Option<&'a str>,
}

impl DeliveredRef<'_> {
    /// Appends it to `out` as a JSON object, in the form that [`Delivered`] reads.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        self.message.write_json(out);
        // The object goes on in place of its end.
        out.pop();
        let Self { receipt, deadline, cancelled, .. } = self;
        let text = format!(
            r#","receipt":"{receipt}","delivery":{},"deadline":"{}""#,
            receipt.delivery,
            &*deadline.text()
        );
        out.extend_from_slice(text.as_bytes());
        if let Some(reason) = cancelled {
            out.extend_from_slice(br#","cancelled":"#);
            // Writing a text into a vector cannot fail.
            let _ = serde_json::to_writer(&mut *out, reason);
        }
        out.push(b'}');
    }
}

/// What became of a message in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum MessageStateName {
    /// It can be claimed, now or when its turn comes.
    Waiting,
    /// A consumer has it.
    InFlight,
    /// It waits for its next delivery after a failure.
    Backoff,
    /// It was acknowledged.
    Done,
    /// It is a dead letter.
    Dead,
}

/// What became of a message in a group, with what is known of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MessageState {
    /// The message.
    pub message_id: MessageId,
    /// What became of it.
    pub state: MessageStateName,
    /// How often it was given out; null where that is no longer known.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub deliveries: Option<u64>,
    /// How often a consumer said that it has failed; absent where that is not known, or 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
    /// How many consumers were lost with it; absent where that is not known, or 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crashes: Option<u32>,
    /// The message in front of it that holds its order key, while it waits for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<MessageId>,
    /// Who has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<String>,
    /// When the consumer got it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Until when the consumer has it, or when its next delivery is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The last error that a consumer told of it, or why it is a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What was told with its acknowledgement, while that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>))]
    pub result: Option<Box<RawValue>>,
}

/// The body of a claim.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimRequest {
    /// Who claims.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub consumer: ConsumerName,
    /// Most messages, 1 to 1,000; 1 if absent.
    pub max: Option<u32>,
    /// How long to wait where there are none: a number of seconds, or text with a unit; at most 60 s, 0 if absent.
    pub wait: Option<String>,
    /// By which the same claim can be repeated while its messages are held: it returns them again.
    pub claim_id: Option<String>,
}

/// The body of a claim of several groups.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimFromRequest {
    /// Who claims.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub consumer: ConsumerName,
    /// 1 to 20 groups.
    pub from: Vec<ClaimSource>,
    /// `strict` or `weighted`; `weighted` if absent.
    pub order: Option<String>,
    /// Most messages, 1 to 1,000; 1 if absent.
    pub max: Option<u32>,
    /// How long to wait where there are none: a number of seconds, or text with a unit; at most 60 s, 0 if absent.
    pub wait: Option<String>,
}

/// A group to claim from.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimSource {
    /// The topic.
    pub topic: TopicName,
    /// The group.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub group: GroupName,
    /// Its part beside the others, 1 to 1,000; 1 if absent.
    pub weight: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OrderKey, PayloadRef};

    #[test]
    fn what_is_delivered_is_read_as_it_was_written() {
        let topic = TopicName::parse("jobs").expect("a name");
        let group = GroupName::parse("workers").expect("a name");
        let id = MessageId::new(5, 1);
        let receipt = Receipt { topic: topic.clone(), group, epoch: 7, id, delivery: 2 };
        let key = OrderKey::parse("a \"b\\").expect("a key");
        for (bytes, content_type) in
            [(&b"{\"b\": 1.10,\n\"a\":123456789012345678901}"[..], None), (b"\xff", Some("a/b"))]
        {
            let message = MessageRef {
                message_id: id,
                topic: &topic,
                payload: PayloadRef { bytes, content_type },
                timestamp: Timestamp::from_millis(5),
                metadata: Some(br#"{"k":1.0}"#),
                order_key: Some(&key),
            };
            let mut out = br#"{"messages":["#.to_vec();
            let cancelled = content_type.map(|_| "too \"late\"\n");
            let deadline = Timestamp::from_millis(9);
            DeliveredRef { message, receipt: &receipt, deadline, cancelled }.write_json(&mut out);
            out.extend_from_slice(b"]}");
            let work: Work = serde_json::from_slice(&out).expect("what is written can be read");
            let [read] = work.messages.try_into().expect("one message");
            assert_eq!(read.message.payload_bytes().expect("base64"), bytes);
            assert_eq!(read.message.metadata.expect("it has some").get(), r#"{"k":1.0}"#);
            assert_eq!(read.message.order_key.as_ref(), Some(&key));
            assert_eq!((read.receipt, read.delivery), (receipt.to_string(), 2));
            assert_eq!(read.cancelled.as_deref(), cancelled);
            assert_eq!(read.deadline, Timestamp::from_millis(9));
        }
    }
}
