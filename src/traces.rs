//! Traces: what the relay tells a collector of OpenTelemetry about its work, in spans.
//!
//! It is switched on for the process, as logs are, and everybody may begin a span. Where it is off, that is one look at a
//! flag. It must not know what a span is about beyond a few names; who ends one is who has begun it.
//!
//! | file | owns |
//! |---|---|
//! | `settings` | which variables of the environment are heeded, and what they may say |
//! | `parent` | contexts of others: in headers, and in metadata |
//! | `sampling` | which spans are kept |
//! | `ids` | ids of traces and spans, and whether a trace that begins here is kept |
//! | `sending` | the queue in front of the collector, its bound, and what is counted of it |
//! | `posting` | the client of HTTP that sends |
//! | `within` | futures that run within a span |
//!
//! **Invariant:** nobody waits for a collector: a span that has no room is dropped, and counted.

mod ids;
mod parent;
mod posting;
mod sampling;
mod sending;
mod settings;
mod within;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::trace::{
    Link, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use ids::Ids;
pub use parent::Parent;
pub use sending::{Sent, sent};
pub use settings::{TracesError, TracesSettings};
pub use within::Within;

use crate::chance::random;

/// Most spans that one is linked to.
const LINKS_MAX: usize = 128;
/// How long the last spans are waited for when the process ends.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Whether there is anything to be traced. It is written once, before anybody looks.
static ON: AtomicBool = AtomicBool::new(false);
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// What a span is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A client publishes.
    Publish,
    /// A client reads messages.
    Read,
    /// Live readers get messages.
    Deliver,
    /// A consumer claims messages.
    Claim,
    /// A consumer says what became of messages: by this name.
    Settle(&'static str),
}

impl Operation {
    const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Deliver => "deliver",
            Self::Claim => "claim",
            Self::Settle(name) => name,
        }
    }

    /// Returns which of the kinds of OpenTelemetry it is.
    const fn kind(self) -> &'static str {
        match self {
            Self::Publish | Self::Deliver => "send",
            Self::Read | Self::Claim => "receive",
            Self::Settle(_) => "settle",
        }
    }

    const fn span_kind(self) -> SpanKind {
        match self {
            Self::Publish | Self::Read | Self::Claim | Self::Settle(_) => SpanKind::Server,
            Self::Deliver => SpanKind::Producer,
        }
    }
}

/// What sends spans, for as long as the process is to.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Begins to trace, as the settings say.
    ///
    /// # Errors
    /// A variable that the exporter reads is wrong.
    pub fn start(settings: TracesSettings) -> Result<Self, TracesError> {
        let processor = sending::processor(&settings)?;
        let mut resource = Resource::builder();
        if !settings.is_named {
            resource = resource.with_service_name("tidemill");
        }
        let resource = resource
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("service.instance.id", format!("{:016x}", random())))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_id_generator(Ids::under(settings.sampler.clone()))
            .with_sampler(settings.sampler)
            .with_resource(resource)
            .with_span_processor(processor)
            .build();
        let _ = TRACER.set(provider.tracer("tidemill"));
        ON.store(true, Ordering::Relaxed);
        Ok(Self(provider))
    }

    /// Sends what is left, for as long as that may take, and ends. It blocks.
    pub fn stop(self) {
        ON.store(false, Ordering::Relaxed);
        // What could not be sent is counted.
        let _ = self.0.shutdown_with_timeout(LAST_WAIT);
    }
}

/// Returns whether the process traces.
#[must_use]
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// A span that was begun: it ends when this is dropped. Where nothing is traced, or not this, it is none.
#[derive(Debug, Default)]
pub struct Span(Option<Context>);

impl Span {
    /// Returns none.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// Begins a span of an operation, under its parent if it has one.
    #[must_use]
    pub fn begin(operation: Operation, parent: Option<&Parent>) -> Self {
        if !is_on() {
            return Self::none();
        }
        start(operation, parent.map(Parent::context), &[])
    }

    /// Begins a span of an operation with messages, whose publishers are these: under the one, or linked to those that are
    /// traced. Where all said that they are not, there is none.
    #[must_use]
    pub fn begin_for(operation: Operation, publishers: &[Parent]) -> Self {
        if !is_on() {
            return Self::none();
        }
        if let [one] = publishers {
            return start(operation, Some(one.context()), &[]);
        }
        let traced: Vec<_> = sampled(publishers).cloned().collect();
        if traced.is_empty() && !publishers.is_empty() {
            return Self::none();
        }
        start(operation, None, &traced)
    }

    /// Returns what is noted on it, if it is one.
    #[must_use]
    pub const fn notes(&self) -> Option<Notes<'_>> {
        match &self.0 {
            Some(context) => Some(Notes(context)),
            None => None,
        }
    }

    /// Has a future run within it: what is begun there for a pipeline, and noted, is its own.
    pub fn around<F: Future>(&self, future: F) -> Within<F> {
        Within::new(self.0.clone(), future)
    }

    /// Returns its context, for a pipeline that carries several.
    #[must_use]
    pub fn carried(&self) -> Option<SpanContext> {
        self.0.as_ref().map(|context| context.span().span_context().clone())
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }
}

/// Where something is noted on a span.
#[derive(Clone, Copy, Debug)]
pub struct Notes<'a>(&'a Context);

impl Notes<'_> {
    /// Notes the topic, or the first of several.
    pub fn topic(self, operation: Operation, topic: &str) {
        let span = self.0.span();
        span.update_name(format!("{} {topic}", operation.name()));
        span.set_attribute(KeyValue::new("messaging.destination.name", topic.to_owned()));
    }

    /// Notes a text.
    pub fn text(self, name: &'static str, text: impl Into<String>) {
        self.0.span().set_attribute(KeyValue::new(name, text.into()));
    }

    /// Notes a number.
    pub fn number(self, name: &'static str, number: usize) {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        self.0.span().set_attribute(KeyValue::new(name, number));
    }

    /// Notes how many messages it is about.
    pub fn count(self, count: usize) {
        self.number("messaging.batch.message_count", count);
    }

    /// Links it to those who have published messages, as far as they are traced.
    pub fn link(self, publishers: &[Parent]) {
        for context in sampled(publishers).take(LINKS_MAX) {
            self.0.span().add_link(context.clone(), Vec::new());
        }
    }

    /// Notes that it has failed, by the code of a problem; whether the relay is to blame.
    pub fn failed(self, code: &str, is_ours: bool) {
        let span = self.0.span();
        span.set_attribute(KeyValue::new("error.type", code.to_owned()));
        if is_ours {
            span.set_status(Status::error(code.to_owned()));
        }
    }
}

/// Notes something on the span within which this is called, if there is one.
pub fn note(what: impl FnOnce(Notes<'_>)) {
    if is_on() {
        Context::map_current(|context| {
            if context.span().is_recording() {
                what(Notes(context));
            }
        });
    }
}

/// Which spans a pipeline carries messages of.
#[derive(Clone, Debug, Default)]
pub struct Carried(Option<Box<[SpanContext]>>);

impl Carried {
    /// Returns those that stand for what is published within here.
    #[must_use]
    pub fn here() -> Self {
        if !is_on() {
            return Self(None);
        }
        Context::map_current(|context| match context.get::<Self>() {
            Some(carried) => carried.clone(),
            None => context
                .span()
                .is_recording()
                .then(|| context.span().span_context().clone())
                .into_iter()
                .collect(),
        })
    }

    /// Has a future publish for these.
    pub fn around<F: Future>(self, future: F) -> Within<F> {
        let context = self.0.is_some().then(|| Context::new().with_value(self));
        Within::new(context, future)
    }
}

impl FromIterator<SpanContext> for Carried {
    fn from_iter<I: IntoIterator<Item = SpanContext>>(contexts: I) -> Self {
        let contexts: Box<[_]> = contexts.into_iter().take(LINKS_MAX).collect();
        Self((!contexts.is_empty()).then_some(contexts))
    }
}

/// Begins the span of a pipeline to a server that carries these, with so many messages of so many calls: under the one
/// publish, or linked to all. Where none of them is traced there is none.
pub fn pipeline<'a>(carried: impl Iterator<Item = &'a Carried>, calls: usize, messages: usize) -> Span {
    if !is_on() {
        return Span::none();
    }
    let contexts: Vec<SpanContext> =
        carried.filter_map(|carried| carried.0.as_deref()).flatten().take(LINKS_MAX).cloned().collect();
    let Some(tracer) = TRACER.get().filter(|_| !contexts.is_empty()) else { return Span::none() };
    let attributes = [
        KeyValue::new("db.system.name", "valkey"),
        KeyValue::new("db.operation.name", "PIPELINE"),
        KeyValue::new("messaging.batch.message_count", i64::try_from(messages).unwrap_or(i64::MAX)),
        KeyValue::new("tidemill.pipeline.calls", i64::try_from(calls).unwrap_or(i64::MAX)),
    ];
    let builder = tracer.span_builder("pipeline").with_kind(SpanKind::Client).with_attributes(attributes);
    match &contexts[..] {
        [one] => build(tracer, builder, Some(one)),
        several => build(tracer, builder.with_links(links(several)), None),
    }
}

fn start(operation: Operation, parent: Option<&SpanContext>, linked: &[SpanContext]) -> Span {
    let Some(tracer) = TRACER.get() else { return Span::none() };
    if parent.is_none() && linked.is_empty() && !ids::begins(operation.name(), &operation.span_kind()) {
        return Span::none();
    }
    let attributes = [
        KeyValue::new("messaging.system", "tidemill"),
        KeyValue::new("messaging.operation.name", operation.name()),
        KeyValue::new("messaging.operation.type", operation.kind()),
    ];
    let builder = tracer.span_builder(operation.name()).with_kind(operation.span_kind());
    build(tracer, builder.with_attributes(attributes).with_links(links(linked)), parent)
}

fn build(
    tracer: &SdkTracer,
    builder: opentelemetry::trace::SpanBuilder,
    parent: Option<&SpanContext>,
) -> Span {
    let under =
        parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent.clone()));
    let span = tracer.build_with_context(builder, &under);
    let context = Context::new().with_span(span);
    let is_kept = context.span().is_recording();
    Span(is_kept.then_some(context))
}

fn links(contexts: &[SpanContext]) -> Vec<Link> {
    contexts.iter().take(LINKS_MAX).map(|context| Link::with_context(context.clone())).collect()
}

fn sampled(publishers: &[Parent]) -> impl Iterator<Item = &SpanContext> {
    publishers.iter().map(Parent::context).filter(|context| context.is_sampled())
}
