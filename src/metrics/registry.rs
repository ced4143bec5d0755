//! How a count is described and registered: one place for the library's ceremony.

use std::collections::BTreeSet;
use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder as _, SharedString};
use metrics_exporter_prometheus::PrometheusRecorder;
use parking_lot::Mutex;

const METADATA: Metadata<'static> = Metadata::new("tidemill", Level::INFO, None);

/// A label: its name, and its value among few.
pub(super) type LabelOf = (&'static str, &'static str);

/// What is measured how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What only grows while the process lives.
    Counter,
    /// What is so now.
    Gauge,
    /// How often something took how long, by upper ends of seconds.
    Histogram,
}

/// What a metric is, as it is documented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// What it is about: a heading of the document.
    pub about: &'static str,
    /// Its name, which ends with its unit.
    pub name: &'static str,
    /// What is measured how.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, as a sentence without its point, in Markdown.
    pub text: &'static str,
}

/// Where counts are registered, for one heading of the document.
#[derive(Clone)]
pub(super) struct Registry {
    recorder: Arc<PrometheusRecorder>,
    about: &'static str,
    described: Arc<Mutex<Vec<Description>>>,
    /// Of what is not told any more, how its lines begin: the recorder forgets nothing.
    withdrawn: Arc<Mutex<BTreeSet<String>>>,
}

impl Registry {
    pub(super) fn new(recorder: Arc<PrometheusRecorder>) -> Self {
        Self { recorder, about: "", described: Arc::default(), withdrawn: Arc::default() }
    }

    /// Returns the same for counts that are about something else.
    pub(super) fn about(&self, about: &'static str) -> Self {
        Self { about, ..self.clone() }
    }

    /// Returns all that was described, in its order.
    pub(super) fn described(&self) -> Vec<Description> {
        self.described.lock().clone()
    }

    fn describe(
        &self,
        name: &'static str,
        kind: Kind,
        labels: &'static [&'static str],
        text: &'static str,
    ) -> SharedString {
        self.described.lock().push(Description { about: self.about, name, kind, labels, text });
        SharedString::const_str(text)
    }

    /// Describes a counter.
    pub(super) fn describe_counter(
        &self,
        name: &'static str,
        labels: &'static [&'static str],
        text: &'static str,
    ) {
        let text = self.describe(name, Kind::Counter, labels, text);
        self.recorder.describe_counter(name.into(), None, text);
    }

    /// Describes a gauge.
    pub(super) fn describe_gauge(
        &self,
        name: &'static str,
        labels: &'static [&'static str],
        text: &'static str,
    ) {
        let text = self.describe(name, Kind::Gauge, labels, text);
        self.recorder.describe_gauge(name.into(), None, text);
    }

    /// Describes a gauge without labels and returns it.
    pub(super) fn gauge(&self, name: &'static str, text: &'static str) -> Gauge {
        self.describe_gauge(name, &[], text);
        self.labelled_gauge(name, &[])
    }

    /// Returns a gauge of these labels, all of whose values are known.
    pub(super) fn labelled_gauge(&self, name: &'static str, labels: &[LabelOf]) -> Gauge {
        let labels: Vec<_> =
            labels.iter().map(|(name, value)| Label::from_static_parts(name, value)).collect();
        self.recorder.register_gauge(&Key::from_parts(name, labels), &METADATA)
    }

    /// Returns a gauge of these labels.
    pub(super) fn gauge_of(&self, name: &'static str, labels: Vec<Label>) -> Gauge {
        self.recorder.register_gauge(&Key::from_parts(name, labels), &METADATA)
    }

    /// Has a gauge with one label told, or told no more.
    pub(super) fn tell(&self, name: &'static str, (label, value): (&'static str, &str), is_told: bool) {
        let start = format!("{name}{{{label}=\"{value}\"}} ");
        let mut withdrawn = self.withdrawn.lock();
        let _ = if is_told { withdrawn.remove(&start) } else { withdrawn.insert(start) };
    }

    /// Returns a text of counts without those that are told no more.
    pub(super) fn without_withdrawn(&self, text: String) -> String {
        let withdrawn = self.withdrawn.lock();
        if withdrawn.is_empty() {
            return text;
        }
        let is_told = |line: &&str| !withdrawn.iter().any(|start| line.starts_with(start.as_str()));
        text.split_inclusive('\n').filter(is_told).collect()
    }

    /// Describes a histogram of seconds.
    pub(super) fn describe_seconds(
        &self,
        name: &'static str,
        labels: &'static [&'static str],
        text: &'static str,
    ) {
        let text = self.describe(name, Kind::Histogram, labels, text);
        self.recorder.describe_histogram(name.into(), None, text);
    }

    /// Returns a counter of these labels, all of whose values are known.
    pub(super) fn counter(&self, name: &'static str, labels: &[LabelOf]) -> Counter {
        let labels = labels.iter().map(|(name, value)| Label::from_static_parts(name, value)).collect();
        self.labelled_counter(name, labels)
    }

    /// Returns a counter of these labels.
    pub(super) fn labelled_counter(&self, name: &'static str, labels: Vec<Label>) -> Counter {
        self.recorder.register_counter(&Key::from_parts(name, labels), &METADATA)
    }

    /// Returns a histogram of these labels.
    pub(super) fn labelled_histogram(&self, name: &'static str, labels: Vec<Label>) -> Histogram {
        self.recorder.register_histogram(&Key::from_parts(name, labels), &METADATA)
    }
}
