//! `tidemill groups`: lists, shows, makes, changes and deletes groups, and sets them to another place.

use clap::ArgAction;
use reqwest::Method;
use reqwest::header::IF_NONE_MATCH;
use serde_json::{Map, Value, json};
use tidemill_proto::work::{ConsumerCounts, GroupDetail, GroupName, Ordering};
use tidemill_proto::{Code, TopicName};

use super::CliError;
use super::client::{Client, Relay};
use super::confirm::confirm;
use super::output::{self, Output};
use super::points::{count, point, span};
use crate::config::Environment;
use listed::List;

mod listed;

const EXAMPLES: &str = "\
Examples:
  tidemill groups list jobs                              the groups of a topic, with what each has
  tidemill groups list                                   those of all topics
  tidemill groups list --unattended                      those whose messages nobody asks for
  tidemill groups show jobs workers                      its settings and numbers
  tidemill groups create jobs workers --ack-wait 2m --max-deliveries 3
  tidemill groups change jobs workers --backoff 10s,1m,5m --no-max-run
  tidemill groups pause jobs workers                     nothing is given out until `resume`
  tidemill groups seek jobs workers earliest             everything is worked on again
  tidemill groups seek jobs workers -1h                  what came in the last hour
  tidemill groups delete jobs workers --yes              the messages stay";

/// The arguments of `tidemill groups`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Groups {
    #[command(subcommand)]
    action: Option<Action>,

    #[command(flatten)]
    relay: Relay,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the groups of a topic, or of all topics
    List(List),
    /// Show a group, its settings and what it has
    Show(Named),
    /// Make a group, and the topic if it is not there
    Create {
        /// Where it begins: `earliest`, `latest`, behind the id of a message, a time, or a time ago (`-10m`)
        /// [default: earliest]
        #[arg(long, value_name = "POINT", allow_hyphen_values = true, value_parser = point)]
        start: Option<String>,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        named: Named,
    },
    /// Change settings of a group; what is not named stays as it is
    Change {
        #[command(flatten)]
        settings: Settings,
        /// Take the bound of a run away
        #[arg(long, conflicts_with = "max_run")]
        no_max_run: bool,
        /// Take the bound of all consumers together away
        #[arg(long, conflicts_with = "max_in_flight")]
        no_max_in_flight: bool,
        /// Take the bound of each consumer away
        #[arg(long, conflicts_with = "per_consumer_max")]
        no_per_consumer_max: bool,
        #[command(flatten)]
        named: Named,
    },
    /// Give nothing out, until it is resumed
    Pause(Named),
    /// Give messages out again
    Resume(Named),
    /// Set a group to another place
    ///
    /// What is behind it is given out again, also what is done. All receipts until then count no more.
    Seek {
        #[command(flatten)]
        named: Named,
        /// `earliest`, `latest`, behind the id of a message, a time, or a time ago (`-10m`)
        #[arg(value_name = "POINT", allow_hyphen_values = true, value_parser = point)]
        to: String,
    },
    /// Delete a group; the messages stay, and its dead letters
    Delete {
        #[command(flatten)]
        named: Named,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// A group, and where it is.
#[derive(Debug, clap::Args)]
struct Named {
    /// The topic
    topic: TopicName,
    /// The group
    #[arg(value_parser = GroupName::parse)]
    group: GroupName,
    #[command(flatten)]
    relay: Relay,
}

/// Settings of a group, as they are written on the command line. Durations have a unit, or are seconds.
#[derive(Debug, clap::Args)]
struct Settings {
    /// For how long a consumer has a message before it goes to another, as in `30s` [new groups: 30s]
    #[arg(long, value_name = "DURATION", value_parser = span)]
    ack_wait: Option<String>,
    /// After how many failures a message is a dead letter [new groups: 5]
    #[arg(long, value_name = "COUNT", value_parser = count)]
    max_deliveries: Option<u64>,
    /// For how long a consumer can have a message at all, however often it extends that [new groups: no bound]
    #[arg(long, value_name = "DURATION", value_parser = span)]
    max_run: Option<String>,
    /// How long a message waits after its first failure, its second, and so on, as in `1s,10s,1m`
    /// [new groups: 1s,2s,4s,8s,16s,32s,60s]
    #[arg(long, value_name = "DURATIONS", value_delimiter = ',', value_parser = span)]
    backoff: Vec<String>,
    /// Most messages that all consumers have together [new groups: no bound]
    #[arg(long, value_name = "COUNT", value_parser = count)]
    max_in_flight: Option<u64>,
    /// Most messages that one consumer has [new groups: no bound]
    #[arg(long, value_name = "COUNT", value_parser = count)]
    per_consumer_max: Option<u64>,
    /// The topic of its dead letters [new groups: TOPIC.GROUP.dead]
    #[arg(long, value_name = "TOPIC")]
    dead_letter: Option<TopicName>,
    /// Whether nothing is given out [new groups: false]
    #[arg(long, value_name = "true|false", action = ArgAction::Set, num_args = 0..=1)]
    #[arg(default_missing_value = "true", require_equals = true)]
    paused: Option<bool>,
    /// For how long results are kept [new groups: 1h]
    #[arg(long, value_name = "DURATION", value_parser = span)]
    result_ttl: Option<String>,
    /// Which messages are given out beside each other: any (`none`), or of those with the same order key one at a
    /// time, in their order (`by_key`) [new groups: none]
    #[arg(long, value_name = "none|by_key", value_parser = Ordering::parse)]
    ordering: Option<Ordering>,
}

impl Settings {
    /// Returns those that are named, as the relay takes them.
    fn body(self) -> Map<String, Value> {
        let backoff = (!self.backoff.is_empty()).then_some(self.backoff);
        let all = [
            ("ack_wait", self.ack_wait.map(Value::from)),
            ("max_deliveries", self.max_deliveries.map(Value::from)),
            ("max_run", self.max_run.map(Value::from)),
            ("backoff", backoff.map(Value::from)),
            ("max_in_flight", self.max_in_flight.map(Value::from)),
            ("per_consumer_max", self.per_consumer_max.map(Value::from)),
            ("dead_letter", self.dead_letter.map(|topic| topic.as_str().into())),
            ("paused", self.paused.map(Value::from)),
            ("result_ttl", self.result_ttl.map(Value::from)),
            ("ordering", self.ordering.map(|ordering| ordering.as_str().into())),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

impl Groups {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let Some(action) = self.action else { return listed::of_all(&self.relay, environment, false).await };
        match action {
            Action::List(list) => list.run(environment).await,
            Action::Show(named) => {
                let detail = fetch(&named.relay.client(environment)?, &named.topic, &named.group).await?;
                show(&detail, named.relay.output)
            }
            Action::Create { named, start, settings } => {
                let client = named.relay.client(environment)?;
                let mut body = settings.body();
                body.extend(start.map(|start| ("start".to_owned(), start.into())));
                // It replaces the settings of one that is there, unless that is ruled out.
                let request = client.request(Method::PUT, &path(&named.topic, &named.group)).json(&body);
                let answer = client.send(request.header(IF_NONE_MATCH, "*")).await;
                let answer = answer.map_err(|refusal| named.told_already(refusal.into()))?;
                named.tell(&client.read(&answer)?, "made")
            }
            Action::Change { named, settings, no_max_run, no_max_in_flight, no_per_consumer_max } => {
                let mut body = settings.body();
                for (name, is_cleared) in [
                    ("max_run", no_max_run),
                    ("max_in_flight", no_max_in_flight),
                    ("per_consumer_max", no_per_consumer_max),
                ] {
                    if is_cleared {
                        body.insert(name.to_owned(), Value::Null);
                    }
                }
                if body.is_empty() {
                    let rule = "nothing is to be changed; `tidemill groups change --help` lists the settings";
                    return Err(CliError::Usage(rule.to_owned()));
                }
                let client = named.relay.client(environment)?;
                named.send(&client, Method::PATCH, &[], Some(body.into()), "changed").await
            }
            Action::Pause(named) => named.ask(environment, "pause", None, "paused").await,
            Action::Resume(named) => named.ask(environment, "resume", None, "resumed").await,
            Action::Seek { named, to } => {
                let done = format!("set to {to}:");
                named.ask(environment, "seek", Some(json!({ "to": to })), &done).await
            }
            Action::Delete { named, yes } => named.delete(environment, yes).await,
        }
    }
}

impl Named {
    async fn ask(
        &self,
        environment: &Environment,
        verb: &str,
        body: Option<Value>,
        done: &str,
    ) -> Result<(), CliError> {
        let client = self.relay.client(environment)?;
        self.send(&client, Method::POST, &[verb], body, done).await
    }

    /// Sends a request about the group, which answers with the group.
    async fn send(
        &self,
        client: &Client,
        method: Method,
        below: &[&str],
        body: Option<Value>,
        done: &str,
    ) -> Result<(), CliError> {
        let path = [&path(&self.topic, &self.group)[..], below].concat();
        let request = client.request(method, &path);
        let request = match &body {
            Some(body) => request.json(body),
            None => request,
        };
        let answer = client.send(request).await?;
        self.tell(&client.read(&answer)?, done)
    }

    fn tell(&self, detail: &GroupDetail, done: &str) -> Result<(), CliError> {
        match self.relay.output {
            Output::Json => output::json(detail),
            Output::Text => output::line(&format!("{done} {} of {}", self.group, self.topic)),
        }
    }

    /// Returns an error with what to do, where the group that was to be made is there.
    fn told_already(&self, error: CliError) -> CliError {
        let Self { topic, group, .. } = self;
        match error {
            CliError::Problem(mut problem) if problem.code == Code::Conflict => {
                problem.detail = format!(
                    "topic `{topic}` has a group `{group}` already; change it with `tidemill groups change {topic} {group}`"
                );
                CliError::Problem(problem)
            }
            error => error,
        }
    }

    async fn delete(&self, environment: &Environment, yes: bool) -> Result<(), CliError> {
        let client = self.relay.client(environment)?;
        let question = async {
            let detail = fetch(&client, &self.topic, &self.group).await?;
            let waiting = detail.waiting.map_or("unknown".to_owned(), |waiting| waiting.to_string());
            Ok(format!("Delete {} of {} ({waiting} waiting)?", self.group, self.topic))
        };
        let deletes = "deleting a group forgets what is done";
        if !yes && !confirm(deletes, question).await? {
            return Ok(());
        }
        client.send(client.request(Method::DELETE, &path(&self.topic, &self.group))).await?;
        match self.relay.output {
            Output::Json => output::json(&json!({ "deleted": self.group })),
            Output::Text => output::line(&format!("deleted {} of {}", self.group, self.topic)),
        }
    }
}

fn path<'a>(topic: &'a TopicName, group: &'a GroupName) -> [&'a str; 6] {
    ["api", "v1", "topics", topic.as_str(), "groups", group.as_str()]
}

/// Returns a group.
pub(super) async fn fetch(
    client: &Client,
    topic: &TopicName,
    group: &GroupName,
) -> Result<GroupDetail, CliError> {
    let answer = client.send(client.request(Method::GET, &path(topic, group))).await.map_err(CliError::from);
    client.read(&answer.map_err(|error| advised(error, topic, group))?)
}

/// Returns the groups of a topic.
pub(super) async fn fetch_all(client: &Client, topic: &TopicName) -> Result<Vec<GroupDetail>, CliError> {
    let path = ["api", "v1", "topics", topic.as_str(), "groups"];
    client.read(&client.send(client.request(Method::GET, &path)).await?)
}

/// Returns an error with what to do, where there is no such group.
pub(super) fn advised(error: CliError, topic: &TopicName, group: &GroupName) -> CliError {
    match error {
        CliError::Problem(mut problem) if problem.code == Code::GroupNotFound => {
            problem.detail = absent(topic, group);
            CliError::Problem(problem)
        }
        error => error,
    }
}

/// Returns that there is no such group, and how to make it.
pub(super) fn absent(topic: &TopicName, group: &GroupName) -> String {
    format!(
        "topic `{topic}` has no group `{group}`; make it with `tidemill groups create {topic} {group}`, or see which there are with `tidemill groups list {topic}`"
    )
}

/// What there is to be said of a group at a glance, above all what stands in the way of its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing is given out until it is resumed.
    Paused,
    /// Messages wait, and consumers have as many as they may.
    Full,
    /// Messages wait, and no consumer has one.
    Unclaimed,
    /// Consumers have messages.
    Working,
    /// There is nothing to do now.
    Idle,
}

impl State {
    fn of(group: &GroupDetail) -> Self {
        // Where the number is not known, there may be some.
        let waits = group.waiting != Some(0);
        let is_full = group.settings.max_in_flight.is_some_and(|max| group.in_flight >= u64::from(max));
        match group.in_flight {
            _ if group.settings.paused => Self::Paused,
            _ if waits && is_full => Self::Full,
            0 if waits => Self::Unclaimed,
            0 => Self::Idle,
            _ => Self::Working,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Full => "max in flight",
            Self::Unclaimed => "unclaimed",
            Self::Working => "working",
            Self::Idle => "idle",
        }
    }

    /// Returns it in a sentence, with what to do.
    fn sentence(self, detail: &GroupDetail) -> String {
        let GroupDetail { topic, group, .. } = detail;
        let is_held = detail.settings.ordering == Ordering::ByKey && detail.in_backoff > 0;
        match self {
            Self::Paused => {
                format!("paused: nothing is given out until `tidemill groups resume {topic} {group}`")
            }
            Self::Full => format!(
                "max in flight: consumers have as many messages as they may, and the others wait; `tidemill groups change {topic} {group} --max-in-flight` allows more"
            ),
            Self::Unclaimed if is_held => {
                "unclaimed: messages wait, and no consumer has one; those that wait after a failure may hold their order keys, or no worker is running".to_owned()
            }
            Self::Unclaimed => {
                let asked = detail.last_claim.map_or("none has asked".to_owned(), |at| {
                    format!("the last time that one has asked was {at}")
                });
                format!("unclaimed: messages wait, and no consumer has one; {asked}: is a worker running?")
            }
            Self::Working => "working: consumers have messages".to_owned(),
            Self::Idle => "idle: no message can be claimed now".to_owned(),
        }
    }
}

fn number(number: Option<u64>) -> String {
    number.map_or("unknown".to_owned(), |number| number.to_string())
}

/// Returns a duration for people.
pub(super) fn shown(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs_f64();
    let units = [(86_400.0, "d"), (3_600.0, "h"), (60.0, "m")];
    let whole = |(unit, _): &(f64, &str)| seconds >= *unit && (seconds / unit).fract() == 0.0;
    let (unit, name) = units.into_iter().find(whole).unwrap_or((1.0, "s"));
    format!("{} {name}", seconds / unit)
}

/// Consumers whose messages are counted in what is printed.
const HELD_BY_SHOWN: usize = 10;

fn show(group: &GroupDetail, form: Output) -> Result<(), CliError> {
    if form == Output::Json {
        return output::json(group);
    }
    let settings = &group.settings;
    let bound = |bound: Option<u32>| bound.map_or("none".to_owned(), |bound| bound.to_string());
    let backoff: Vec<_> = settings.backoff.iter().map(|wait| shown(wait.0)).collect();
    let exact = if group.exact { "" } else { " (not exact)" };
    let oldest = group.oldest_waiting_seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.1} s"));
    let of = |of: &ConsumerCounts| format!("{} {}", output::printable(&of.consumer), of.in_flight);
    let most: Vec<_> = group.held_by.iter().take(HELD_BY_SHOWN).map(of).collect();
    let rest = if group.consumers > most.len() as u64 { ", …" } else { "" };
    let held_by = if most.is_empty() { String::new() } else { format!(": {}{rest}", most.join(", ")) };
    let rows = [
        ("topic", group.topic.to_string()),
        ("group", group.group.to_string()),
        ("state", State::of(group).sentence(group)),
        ("created", group.created_at.map_or("by another program".to_owned(), |at| at.to_string())),
        ("ack wait", shown(settings.ack_wait.0)),
        ("max deliveries", settings.max_deliveries.to_string()),
        ("backoff waits", backoff.join(", ")),
        ("max run", settings.max_run.map_or("none".to_owned(), |run| shown(run.0))),
        ("max in flight", bound(settings.max_in_flight)),
        ("per consumer max", bound(settings.per_consumer_max)),
        ("dead letters", settings.dead_letter.to_string()),
        ("result ttl", shown(settings.result_ttl.0)),
        ("ordering", settings.ordering.as_str().to_owned()),
        ("paused", if settings.paused { "yes".to_owned() } else { "no".to_owned() }),
        ("last delivered", group.last_delivered.to_string()),
        ("waiting", format!("{}{exact}", number(group.waiting))),
        ("oldest waiting", oldest),
        ("scheduled", group.scheduled.to_string()),
        ("in flight", group.in_flight.to_string()),
        ("in backoff", group.in_backoff.to_string()),
        ("dead", group.dead.to_string()),
        ("done", group.done.to_string()),
        ("failed", group.failed.to_string()),
        ("redelivered", group.redelivered.to_string()),
        ("gone", group.gone.to_string()),
        ("consumers", format!("{}{held_by}", group.consumers)),
        ("last claim", group.last_claim.map_or("never".to_owned(), |at| at.to_string())),
    ];
    output::line(&output::table(&rows.map(|(name, value)| [name.to_owned(), value])))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn durations_have_a_unit_that_fits() {
        for (ms, text) in [(500, "0.5 s"), (90_000, "90 s"), (120_000, "2 m"), (7_200_000, "2 h")] {
            assert_eq!(shown(Duration::from_millis(ms)), text);
        }
    }
}
