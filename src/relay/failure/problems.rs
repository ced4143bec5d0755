//! Problems whose text depends on what was asked, or on what has come of it.

use tidemill_proto::{Code, DurabilityTold, MessageId, Problem};

use super::Call;
use crate::storage::WhyReadOnly;

/// Returns the problem of a call whose outcome is not known.
pub(super) fn indeterminate(call: Call) -> Problem {
    match call {
        Call::Read => Problem::new(
            Code::StorageTimeout,
            "the storage did not answer in time; reading again does no harm",
        ),
        Call::Publish { keyed: false } => Problem::new(
            Code::OutcomeUnknown,
            "the storage did not answer in time, so the message may have been kept or not; to be able to retry without a possible copy, publish with an `Idempotency-Key`",
        ),
        Call::Publish { keyed: true } => {
            let mut problem = Problem::new(
                Code::OutcomeUnknown,
                "the storage did not answer in time, so the message may have been kept or not; retry under the same key, it is then kept once",
            );
            problem.retryable = true;
            problem
        }
        Call::Keys { keyed: false } => Problem::new(
            Code::OutcomeUnknown,
            "the storage did not answer in time, so the change may have been made or not; read the key, or, to be able to retry, send an `Idempotency-Key` or `If-Match`",
        ),
        Call::Keys { keyed: true } => {
            let mut problem = Problem::new(
                Code::OutcomeUnknown,
                "the storage did not answer in time, so the change may have been made or not; retry under the same key, it is then made once",
            );
            problem.retryable = true;
            problem
        }
        Call::Change => Problem::new(
            Code::OutcomeUnknown,
            "the storage did not answer in time, so the change may have been made or not; look at what was to be changed, and repeat the change where it is missing",
        ),
    }
}

/// Returns the problem of a fence against which this one stands, if there is one; nothing was so.
pub(super) fn fenced(against: Option<MessageId>, nothing_was: &str) -> Problem {
    let why = against.map_or_else(
        || "the fence is of a lock that nobody holds now, or that guards something else".to_owned(),
        |against| format!("the fence is not that of who holds the lock: fence `{against}` stands against it"),
    );
    let detail = format!("{why}; nothing was {nothing_was}, acquire the lock anew");
    Problem { fence: against, ..Problem::new(Code::Fenced, detail) }
}

/// Returns the problem of a change of what takes none now: a `topic` or a `bucket` with its name, where it is one.
pub(super) fn read_only(why: WhyReadOnly, thing: Option<(&str, &str)>) -> Problem {
    let it = thing.map_or_else(|| "what is asked for".to_owned(), |(kind, name)| format!("{kind} `{name}`"));
    let detail = match why {
        WhyReadOnly::Importing => {
            let delete = thing.map_or_else(String::new, |(kind, name)| {
                format!(", or delete what it has left here (`tidemill {kind}s delete {name}`)")
            });
            format!(
                "{it} is being copied here and is not whole yet; nothing was kept or changed, try again. If no copy runs any more, run the same `tidemill copy` or `tidemill import` again, which goes on{delete}"
            )
        }
        WhyReadOnly::Frozen => format!(
            "{it} was made read-only with `tidemill freeze`; nothing was kept or changed. If it has moved elsewhere, use it there; else try again once `tidemill freeze --storage URL --undo` has ended that"
        ),
        WhyReadOnly::NotMade => format!(
            "{it} is not there, and is not made, as the storage was made read-only with `tidemill freeze`; nothing was kept or changed. If all has moved elsewhere, use it there; else try again once `tidemill freeze --storage URL --undo` has ended that"
        ),
    };
    Problem::new(Code::ReadOnly, detail)
}

/// Returns the problem of a publish that is kept, and not as durable as was asked.
pub(super) fn not_reached(id: MessageId, told: DurabilityTold, keyed: bool) -> Problem {
    let DurabilityTold { asked, reached } = told;
    let how = if keyed {
        "under the same key the same publish finds it again, and waits anew"
    } else {
        "published again it would be there twice, but for an `Idempotency-Key`"
    };
    Problem {
        message_id: Some(id),
        durability: Some(told),
        retryable: keyed,
        ..Problem::new(
            Code::DurabilityNotReached,
            format!(
                "the message is kept as `{id}`, and was `{reached}` in time where `{asked}` was asked; it may become so yet, or be lost with the server: {how}"
            ),
        )
    }
}
