//! Reports: what a run measured, as tables for people and as JSON.
//!
//! It must not know where they are shown: how wide a column is, and what a terminal must not be sent.

use serde::Serialize;
use serde_json::{Map, Value};

use tidemill_proto::Timestamp;

use crate::load::Load;
use crate::measure::{Errors, Latency, Meter};
use crate::process::{Cpu, Usage, cores};

/// Stolen processor time that is told: a share of this size is as large as what a p99 looks at.
const STOLEN_PERCENT_TOLD: f64 = 0.5;

/// Everything that one command measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The version of the load generator.
    pub(crate) tidemill: &'static str,
    /// When it ended.
    pub(crate) time: String,
    /// Where it ran.
    pub(crate) machine: Machine,
    /// The runs, in order.
    pub(crate) runs: Vec<Run>,
    /// What a comparison came to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) comparison: Vec<Verdict>,
}

/// Columns of a table.
pub const COLUMNS: usize = 10;

/// A part of a report for people. Some of the words are the target's, and may hold anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Rows of cells, the heading first.
    Table(Vec<[String; COLUMNS]>),
    /// A line of its own.
    Line(String),
}

/// The machine of the load.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) system: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
}

/// One scenario against one target.
#[derive(Debug, Serialize)]
pub(crate) struct Run {
    /// The scenario.
    pub(crate) scenario: &'static str,
    /// The URL of the target.
    pub(crate) target: String,
    /// Seconds before measuring.
    pub(crate) warm_up_seconds: f64,
    /// Threads of the load generator.
    pub(crate) threads: usize,
    /// The flags of the scenario.
    pub(crate) settings: Value,
    /// What was measured.
    pub(crate) rows: Vec<Row>,
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// What is counted.
    pub(crate) unit: &'static str,
    /// How many.
    pub(crate) count: u64,
    /// In how many seconds.
    pub(crate) seconds: f64,
    /// How many a second.
    pub(crate) per_second: f64,
    /// How long each took.
    pub(crate) latency: Option<Latency>,
    /// What failed.
    pub(crate) errors: Errors,
    /// What was found when messages were checked.
    #[serde(flatten)]
    pub(crate) order: Option<Order>,
    /// CPU seconds for a million of what is counted.
    pub(crate) cpu_seconds_per_million: Option<Cpu>,
    /// Per cent of the machine's processor time that its host gave to others.
    #[serde(skip_serializing_if = "Option::is_none")]
    stolen_percent: Option<f64>,
    /// What else was measured, with the unit in the name.
    pub(crate) facts: Map<String, Value>,
    /// How many in each tenth of a second.
    pub(crate) per_tenth: Vec<u64>,
}

/// What checking every message of every subscriber found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Order {
    /// Messages that were accepted and did not arrive.
    pub(crate) lost: u64,
    /// Messages that arrived again.
    pub(crate) repeated: u64,
    /// Messages that arrived after a later one.
    pub(crate) disordered: u64,
    /// Gaps that the relay told.
    pub(crate) gaps: u64,
}

/// What the comparison of one row came to.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    /// The row.
    pub(crate) what: String,
    /// What is compared.
    pub(crate) measure: &'static str,
    /// The median of A.
    pub(crate) a: f64,
    /// The median of B.
    pub(crate) b: f64,
    /// A's median through B's.
    pub(crate) ratio: f64,
    /// `a`, `b`, `none` where their rounds overlap or they differ by less than 2 %, or `void` where something
    /// failed in a round.
    pub(crate) winner: &'static str,
    /// By how many per cent the winner is better.
    pub(crate) by_percent: f64,
    /// Each round's pair.
    pub(crate) rounds: Vec<(f64, f64)>,
}

impl Report {
    /// Returns a report of what was measured until now.
    pub(crate) fn new(runs: Vec<Run>, comparison: Vec<Verdict>, now: Timestamp) -> Self {
        Self {
            tidemill: env!("CARGO_PKG_VERSION"),
            time: now.to_string(),
            machine: Machine::here(),
            runs,
            comparison,
        }
    }

    /// Returns whether every operation succeeded and every message arrived once, in order.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.runs.iter().all(Run::is_clean)
    }

    /// Returns the report for people, from top to bottom.
    #[must_use]
    pub fn parts(&self) -> Vec<Part> {
        let mut parts = Vec::new();
        let heading =
            ["WHAT", "RATE", "COUNT", "P50", "P90", "P99", "MAX", "CPU TARGET", "CPU BEHIND", "CPU LOAD"];
        for run in &self.runs {
            if !parts.is_empty() {
                parts.push(Part::Line(String::new()));
            }
            parts.push(Part::Line(format!("{} on {}", run.scenario, run.target)));
            let rows = std::iter::once(heading.map(str::to_owned)).chain(run.rows.iter().map(Row::cells));
            parts.push(Part::Table(rows.collect()));
            for row in &run.rows {
                let facts =
                    row.facts.iter().map(|(name, value)| format!("{} {value}", name.replace('_', " ")));
                let lines = facts.chain(row.trouble()).chain(row.stolen());
                parts.extend(lines.map(|line| Part::Line(format!("{}: {line}", row.what))));
            }
        }
        if self.runs.iter().flat_map(|run| &run.rows).any(|row| row.cpu_seconds_per_million.is_some()) {
            let what = "CPU: seconds of processor for a million of what is counted: of the target, of the server behind it, of the load";
            parts.push(Part::Line(what.to_owned()));
        }
        parts.extend(self.comparison.iter().map(|verdict| Part::Line(verdict.sentence())));
        parts
    }
}

impl Machine {
    fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let processor = read("/proc/cpuinfo");
        let processor = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Self {
            system: format!("{} {}", std::env::consts::OS, read("/proc/sys/kernel/osrelease").trim()),
            processor: processor.map_or_else(String::new, |(_, name)| name.trim().to_owned()),
            cores: cores(),
        }
    }
}

impl Run {
    /// Returns a run without rows.
    pub(crate) fn new(scenario: &'static str, load: &Load, settings: &impl Serialize) -> Self {
        Self {
            scenario,
            target: load.target.name.clone(),
            warm_up_seconds: load.warm_up.as_secs_f64(),
            threads: load.threads,
            settings: serde_json::to_value(settings).unwrap_or_default(),
            rows: Vec::new(),
        }
    }
}

impl Run {
    /// Returns whether every operation succeeded and every message arrived once, in order.
    pub(crate) fn is_clean(&self) -> bool {
        self.rows.iter().all(|row| row.trouble().is_empty())
    }

    /// Returns whether operations came at a fixed rate.
    pub(crate) fn is_paced(&self) -> bool {
        self.settings.get("rate").is_some_and(Value::is_number)
    }
}

impl Row {
    /// Returns what a meter measured.
    #[expect(clippy::cast_precision_loss, reason = "a run counts far fewer than 2^52 things")]
    pub(crate) fn of(what: String, unit: &'static str, meter: &Meter, usage: Usage) -> Self {
        let measured = meter.measured();
        let seconds = meter.seconds(&measured);
        Self {
            what,
            unit,
            count: measured.count,
            seconds,
            per_second: measured.count as f64 / seconds,
            latency: Latency::of(&measured.times),
            errors: measured.errors,
            order: None,
            cpu_seconds_per_million: Some(usage.cpu.per_million(measured.count)),
            stolen_percent: usage.stolen_percent,
            facts: Map::new(),
            per_tenth: measured.slots,
        }
    }

    /// Adds a figure.
    pub(crate) fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.insert(name.to_owned(), value.into());
    }

    /// Returns what went wrong, a sentence each.
    pub(crate) fn trouble(&self) -> Vec<String> {
        let mut found: Vec<String> =
            self.errors.0.iter().map(|(what, times)| format!("{times} × {what}")).collect();
        if self.count == 0 && self.facts.is_empty() {
            found.push("nothing was measured".to_owned());
        }
        let Order { lost, repeated, disordered, gaps } = self.order.unwrap_or_default();
        let kinds = [
            (lost, "messages were LOST"),
            (repeated, "messages arrived twice"),
            (disordered, "messages arrived out of order"),
            (gaps, "gaps were told"),
        ];
        found.extend(
            kinds.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")),
        );
        found
    }

    /// Returns a sentence about the processors where they were not there for the whole run.
    pub(crate) fn stolen(&self) -> Option<String> {
        let percent = self.stolen_percent.filter(|percent| *percent >= STOLEN_PERCENT_TOLD)?;
        Some(format!(
            "the host gave {percent:.1} % of this machine's processor time to others; the tails have it in them"
        ))
    }

    pub(crate) fn cells(&self) -> [String; COLUMNS] {
        let time =
            |of: fn(&Latency) -> f64| self.latency.as_ref().map_or("-".to_owned(), |it| micros(of(it)));
        let cpu = |of: fn(Cpu) -> Option<f64>| {
            self.cpu_seconds_per_million
                .and_then(of)
                .map_or("-".to_owned(), |seconds| format!("{seconds:.2} s"))
        };
        [
            self.what.clone(),
            format!("{} {}/s", grouped(self.per_second), self.unit),
            self.count.to_string(),
            time(|it| it.p50_us),
            time(|it| it.p90_us),
            time(|it| it.p99_us),
            time(|it| it.max_us),
            cpu(|it| it.relay),
            cpu(|it| it.server),
            cpu(|it| it.load),
        ]
    }
}

impl Verdict {
    /// Returns the verdict without a winner: figures of failures are none.
    pub(crate) fn void(self) -> Self {
        Self { winner: "void", ..self }
    }

    /// Returns by how much the winner wins, if there is one.
    pub(crate) fn margin(&self) -> Option<String> {
        matches!(self.winner, "a" | "b").then(|| format!("{:.0} %", self.by_percent))
    }

    /// Returns one of the compared figures as people write it.
    pub(crate) fn show(&self, value: f64) -> String {
        match self.measure {
            "rate/s" | "bytes" => grouped(value),
            _ => micros(value),
        }
    }

    fn sentence(&self) -> String {
        let who = match (self.winner, self.margin()) {
            (winner, Some(margin)) => format!("{} wins by {margin}", winner.to_uppercase()),
            ("void", None) => "no winner, since something failed".to_owned(),
            (_, None) => "no difference that these rounds can show".to_owned(),
        };
        let (what, measure, ratio) = (&self.what, self.measure, self.ratio);
        format!("{what}, {measure}: A {}, B {}, A/B {ratio:.2}: {who}", self.show(self.a), self.show(self.b))
    }
}

/// Returns a time as people write it.
pub(crate) fn micros(micros: f64) -> String {
    match micros {
        ..1_000.0 => format!("{micros:.0} µs"),
        ..1_000_000.0 => format!("{:.2} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

/// Returns a number with its thousands apart.
pub(crate) fn grouped(number: f64) -> String {
    if number < 100.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_for_people() {
        assert_eq!([999.0, 1_234.5, 12_345_678.0].map(micros), ["999 µs", "1.23 ms", "12.35 s"]);
        assert_eq!([9.94, 100.0, 1_234_567.0].map(grouped), ["9.9", "100", "1,234,567"]);
    }
}
