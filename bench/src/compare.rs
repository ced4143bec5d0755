//! `tidemill bench compare`: the same scenario against two targets in turn, and who wins.
//!
//! Rounds alternate (A, B, A, B, …), so that what else the machine does falls on both.

use clap::Parser as _;

use crate::Surroundings;
use crate::error::BenchError;
use crate::flags::Flags;
use crate::idle::BYTES;
use crate::report::{Row, Run, Verdict};
use crate::scenario::Scenario;

const EXAMPLES: &str = "\
Examples:
  tidemill bench compare --a redis://127.0.0.1:6379 --b valkey://127.0.0.1:6380
  tidemill bench compare --a http://127.0.0.1:8080 --b http://127.0.0.1:8081 fanout --subscribers 10
  tidemill bench compare --a … --b … --rounds 5 --duration 5s publish --mode bulk

Where no scenario is named these are run: publish over 50 connections, over one, and in batches over
four; latency; page at both ends. Rounds in which anything fails name no winner.";

/// Differences below this share are none, whatever the rounds say.
const SHARE_MIN: f64 = 0.02;

/// What is run where no scenario is named.
const SUITE: [&str; 5] = [
    "publish --connections 50",
    "publish --connections 1",
    "publish --mode bulk --connections 4",
    "latency --transport ndjson",
    "page --depths 0,1",
];

/// The arguments of `tidemill bench compare`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Compare {
    /// The first target
    #[arg(long, value_name = "URL")]
    a: String,

    /// The second target, of the same kind
    #[arg(long, value_name = "URL")]
    b: String,

    /// How often each target is measured
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// What is measured; a choice of all where none is named
    #[command(subcommand)]
    scenario: Option<Scenario>,
}

/// A line of [`SUITE`].
#[derive(clap::Parser)]
struct Line {
    #[command(subcommand)]
    scenario: Scenario,
}

impl Compare {
    pub(crate) async fn run(
        &self,
        flags: &Flags,
        surroundings: &Surroundings<'_>,
    ) -> Result<(Vec<Run>, Vec<Verdict>), BenchError> {
        if flags.names_process() {
            let rule = "two targets are two processes, which are found by their ports: leave --pid and --server-pid out";
            return Err(BenchError::Usage(rule.to_owned()));
        }
        let a = flags.load(&self.a, surroundings)?;
        let b = flags.load(&self.b, surroundings)?;
        if a.target.kind != b.target.kind {
            let rule = "a relay cannot be compared with a bare server: name two relays, or two servers";
            return Err(BenchError::Usage(rule.to_owned()));
        }
        let scenarios = self.scenario.as_ref().map_or_else(suite, |scenario| vec![scenario.clone()]);
        let (mut runs, mut verdicts) = (Vec::new(), Vec::new());
        for scenario in &scenarios {
            let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
            for _ in 0..self.rounds {
                of_a.push(scenario.run(&a).await?);
                of_b.push(scenario.run(&b).await?);
            }
            verdicts.extend(compare(&of_a, &of_b));
            runs.extend(of_a.into_iter().zip(of_b).flat_map(|(a, b)| [a, b]));
        }
        Ok((runs, verdicts))
    }
}

fn suite() -> Vec<Scenario> {
    let parse = |line: &&str| Line::try_parse_from(std::iter::once("bench").chain(line.split(' '))).ok();
    SUITE.iter().filter_map(parse).map(|line| line.scenario).collect()
}

/// Returns the verdicts of all rows of a scenario.
fn compare(a: &[Run], b: &[Run]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let is_clean = a.iter().chain(b).all(Run::is_clean);
    let rows = a.first().map_or(0, |run| run.rows.len());
    for index in 0..rows {
        let pairs: Vec<(&Row, &Row)> =
            a.iter().zip(b).filter_map(|(a, b)| Some((a.rows.get(index)?, b.rows.get(index)?))).collect();
        let Some((first, _)) = pairs.first() else { continue };
        let what = format!("{} {}", a[0].scenario, first.what);
        let mut add = |measure, more_is_better, of: fn(&Row) -> Option<f64>| {
            // A process keeps the memory of the first round for the next.
            let count = if measure == "bytes" { 1 } else { pairs.len() };
            let rounds: Option<Vec<_>> = pairs[..count].iter().map(|(a, b)| Some((of(a)?, of(b)?))).collect();
            let judged = rounds.and_then(|rounds| verdict(what.clone(), measure, more_is_better, rounds));
            verdicts.extend(judged.map(|verdict| if is_clean { verdict } else { verdict.void() }));
        };
        // At a fixed rate both have the rate that was asked for; who is idle has none.
        if !a[0].is_paced() && a[0].scenario != "idle" {
            add("rate/s", true, |row| Some(row.per_second));
        }
        add("bytes", false, |row| row.facts.get(BYTES)?.as_f64());
        add("p50", false, |row| row.latency.as_ref().map(|latency| latency.p50_us));
        add("p99", false, |row| row.latency.as_ref().map(|latency| latency.p99_us));
    }
    verdicts
}

/// Returns who wins: the one with the better median, if its worst round is better than the other's best.
fn verdict(
    what: String,
    measure: &'static str,
    more_is_better: bool,
    rounds: Vec<(f64, f64)>,
) -> Option<Verdict> {
    let (mut of_a, mut of_b): (Vec<_>, Vec<_>) = rounds.iter().copied().unzip();
    of_a.sort_by(f64::total_cmp);
    of_b.sort_by(f64::total_cmp);
    let (a, b) = (median(&of_a)?, median(&of_b)?);
    if a <= 0.0 || b <= 0.0 {
        return None;
    }
    let ends = |values: &[f64]| Some((*values.first()?, *values.last()?));
    let ((a_min, a_max), (b_min, b_max)) = (ends(&of_a)?, ends(&of_b)?);
    let share = a.max(b) / a.min(b) - 1.0;
    let overlap = a_min <= b_max && b_min <= a_max;
    let winner = match (a > b) == more_is_better {
        _ if overlap || share < SHARE_MIN => "none",
        true => "a",
        false => "b",
    };
    Some(Verdict { what, measure, a, b, ratio: a / b, winner, by_percent: share * 100.0, rounds })
}

/// Returns the median of sorted values.
fn median(values: &[f64]) -> Option<f64> {
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => Some(f64::midpoint(*values.get(middle.checked_sub(1)?)?, *values.get(middle)?)),
        _ => values.get(middle).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_is_made_of_scenarios() {
        assert_eq!(suite().len(), SUITE.len());
    }

    #[test]
    fn a_winner_wins_in_every_round() {
        let judge = |more_is_better, rounds: &[(f64, f64)]| {
            let verdict =
                verdict(String::new(), "rate/s", more_is_better, rounds.to_vec()).expect("a verdict");
            (verdict.winner, verdict.by_percent.round())
        };
        assert_eq!(judge(true, &[(100.0, 50.0), (110.0, 55.0), (90.0, 60.0)]), ("a", 82.0));
        assert_eq!(judge(false, &[(100.0, 50.0), (110.0, 55.0)]).0, "b");
        assert_eq!(judge(true, &[(100.0, 90.0), (80.0, 70.0)]).0, "none", "the rounds overlap");
        assert_eq!(judge(true, &[(100.0, 99.0)]).0, "none", "too little");
        assert!(verdict(String::new(), "p50", false, Vec::new()).is_none());
    }
}
