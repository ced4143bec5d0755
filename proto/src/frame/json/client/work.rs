//! The frames of consumers in JSON, as a client writes and reads them.

use super::message;
use super::{AnyServerFrame, ServerFrameError, name, parse, write_member, write_value};
use crate::duration::Seconds;
use crate::frame::{Delivered, Said, Settle, Work};
use crate::work::Receipt;

pub(super) fn read(any: AnyServerFrame<'_>) -> Result<Work<'_>, ServerFrameError> {
    let missing = |field| ServerFrameError::Missing("work", field);
    let mut work = Work {
        topic: name(any.topic).ok_or(missing("topic"))?,
        group: any.group.ok_or(missing("group"))?,
        epoch: 0,
        cancelled: None,
        deliveries: Vec::new(),
    };
    for json in any.messages.ok_or(missing("messages"))? {
        let mut of_message = parse(json.get())?;
        let deadline = of_message.deadline.ok_or(missing("deadline"))?;
        let receipt = of_message.receipt.take().and_then(|text| Receipt::parse(&text).ok());
        let receipt = receipt.ok_or(missing("receipt"))?;
        work.cancelled = of_message.cancelled.take();
        let message = message::read(json.get(), of_message)?;
        work.epoch = receipt.epoch;
        work.deliveries.push(Delivered { message, delivery: receipt.delivery, deadline });
    }
    Ok(work)
}

pub(super) fn write_settle(settle: &Settle<'_>, out: &mut Vec<u8>) {
    let kind = match settle.said {
        Said::Ack { .. } => "ack",
        Said::Nack { .. } => "nack",
        Said::Extend { .. } => "extend",
        Said::Reject { .. } => "reject",
        Said::Release => "release",
    };
    out.extend_from_slice(format!(r#"{{"type":"{kind}","receipts":"#).as_bytes());
    write_value(&settle.receipts, out);
    if let Some(reference) = &settle.reference {
        write_member("ref", reference, out);
    }
    match &settle.said {
        Said::Ack { result: Some(json) } => {
            out.extend_from_slice(br#","result":"#);
            out.extend_from_slice(json);
        }
        Said::Nack { delay, error } => {
            if let Some(delay) = delay {
                write_member("delay", &Seconds(*delay), out);
            }
            if let Some(error) = error {
                write_member("error", error, out);
            }
        }
        Said::Extend { ack_wait: Some(wait) } => write_member("ack_wait", &Seconds(*wait), out),
        Said::Reject { reason } => write_member("reason", reason, out),
        Said::Ack { result: None } | Said::Extend { ack_wait: None } | Said::Release => {}
    }
    out.push(b'}');
}
