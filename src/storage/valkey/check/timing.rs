//! How far away a server is, and how far its clock is from that of this machine.

use std::time::Duration;

use tokio::time::Instant;

use super::report::{CheckReport, Outcome};
use super::{Probe, millis};
use crate::clock::Clock;
use crate::storage::valkey::control::read_time_ms;

/// Pings of which the median and the worst are told.
const PINGS: usize = 50;
/// A median round trip above which publishing will feel slow.
const SLOW_PING: Duration = Duration::from_millis(5);
/// How far the clocks may be apart.
const APART_MAX: Duration = Duration::from_secs(1);

impl Probe {
    /// Looks how long a round trip takes.
    pub(super) async fn latency(&self, report: &mut CheckReport) {
        let mut times = Vec::with_capacity(PINGS);
        for _ in 0..PINGS {
            let begin = Instant::now();
            let answer = self.run_one("PING", |pipeline| {
                pipeline.cmd("PING");
            });
            if let Err(error) = answer.await {
                return report.add_result("latency", Err(error), "the server must answer PING");
            }
            times.push(begin.elapsed());
        }
        times.sort_unstable();
        let (median, worst) = (times[PINGS / 2], times[PINGS - 1]);
        let detail =
            format!("{} ms for a ping (median of {PINGS}; the worst {} ms)", millis(median), millis(worst));
        let advice =
            "every publish waits for at least one such round trip; put the relay nearer to the server";
        let is_slow = median > SLOW_PING;
        let outcome = if is_slow { Outcome::Warn } else { Outcome::Pass };
        report.add("latency", outcome, detail, is_slow.then_some(advice));
    }

    /// Looks what the server's clock shows.
    pub(super) async fn clock(&self, report: &mut CheckReport) {
        let (begin, begun_at) = (Instant::now(), Clock::system().now());
        let told = self.run_one("TIME", |pipeline| {
            pipeline.cmd("TIME");
        });
        // What cannot be read here fails where keys are tried.
        let Ok(Some(server)) = told.await.map(read_time_ms) else { return };
        let half = u64::try_from(begin.elapsed().as_millis() / 2).unwrap_or(0);
        let here = begun_at.as_millis().saturating_add(half);
        let apart = Duration::from_millis(server.abs_diff(here));
        if apart <= APART_MAX + Duration::from_millis(half) {
            let detail =
                format!("the server's clock is within {} ms of this machine's", apart.as_millis() + 1);
            return report.add("clock", Outcome::Pass, detail, None);
        }
        let side = if server > here { "ahead of" } else { "behind" };
        let detail = format!("the server's clock is {:.1} s {side} this machine's", apart.as_secs_f64());
        let advice = "ids, ages and retention follow the server's clock, log-ins and tokens that of the relay: have both machines set theirs by NTP";
        report.add("clock", Outcome::Warn, detail, Some(advice));
    }
}
