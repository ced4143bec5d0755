//! Contexts of others (W3C Trace Context): in headers of a request, and in the metadata of a message.

use memchr::memmem;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tidemill_proto::Trace;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// The span of another program, under which one of the relay hangs.
#[derive(Clone, Debug)]
pub struct Parent(SpanContext);

/// Both texts, as the library asks for them.
struct Texts<'a> {
    traceparent: &'a str,
    tracestate: Option<&'a str>,
}

impl Extractor for Texts<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            TRACEPARENT => Some(self.traceparent),
            TRACESTATE => self.tracestate,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, TRACESTATE]
    }
}

impl Parent {
    /// Returns the parent that these texts tell of; none where they have another form, as the standard wants it.
    #[must_use]
    pub fn read(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let texts = Texts { traceparent, tracestate };
        let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &texts);
        let context = context.span().span_context().clone();
        context.is_valid().then_some(Self(context))
    }

    /// Returns the parent that the metadata of a message tells of. Where nothing is traced it is not looked for.
    #[must_use]
    pub fn of_metadata(metadata: Option<&[u8]>) -> Option<Self> {
        let metadata = metadata.filter(|_| super::is_on())?;
        memmem::find(metadata, b"\"traceparent\"")?;
        let Trace { traceparent, tracestate } = Trace::of_metadata(metadata)?;
        Self::read(&traceparent, tracestate.as_deref())
    }

    pub(super) const fn context(&self) -> &SpanContext {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_parent_is_read_as_the_standard_writes_it_and_anything_else_is_none() {
        let parent = Parent::read(PARENT, Some("vendor=1")).expect("a parent");
        assert_eq!(parent.context().trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(parent.context().trace_state().get("vendor"), Some("1"));
        assert!(parent.context().is_sampled());
        let unsampled = PARENT.replace("-01", "-00");
        assert!(!Parent::read(&unsampled, None).expect("a parent").context().is_sampled());
        let zeros = format!("00-{:032}-b7ad6b7169203331-01", 0);
        for text in
            ["", "00-a", &zeros, &PARENT[3..], "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]
        {
            assert!(Parent::read(text, None).is_none(), "{text}");
        }
    }
}
