//! Ids of traces and spans, and whether a trace that begins here is kept: asked before anything is made for it, as of most
//! nothing may be.

use std::cell::Cell;
use std::sync::OnceLock;

use opentelemetry::trace::{SpanId, SpanKind, TraceId};
use opentelemetry_sdk::trace::{IdGenerator, SamplingDecision, ShouldSample};

use crate::chance::random;

/// What decides; the same that the library asks.
static SAMPLER: OnceLock<Box<dyn ShouldSample>> = OnceLock::new();

thread_local! {
    /// The id of the trace that is about to begin on this thread.
    static NEXT: Cell<Option<TraceId>> = const { Cell::new(None) };
}

/// Makes ids by chance, but for the trace that is about to begin.
#[derive(Debug)]
pub(super) struct Ids;

impl Ids {
    /// Returns what makes ids where this decides what is kept.
    pub(super) fn under(sampler: Box<dyn ShouldSample>) -> Self {
        let _ = SAMPLER.set(sampler);
        Self
    }
}

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        NEXT.take().unwrap_or_else(trace)
    }

    fn new_span_id(&self) -> SpanId {
        SpanId::from(random().max(1))
    }
}

/// Begins a trace without a parent and without links, if it is kept: the next id is its own.
pub(super) fn begins(name: &str, kind: &SpanKind) -> bool {
    let Some(sampler) = SAMPLER.get() else { return false };
    let id = trace();
    let is_kept = sampler.should_sample(None, id, name, kind, &[], &[]).decision != SamplingDecision::Drop;
    NEXT.set(is_kept.then_some(id));
    is_kept
}

fn trace() -> TraceId {
    TraceId::from(u128::from(random()) << 64 | u128::from(random().max(1)))
}
