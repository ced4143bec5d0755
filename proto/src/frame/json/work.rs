//! The frames of consumers in JSON, as the relay reads and writes them.

use std::time::Duration;

use serde_json::value::RawValue;

use super::AnyFrame;
use crate::frame::{ClientFrame, Consume, HandedRef, Said, Settle, WorkRef};
use crate::work::DeliveredRef;
use crate::{Problem, duration};

/// Reads a frame that consumes or settles.
///
/// # Errors
/// It lacks a field that it needs, or a duration is none.
pub(super) fn read(any: AnyFrame<'_>) -> Result<ClientFrame<'_>, Box<Problem>> {
    let missing = |field: &str| Box::new(Problem::field(field, "is missing"));
    let said = match any.kind.as_deref() {
        Some("consume") => {
            return Ok(ClientFrame::Consume(Consume {
                reference: any.reference,
                topic: any.topic.ok_or_else(|| missing("topic"))?,
                group: any.group.ok_or_else(|| missing("group"))?,
                credit: any.credit.ok_or_else(|| missing("credit"))?,
                consumer: any.consumer,
            }));
        }
        Some("ack") => Said::Ack { result: any.result.map(|json| json.get().as_bytes()) },
        Some("nack") => Said::Nack { delay: read_duration("delay", any.delay)?, error: any.error },
        Some("extend") => Said::Extend { ack_wait: read_duration("ack_wait", any.ack_wait)? },
        Some("reject") => Said::Reject { reason: any.reason.ok_or_else(|| missing("reason"))? },
        _ => Said::Release,
    };
    let receipts = any.receipts.ok_or_else(|| missing("receipts"))?;
    Ok(ClientFrame::Settle(Settle { reference: any.reference, receipts, said }))
}

fn read_duration(field: &str, json: Option<&RawValue>) -> Result<Option<Duration>, Box<Problem>> {
    let read = json.map(|json| duration::parse_json(json.get())).transpose();
    read.map_err(|error| Box::new(Problem::field(field, error)))
}

/// Appends a `work` frame to `out`, from its parts.
pub fn write_work<'a>(
    work: WorkRef<'_>,
    messages: impl IntoIterator<Item = HandedRef<'a>>,
    out: &mut Vec<u8>,
) {
    let WorkRef { topic, group, epoch: _, cancelled } = work;
    // Names hold nothing that JSON escapes.
    let head = format!(r#"{{"type":"work","topic":"{topic}","group":"{group}","messages":["#);
    out.extend_from_slice(head.as_bytes());
    let mut is_first = true;
    for handed in messages {
        if !std::mem::take(&mut is_first) {
            out.push(b',');
        }
        let HandedRef { message, delivery, deadline } = handed;
        let receipt = work.receipt(message.message_id, delivery);
        DeliveredRef { message, receipt: &receipt, deadline, cancelled }.write_json(out);
    }
    out.extend_from_slice(b"]}");
}
