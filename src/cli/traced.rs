//! The trace that a command is part of: `TRACEPARENT` and `TRACESTATE`, as programs hand them on to those that they run.

use tidemill_client::Trace;

use crate::config::Environment;

pub(super) const TRACEPARENT: &str = "TRACEPARENT";
pub(super) const TRACESTATE: &str = "TRACESTATE";

/// Returns the trace that the environment names. What could not stand in a header is none.
pub(super) fn trace(environment: &Environment) -> Option<Trace> {
    let text = |name: &str| {
        let text = environment.get(name).map(|text| text.trim().to_owned());
        text.filter(|text| {
            !text.is_empty() && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
        })
    };
    Some(Trace { traceparent: text(TRACEPARENT)?, tracestate: text(TRACESTATE) })
}
