//! `tidemill series`: adds to series of measurements, lists and shows them, and forgets them.

use reqwest::Method;
use serde_json::json;
use tidemill_proto::series::{
    ListedSeries, POINT_COUNT_MAX, POINT_VALUE_MAX, PointRequest, SERIES_PAGE_MAX, SeriesMinute, SeriesState,
    SeriesTotal,
};
use tidemill_proto::{SeriesName, Timestamp};

use super::CliError;
use super::client::Relay;
use super::output::{self, Output};
use super::points::{at, span};
use crate::config::Environment;

const EXAMPLES: &str = "\
Examples:
  tidemill series add latency 12.5              what was measured now
  tidemill series add errors 1 --count 3        three times
  tidemill series show latency --last 15m
  tidemill series list --prefix web.            which there are
  tidemill series delete latency

Of each minute it is kept how often something was measured, the sum, the least and the
greatest: for 24 hours.";

/// The arguments of `tidemill series`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Series {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Add a point to a series, and show its minute
    Add(Add),
    /// Show the minutes in which something was measured, and all of them together
    Show(Show),
    /// List the series of which something is kept
    List(List),
    /// Forget a series
    Delete(Delete),
}

#[derive(Debug, clap::Args)]
struct Add {
    /// The name of the series
    #[arg(value_parser = SeriesName::parse)]
    name: SeriesName,

    /// What was measured
    #[arg(allow_negative_numbers = true, value_parser = value)]
    value: f64,

    /// When, of the last 24 hours; now if it is left out
    #[arg(long, value_name = "TIME", value_parser = at)]
    at: Option<Timestamp>,

    /// How often
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=i64::from(POINT_COUNT_MAX)))]
    count: Option<u32>,

    #[command(flatten)]
    relay: Relay,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The name of the series
    #[arg(value_parser = SeriesName::parse)]
    name: SeriesName,

    /// How much, at most 24 hours
    #[arg(long, value_name = "DURATION", default_value = "60m", value_parser = span)]
    last: String,

    #[command(flatten)]
    relay: Relay,
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only series that begin so
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,

    #[command(flatten)]
    relay: Relay,
}

#[derive(Debug, clap::Args)]
struct Delete {
    /// The name of the series
    #[arg(value_parser = SeriesName::parse)]
    name: SeriesName,

    #[command(flatten)]
    relay: Relay,
}

fn value(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| value.abs() <= POINT_VALUE_MAX);
    value.ok_or_else(|| format!("write a number from -{POINT_VALUE_MAX:e} to {POINT_VALUE_MAX:e}"))
}

impl Series {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        match self.action {
            Action::Add(Add { name, value, at, count, relay }) => {
                let client = relay.client(environment)?;
                let body = PointRequest { value, at, count };
                let path = ["api", "v1", "series", name.as_str()];
                let answer = client.send(client.request(Method::POST, &path).json(&body)).await?;
                let minute: SeriesMinute = client.read(&answer)?;
                match relay.output {
                    Output::Json => output::json(&minute),
                    Output::Text => output::line(&output::table(&[heading(), row(&minute)])),
                }
            }
            Action::Show(Show { name, last, relay }) => {
                let client = relay.client(environment)?;
                let path = ["api", "v1", "series", name.as_str()];
                let request = client.request(Method::GET, &path).query(&[("last", last)]);
                let state: SeriesState = client.read(&client.send(request).await?)?;
                match relay.output {
                    Output::Json => output::json(&state),
                    Output::Text => {
                        let mut rows = vec![heading()];
                        rows.extend(state.minutes.iter().map(row));
                        rows.push(all(&state.total));
                        output::line(&output::table(&rows))
                    }
                }
            }
            Action::List(List { prefix, relay }) => list(&relay, environment, prefix).await,
            Action::Delete(Delete { name, relay }) => {
                let client = relay.client(environment)?;
                let path = ["api", "v1", "series", name.as_str()];
                client.send(client.request(Method::DELETE, &path)).await?;
                match relay.output {
                    Output::Json => output::json(&json!({ "deleted": name })),
                    Output::Text => output::line(&format!("deleted {name}")),
                }
            }
        }
    }
}

/// Prints every page of the list.
async fn list(relay: &Relay, environment: &Environment, prefix: Option<String>) -> Result<(), CliError> {
    let client = relay.client(environment)?;
    let request = client.request(Method::GET, &["api", "v1", "series"]).query(&[("limit", SERIES_PAGE_MAX)]);
    let request = request.query(prefix.map(|prefix| ("prefix", prefix)).as_slice());
    let mut answer = client.send(request).await?;
    loop {
        let page: Vec<ListedSeries> = client.read(&answer)?;
        page.iter().try_for_each(|listed| match relay.output {
            Output::Json => output::json(listed),
            Output::Text => output::line(listed.series.as_str()),
        })?;
        let Some(next) = answer.next else { return Ok(()) };
        answer = client.send(client.follow(&next)?).await?;
    }
}

fn heading() -> [String; 5] {
    ["MINUTE", "COUNT", "SUM", "MIN", "MAX"].map(str::to_owned)
}

fn row(minute: &SeriesMinute) -> [String; 5] {
    let SeriesMinute { at, count, sum, min, max } = minute;
    [at.to_string(), count.to_string(), number(*sum), number(*min), number(*max)]
}

fn all(total: &SeriesTotal) -> [String; 5] {
    let some = |it: Option<f64>| it.map_or_else(|| "-".to_owned(), number);
    let SeriesTotal { count, sum, min, max } = total;
    ["all".to_owned(), count.to_string(), number(*sum), some(*min), some(*max)]
}

/// Returns a number as the relay writes it.
fn number(number: f64) -> String {
    format!("{number:?}").trim_end_matches(".0").to_owned()
}
