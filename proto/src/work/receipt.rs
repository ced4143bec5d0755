//! Receipts: what a consumer holds of one delivery of a message, and settles it with.

use std::fmt;

use serde::{Serialize, Serializer};

use super::names::GroupName;
use crate::{MessageId, TopicName};

/// One delivery of a message to a consumer of a group, as text `topic/group/epoch/id/delivery`. No name holds a slash.
/// Clients take it as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// The topic.
    pub topic: TopicName,
    /// The group.
    pub group: GroupName,
    /// Which of the groups that have had the name, and since which seek.
    pub epoch: u64,
    /// The message.
    pub id: MessageId,
    /// Which of its deliveries to the group, from 1 on.
    pub delivery: u64,
}

/// A text is not a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a receipt; a receipt is what a claim gave with the message, to be given back as it is")]
pub struct ReceiptError;

impl Receipt {
    /// Parses a receipt.
    ///
    /// # Errors
    /// The text is none.
    pub fn parse(text: &str) -> Result<Self, ReceiptError> {
        let mut parts = text.split('/');
        let mut next = || parts.next().ok_or(ReceiptError);
        let topic = TopicName::parse(next()?).map_err(|_| ReceiptError)?;
        let group = GroupName::parse(next()?).map_err(|_| ReceiptError)?;
        let epoch = next()?;
        let epoch = u64::from_str_radix(epoch, 16).ok().filter(|_| epoch.len() == 16).ok_or(ReceiptError)?;
        let id = MessageId::parse(next()?).map_err(|_| ReceiptError)?;
        let delivery = next()?;
        let is_number = delivery.bytes().all(|byte| byte.is_ascii_digit());
        let delivery = delivery.parse().ok().filter(|number| *number > 0 && is_number).ok_or(ReceiptError)?;
        if parts.next().is_some() {
            return Err(ReceiptError);
        }
        Ok(Self { topic, group, epoch, id, delivery })
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, group, epoch, id, delivery } = self;
        write!(f, "{topic}/{group}/{epoch:016x}/{id}/{delivery}")
    }
}

impl Serialize for Receipt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_read_as_it_was_written_and_nothing_else_is() {
        let receipt = Receipt {
            topic: TopicName::parse("orders.eu:1").expect("a name"),
            group: GroupName::parse("workers-1").expect("a name"),
            epoch: 0xfe,
            id: MessageId::new(7, 3),
            delivery: 2,
        };
        let text = "orders.eu:1/workers-1/00000000000000fe/7-3/2";
        assert_eq!(receipt.to_string(), text);
        assert_eq!(Receipt::parse(text), Ok(receipt));
        for wrong in [
            "",
            "a",
            "a/b/00000000000000fe/7-3",
            "a/b/00000000000000fe/7-3/0",
            "a/b/00000000000000fe/7-3/+1",
            "a/b/fe/7-3/1",
            "a/b/00000000000000fe/7/1",
            "a/b.c/00000000000000fe/7-3/1",
            "a*/b/00000000000000fe/7-3/1",
            "a/b/00000000000000fe/7-3/1/2",
            "a/b/00000000000000fe/7-3/99999999999999999999",
        ] {
            assert_eq!(Receipt::parse(wrong), Err(ReceiptError), "{wrong}");
        }
    }
}
