//! How a count is described and registered: one place for the library's ceremony.

use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder as _, SharedString, Unit};
use metrics_exporter_prometheus::PrometheusRecorder;

const METADATA: Metadata<'static> = Metadata::new("tidemill", Level::INFO, None);

/// A label: its name, and its value among few.
pub(super) type LabelOf = (&'static str, &'static str);

/// Where counts are registered.
#[derive(Clone)]
pub(super) struct Registry(Arc<PrometheusRecorder>);

impl Registry {
    pub(super) const fn new(recorder: Arc<PrometheusRecorder>) -> Self {
        Self(recorder)
    }

    /// Describes a counter.
    pub(super) fn describe_counter(&self, name: &'static str, unit: Option<Unit>, text: &'static str) {
        self.0.describe_counter(name.into(), unit, SharedString::const_str(text));
    }

    /// Describes a gauge.
    pub(super) fn describe_gauge(&self, name: &'static str, unit: Option<Unit>, text: &'static str) {
        self.0.describe_gauge(name.into(), unit, SharedString::const_str(text));
    }

    /// Describes a gauge and returns it.
    pub(super) fn gauge(&self, name: &'static str, unit: Option<Unit>, text: &'static str) -> Gauge {
        self.describe_gauge(name, unit, text);
        self.labelled_gauge(name, &[])
    }

    /// Returns a gauge of these labels, all of whose values are known.
    pub(super) fn labelled_gauge(&self, name: &'static str, labels: &[LabelOf]) -> Gauge {
        let labels: Vec<_> =
            labels.iter().map(|(name, value)| Label::from_static_parts(name, value)).collect();
        self.0.register_gauge(&Key::from_parts(name, labels), &METADATA)
    }

    /// Returns a gauge of these labels.
    pub(super) fn gauge_of(&self, name: &'static str, labels: Vec<Label>) -> Gauge {
        self.0.register_gauge(&Key::from_parts(name, labels), &METADATA)
    }

    /// Describes a histogram of seconds.
    pub(super) fn describe_seconds(&self, name: &'static str, text: &'static str) {
        self.0.describe_histogram(name.into(), Some(Unit::Seconds), SharedString::const_str(text));
    }

    /// Returns a counter of these labels, all of whose values are known.
    pub(super) fn counter(&self, name: &'static str, labels: &[LabelOf]) -> Counter {
        let labels = labels.iter().map(|(name, value)| Label::from_static_parts(name, value)).collect();
        self.labelled_counter(name, labels)
    }

    /// Returns a counter of these labels.
    pub(super) fn labelled_counter(&self, name: &'static str, labels: Vec<Label>) -> Counter {
        self.0.register_counter(&Key::from_parts(name, labels), &METADATA)
    }

    /// Returns a histogram of these labels.
    pub(super) fn labelled_histogram(&self, name: &'static str, labels: Vec<Label>) -> Histogram {
        self.0.register_histogram(&Key::from_parts(name, labels), &METADATA)
    }
}
