//! Messages in JSON, as a client reads them.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::value::RawValue;

use super::{AnyServerFrame, ServerFrameError, name};
use crate::frame::Message;
use crate::json::with_blanks;

pub(super) fn read<'a>(text: &'a str, any: AnyServerFrame<'a>) -> Result<Message<'a>, ServerFrameError> {
    let missing = |field| ServerFrameError::Missing("message", field);
    let payload = read_bytes(text, any.payload, any.payload_text, any.payload_base64);
    let payload = payload.ok_or(missing("payload"))?;
    let content_type = any.content_type;
    if any.payload.is_none() && content_type.is_none() {
        return Err(missing("content_type"));
    }
    Ok(Message {
        message_id: any.message_id.ok_or(missing("message_id"))?,
        topic: name(any.topic).ok_or(missing("topic"))?,
        payload,
        content_type,
        timestamp: any.timestamp.ok_or(missing("timestamp"))?,
        metadata: any.metadata.map(|json| Cow::Borrowed(with_blanks(text, json.get()).as_bytes())),
        order_key: any.order_key,
    })
}

/// Returns the bytes that stand in a frame as JSON, as text or in base64; `None` where there are none, or the base64 is
/// none.
pub(super) fn read_bytes<'a>(
    frame: &'a str,
    json: Option<&'a RawValue>,
    text: Option<Cow<'a, str>>,
    base64: Option<Cow<'a, str>>,
) -> Option<Cow<'a, [u8]>> {
    match (json, text, base64) {
        // The relay writes JSON with the white space that was sent around it.
        (Some(json), ..) => Some(Cow::Borrowed(with_blanks(frame, json.get()).as_bytes())),
        (None, Some(Cow::Borrowed(text)), _) => Some(Cow::Borrowed(text.as_bytes())),
        (None, Some(Cow::Owned(text)), _) => Some(Cow::Owned(text.into_bytes())),
        (None, None, Some(text)) => BASE64.decode(text.as_bytes()).ok().map(Cow::Owned),
        (None, None, None) => None,
    }
}
