//! The parts of frames that several have: ids, names, cursors and classes of errors, as the layout has them; and
//! why bytes are no frame.

use std::borrow::Cow;

use super::VERSION;
use crate::frame::ErrorClass;
use crate::{Durability, DurabilityTold, MessageId, OrderKey, PatternCursor, TopicName, TopicPattern};

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BinaryError {
    /// Nothing there.
    #[error("the frame is empty")]
    Empty,
    /// Another version.
    #[error("the frame has version {0}; this relay speaks version {VERSION}")]
    Version(u8),
    /// Not a frame of this version.
    #[error("the frame cannot be read: {0}")]
    Malformed(&'static str),
    /// Bytes after the frame.
    #[error("{0} bytes follow the frame")]
    Trailing(usize),
    /// A part that is not valid.
    #[error("`{0}` is not valid")]
    Part(&'static str),
}

pub(super) type Id = (u64, u64);
/// What was asked for, and what was reached.
pub(super) type OutDurability<'a> = (Cow<'a, str>, Cow<'a, str>);
pub(super) type Cursors<'a> = Vec<(Cow<'a, str>, Id)>;
pub(super) type PatternCursors<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

pub(super) fn read_id((ms, seq): Id) -> MessageId {
    MessageId::new(ms, seq)
}

pub(super) fn write_id(id: MessageId) -> Id {
    (id.ms, id.seq)
}

pub(super) fn read_topic(text: &str) -> Result<TopicName, BinaryError> {
    TopicName::parse(text).map_err(|_| BinaryError::Part("topic"))
}

pub(super) fn read_order_key(text: Option<Cow<'_, str>>) -> Result<Option<OrderKey>, BinaryError> {
    text.map(|text| OrderKey::parse(&text)).transpose().map_err(|_| BinaryError::Part("order_key"))
}

pub(super) fn read_durability(
    told: Option<OutDurability<'_>>,
) -> Result<Option<DurabilityTold>, BinaryError> {
    let read = |text: &str| Durability::parse(text).map_err(|_| BinaryError::Part("durability"));
    told.map(|(asked, reached)| Ok(DurabilityTold { asked: read(&asked)?, reached: read(&reached)? }))
        .transpose()
}

pub(super) fn write_durability(told: DurabilityTold) -> OutDurability<'static> {
    (told.asked.to_string().into(), told.reached.to_string().into())
}

pub(super) fn read_cursors(
    cursors: &[(Cow<'_, str>, Id)],
) -> Result<Vec<(TopicName, MessageId)>, BinaryError> {
    cursors.iter().map(|(topic, id)| Ok((read_topic(topic)?, read_id(*id)))).collect()
}

pub(super) fn write_cursors(cursors: &[(TopicName, MessageId)]) -> Cursors<'_> {
    cursors.iter().map(|(topic, id)| (Cow::Borrowed(topic.as_str()), write_id(*id))).collect()
}

pub(super) fn read_pattern_cursor(
    pattern: &str,
    cursor: &str,
) -> Result<(TopicPattern, PatternCursor), BinaryError> {
    let pattern = TopicPattern::parse(pattern).map_err(|_| BinaryError::Part("pattern"))?;
    Ok((pattern, PatternCursor::parse(cursor).map_err(|_| BinaryError::Part("cursor"))?))
}

pub(super) fn read_pattern_cursors(
    cursors: &[(Cow<'_, str>, Cow<'_, str>)],
) -> Result<Vec<(TopicPattern, PatternCursor)>, BinaryError> {
    cursors.iter().map(|(pattern, cursor)| read_pattern_cursor(pattern, cursor)).collect()
}

pub(super) fn write_pattern_cursors(cursors: &[(TopicPattern, PatternCursor)]) -> PatternCursors<'_> {
    cursors.iter().map(|(pattern, cursor)| (pattern.as_str().into(), cursor.as_str().into())).collect()
}

pub(super) fn read_class(class: u8) -> Result<ErrorClass, BinaryError> {
    [ErrorClass::Subscription, ErrorClass::UnknownType, ErrorClass::Processing, ErrorClass::Publish]
        .into_iter()
        .find(|known| write_class(*known) == class)
        .ok_or(BinaryError::Part("class"))
}

pub(super) const fn write_class(class: ErrorClass) -> u8 {
    match class {
        ErrorClass::Subscription => 0,
        ErrorClass::UnknownType => 1,
        ErrorClass::Processing => 2,
        ErrorClass::Publish => 3,
    }
}
