//! The way to the collector: a bounded queue, one thread that sends, and counts of what became of spans.
//!
//! Queue and thread are the library's; what it does not tell is counted in front of it and behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_otlp::{Protocol, SpanExporter as Otlp, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor,
};

use super::posting::{Posting, Why};
use super::settings::{ENDPOINT, TracesError, TracesSettings};

static SENT: AtomicU64 = AtomicU64::new(0);
static DROPPED: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicU64 = AtomicU64::new(0);

/// What became of spans since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// The collector has taken them.
    pub sent: u64,
    /// There was no room for them.
    pub dropped: u64,
    /// The collector was away, or has not taken them.
    pub failed: u64,
}

/// Returns what became of spans.
#[must_use]
pub fn sent() -> Sent {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Sent { sent: read(&SENT), dropped: read(&DROPPED), failed: read(&FAILED) }
}

/// Returns what takes spans that have ended.
///
/// # Errors
/// A variable that the exporter reads is wrong.
pub(super) fn processor(settings: &TracesSettings) -> Result<Counting, TracesError> {
    let client = Posting::new(settings.timeout);
    let (client, why) =
        client.map_err(|error| TracesError::new(ENDPOINT, format!("cannot be used: {error}")))?;
    let exporter = Otlp::builder()
        .with_http()
        .with_http_client(client)
        // Other crates of the tree may have other forms compiled in, of which one would be the default.
        .with_protocol(Protocol::HttpBinary)
        .build()
        .map_err(|error| TracesError::new(ENDPOINT, format!("cannot be used: {error}")))?;
    let waiting = Arc::new(AtomicUsize::new(0));
    let exporter = Telling { exporter, why, waiting: waiting.clone(), fails: AtomicBool::new(false) };
    let config = BatchConfigBuilder::default()
        .with_max_queue_size(settings.queue_max)
        .with_max_export_batch_size(settings.batch_max)
        .with_scheduled_delay(settings.delay)
        .build();
    let inner = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
    Ok(Counting { inner, waiting, queue_max: settings.queue_max })
}

/// The queue, and how many wait in it.
#[derive(Debug)]
pub(super) struct Counting {
    inner: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
    queue_max: usize,
}

impl SpanProcessor for Counting {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        // Counted before it is there, and until it is taken out: so the queue itself never has to drop one.
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.queue_max {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            DROPPED.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.inner.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// What sends, and tells what came of it.
#[derive(Debug)]
struct Telling {
    exporter: Otlp,
    why: Why,
    waiting: Arc<AtomicUsize>,
    /// Whether it does, as the log was told.
    fails: AtomicBool,
}

impl SpanExporter for Telling {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        let count = count as u64;
        match self.exporter.export(batch).await {
            Ok(()) => {
                SENT.fetch_add(count, Ordering::Relaxed);
                if self.fails.swap(false, Ordering::Relaxed) {
                    tracing::info!("the collector takes spans again");
                }
            }
            Err(error) => {
                FAILED.fetch_add(count, Ordering::Relaxed);
                if !self.fails.swap(true, Ordering::Relaxed) {
                    let error = self.why.lock().clone().unwrap_or_else(|| error.to_string());
                    tracing::warn!(error, "the collector does not take spans; they are lost until it does");
                }
            }
        }
        // The log has been told, once.
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
