//! Reports: what a run measured, as a table for people and as JSON.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Map, Value};

use super::Load;
use super::measure::{Errors, Latency, Meter};
use super::process::{Cpu, Usage};
use crate::cli::output;
use crate::clock::Clock;

pub(super) mod html;

/// Stolen processor time that is told: a share of this size is as large as what a p99 looks at.
const STOLEN_PERCENT_TOLD: f64 = 0.5;

/// Everything that one command measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The version of the load generator.
    tidemill: &'static str,
    /// When it ended.
    time: String,
    /// Where it ran.
    machine: Machine,
    /// The runs, in order.
    pub(super) runs: Vec<Run>,
    /// What a comparison came to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) comparison: Vec<Verdict>,
}

/// The machine of the load.
#[derive(Debug, Serialize)]
struct Machine {
    system: String,
    processor: String,
    cores: usize,
}

/// One scenario against one target.
#[derive(Debug, Serialize)]
pub(super) struct Run {
    /// The scenario.
    pub(super) scenario: &'static str,
    /// The URL of the target.
    pub(super) target: String,
    /// Seconds before measuring.
    warm_up_seconds: f64,
    /// Threads of the load generator.
    threads: usize,
    /// The flags of the scenario.
    settings: Value,
    /// What was measured.
    pub(super) rows: Vec<Row>,
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    /// What was measured.
    pub(super) what: String,
    /// What is counted.
    pub(super) unit: &'static str,
    /// How many.
    pub(super) count: u64,
    /// In how many seconds.
    pub(super) seconds: f64,
    /// How many a second.
    pub(super) per_second: f64,
    /// How long each took.
    pub(super) latency: Option<Latency>,
    /// What failed.
    pub(super) errors: Errors,
    /// What was found when messages were checked.
    #[serde(flatten)]
    pub(super) order: Option<Order>,
    /// CPU seconds for a million of what is counted.
    pub(super) cpu_seconds_per_million: Option<Cpu>,
    /// Per cent of the machine's processor time that its host gave to others.
    #[serde(skip_serializing_if = "Option::is_none")]
    stolen_percent: Option<f64>,
    /// What else was measured, with the unit in the name.
    pub(super) facts: Map<String, Value>,
    /// How many in each tenth of a second.
    pub(super) per_tenth: Vec<u64>,
}

/// What checking every message of every subscriber found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Order {
    /// Messages that were accepted and did not arrive.
    pub(super) lost: u64,
    /// Messages that arrived again.
    pub(super) repeated: u64,
    /// Messages that arrived after a later one.
    pub(super) disordered: u64,
    /// Gaps that the relay told.
    pub(super) gaps: u64,
}

/// What the comparison of one row came to.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    /// The row.
    pub(super) what: String,
    /// What is compared.
    pub(super) measure: &'static str,
    /// The median of A.
    pub(super) a: f64,
    /// The median of B.
    pub(super) b: f64,
    /// A's median through B's.
    pub(super) ratio: f64,
    /// `a`, `b`, `none` where their rounds overlap or they differ by less than 2 %, or `void` where something
    /// failed in a round.
    pub(super) winner: &'static str,
    /// By how many per cent the winner is better.
    pub(super) by_percent: f64,
    /// Each round's pair.
    pub(super) rounds: Vec<(f64, f64)>,
}

impl Report {
    /// Returns a report of what was measured just now.
    pub(super) fn new(runs: Vec<Run>, comparison: Vec<Verdict>) -> Self {
        let time = Clock::system().now().to_string();
        Self { tidemill: env!("CARGO_PKG_VERSION"), time, machine: Machine::here(), runs, comparison }
    }

    /// Returns whether every operation succeeded and every message arrived once, in order.
    pub(super) fn is_clean(&self) -> bool {
        self.runs.iter().all(Run::is_clean)
    }

    /// Returns the report as tables.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        let heading =
            ["WHAT", "RATE", "COUNT", "P50", "P90", "P99", "MAX", "CPU TARGET", "CPU BEHIND", "CPU LOAD"];
        for run in &self.runs {
            if !out.is_empty() {
                out.push('\n');
            }
            let _ = writeln!(out, "{} on {}", run.scenario, run.target);
            let rows: Vec<_> =
                std::iter::once(heading.map(str::to_owned)).chain(run.rows.iter().map(Row::cells)).collect();
            out += &output::table(&rows);
            out.push('\n');
            for row in &run.rows {
                for (name, value) in &row.facts {
                    let _ = writeln!(out, "{}: {} {value}", row.what, name.replace('_', " "));
                }
                for line in row.trouble().into_iter().chain(row.stolen()) {
                    let _ = writeln!(out, "{}: {line}", row.what);
                }
            }
        }
        if self.runs.iter().flat_map(|run| &run.rows).any(|row| row.cpu_seconds_per_million.is_some()) {
            out += "CPU: seconds of processor for a million of what is counted: of the target, of the server behind it, of the load\n";
        }
        for verdict in &self.comparison {
            out += &verdict.sentence();
            out.push('\n');
        }
        out.pop();
        out
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
            cores: super::cores(),
        }
    }
}

impl Run {
    /// Returns a run without rows.
    pub(super) fn new(scenario: &'static str, load: &Load, settings: &impl Serialize) -> Self {
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
    pub(super) fn is_clean(&self) -> bool {
        self.rows.iter().all(|row| row.trouble().is_empty())
    }

    /// Returns whether operations came at a fixed rate.
    pub(super) fn is_paced(&self) -> bool {
        self.settings.get("rate").is_some_and(Value::is_number)
    }
}

impl Row {
    /// Returns what a meter measured.
    #[expect(clippy::cast_precision_loss, reason = "a run counts far fewer than 2^52 things")]
    pub(super) fn of(what: String, unit: &'static str, meter: &Meter, usage: Usage) -> Self {
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
    pub(super) fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.insert(name.to_owned(), value.into());
    }

    /// Returns what went wrong, a sentence each.
    pub(super) fn trouble(&self) -> Vec<String> {
        let mut found: Vec<String> = self
            .errors
            .0
            .iter()
            .map(|(what, times)| format!("{times} × {}", output::printable(what)))
            .collect();
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
    fn stolen(&self) -> Option<String> {
        let percent = self.stolen_percent.filter(|percent| *percent >= STOLEN_PERCENT_TOLD)?;
        Some(format!(
            "the host gave {percent:.1} % of this machine's processor time to others; the tails have it in them"
        ))
    }

    fn cells(&self) -> [String; 10] {
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
    pub(super) fn void(self) -> Self {
        Self { winner: "void", ..self }
    }

    /// Returns by how much the winner wins, if there is one.
    fn margin(&self) -> Option<String> {
        matches!(self.winner, "a" | "b").then(|| format!("{:.0} %", self.by_percent))
    }

    /// Returns one of the compared figures as people write it.
    fn show(&self, value: f64) -> String {
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
pub(super) fn micros(micros: f64) -> String {
    match micros {
        ..1_000.0 => format!("{micros:.0} µs"),
        ..1_000_000.0 => format!("{:.2} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

/// Returns a number with its thousands apart.
pub(super) fn grouped(number: f64) -> String {
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
