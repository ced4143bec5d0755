//! `tidemill tail`: messages of topics as they come.

use std::collections::HashMap;
use std::pin::{Pin, pin};

use clap::ValueEnum;
use futures_util::FutureExt as _;
use reqwest::Method;
use tidemill_proto::topics::{Closed, RunState, Topic};
use tidemill_proto::{Code, Cursor, Since, TopicName, TopicPattern, TopicSelector};

use super::CliError;
use super::client::RelayFlags;
use super::latest;
use super::output::{self, Form, quoted};
use super::points::{count, parse_point};
use super::signals::stopped;
use crate::config::Environment;
use printer::Printer;
use tidemill_client::{ClientError, Encoding, Event, Refusal, Start, Subscription};

mod printer;

const EXAMPLES: &str = "\
Examples:
  tidemill tail orders                         what comes from now on
  tidemill tail orders --after earliest        everything there is, and what comes
  tidemill tail orders --after=-10m --limit 5  five messages of the last ten minutes or later
  tidemill tail orders log --after orders=1517363399650-0
                                               each topic from its own place; log from now on
  tidemill tail 'orders.*'                     the topics whose names begin with `orders.`, and
                                               those that come
  tidemill tail pumps --latest                 of each key its latest message, and what comes
  tidemill tail orders -o raw | jq .total      payloads alone
  tidemill tail pictures -n 1 -o raw > tide.png  bytes exactly as they were published
  tidemill tail orders -o json                 one frame a line, as the relay sends it

Text prints time, topic, id and payload. Where messages are gone before they could be read, a
line on standard error tells the gap, and with -o json so does a frame `{\"type\":\"gap\",…}`.

It runs until Ctrl-C or --limit, and then prints the command that goes on behind the last message.
That of a pattern can print the newest messages again: it goes on from the cursor that the relay
told last.";

/// How frames travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Frames {
    /// JSON text
    #[default]
    Json,
    /// Binary, which is cheaper
    Binary,
}

/// The arguments of `tidemill tail`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Tail {
    /// The topics to follow: names, one that does not exist yet is waited for; and patterns, in which `*` stands
    /// for any characters, quoted for the shell
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<TopicSelector>,

    /// Begin after this: a message id, the cursor of a pattern (`p1.…`), `earliest`, `latest`, an RFC 3339 time, or
    /// a time ago (`-10m`); or TOPIC=POINT for one of several topics. May be repeated [default: latest]
    #[arg(long, value_name = "POINT", allow_hyphen_values = true, value_parser = After::parse)]
    after: Vec<After>,

    /// Of topics with `compact_by`: the latest message of each key, with the key in front of its payload,
    /// and then what comes [default of --after: earliest]
    #[arg(long)]
    latest: bool,

    /// End with an error where a topic that is named does not exist, or a pattern matches none
    #[arg(long)]
    must_exist: bool,

    /// End after so many messages
    #[arg(long, short = 'n', value_name = "COUNT", value_parser = count)]
    limit: Option<u64>,

    /// How messages travel between relay and client; what is printed is the same
    #[arg(long, value_name = "ENCODING", value_enum, default_value_t)]
    encoding: Frames,

    /// The form of what is printed
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    output: Form,

    #[command(flatten)]
    target: RelayFlags,
}

/// Where to begin, for one topic or for all.
#[derive(Clone, Debug)]
struct After {
    topic: Option<TopicSelector>,
    start: Start,
}

impl After {
    fn parse(text: &str) -> Result<Self, String> {
        let (topic, start) = match text.split_once('=') {
            Some((topic, start)) => {
                (Some(TopicSelector::parse(topic).map_err(|error| format!("the topic {error}"))?), start)
            }
            None => (None, text),
        };
        Ok(Self { topic, start: parse_point(start)? })
    }
}

impl Tail {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let start = self.start()?;
        let states = self.states(&start)?;
        let encoding = match self.encoding {
            Frames::Json => Encoding::Json,
            Frames::Binary => Encoding::Binary,
        };
        let client = self.target.live_client(environment, encoding)?;
        let mut stop = pin!(stopped()?);
        // What does not exist is not refused here: the refusal names one topic, and this all of them.
        let subscribing = async {
            let subscription = match states {
                Some(states) => client.subscribe_latest(states).await?,
                None => client.subscribe(start).await?,
            };
            let unmatched = self.unmatched(environment).await?;
            let fields = self.fields(environment).await?;
            Ok::<_, CliError>((subscription, unmatched, fields))
        };
        let (mut subscription, unmatched, fields) = tokio::select! {
            begun = subscribing => begun.map_err(|error| self.target.advised(environment, error))?,
            () = &mut stop => return Ok(()),
        };
        if self.must_exist && !(subscription.absent().is_empty() && unmatched.is_empty()) {
            let error = missing(subscription.absent(), &unmatched);
            subscription.close().await;
            return Err(error);
        }
        note_absent(&subscription);
        for pattern in unmatched {
            eprintln!("no topic matches `{pattern}` yet; waiting for one");
        }
        let mut printer = Printer::new(self.output, fields, subscription.cursors());
        let result = follow(&mut subscription, &mut printer, self.limit, stop).await;
        subscription.close().await;
        let is_unread = matches!(&result, Err(CliError::Output(_)));
        if !is_unread {
            if let Some(hidden) = self.target.hidden() {
                eprintln!("what may be a secret is left out: put {hidden}");
            }
            eprintln!("go on with: {}", resume(&printer.cursors, &self.flags()));
        }
        result
    }

    /// Returns the flags that go on in the same way, at the same relay.
    fn flags(&self) -> Vec<String> {
        let output = match self.output {
            Form::Text => None,
            Form::Json => Some("--output=json"),
            Form::Raw => Some("--output=raw"),
        };
        let encoding = match self.encoding {
            Frames::Json => None,
            Frames::Binary => Some("--encoding=binary"),
        };
        let latest = self.latest.then_some("--latest");
        let own = [latest, output, encoding].into_iter().flatten().map(str::to_owned);
        self.target.flags().into_iter().chain(own).collect()
    }

    /// Returns the topics and where to begin in each, where their latest messages are wanted.
    fn states(&self, start: &[(TopicSelector, Start)]) -> Result<Option<Vec<(TopicName, Start)>>, CliError> {
        if !self.latest {
            return Ok(None);
        }
        let named = |(topic, start): &(TopicSelector, Start)| match topic {
            TopicSelector::Topic(topic) => Ok((topic.clone(), start.clone())),
            TopicSelector::Pattern(pattern) => {
                let rule = format!("--latest is of topics; name them in place of the pattern `{pattern}`");
                Err(CliError::Usage(rule))
            }
        };
        start.iter().map(named).collect::<Result<_, _>>().map(Some)
    }

    /// Returns of each topic the field that holds the keys, where they are printed.
    async fn fields(&self, environment: &Environment) -> Result<HashMap<TopicName, String>, CliError> {
        let mut fields = HashMap::new();
        if self.latest && self.output == Form::Text {
            let client = self.target.client(environment)?;
            for topic in &self.topics {
                if let TopicSelector::Topic(topic) = topic
                    && let Some(field) = latest::field_of(&client, topic).await
                {
                    fields.insert(topic.clone(), field);
                }
            }
        }
        Ok(fields)
    }

    /// Returns the patterns that match no topic so far. Where the list of topics is not to be had, as behind a proxy
    /// that lets live readers through alone, none is known.
    async fn unmatched(&self, environment: &Environment) -> Result<Vec<&TopicPattern>, CliError> {
        let client = self.target.client(environment)?;
        let mut unmatched = Vec::new();
        for topic in &self.topics {
            let TopicSelector::Pattern(pattern) = topic else { continue };
            let mut request = client
                .request(Method::GET, &["api", "v1", "topics"])
                .query(&[("match", pattern.as_str()), ("limit", "1")]);
            // A page without topics may have others behind it.
            loop {
                let answer = match client.send(request).await {
                    Ok(answer) => answer,
                    Err(refusal) if self.must_exist => return Err(refusal.into()),
                    Err(_) => break,
                };
                let topics: Vec<Topic> = client.read(&answer)?;
                match answer.next {
                    _ if !topics.is_empty() => break,
                    Some(next) => request = client.follow(&next)?,
                    None => {
                        unmatched.push(pattern);
                        break;
                    }
                }
            }
        }
        Ok(unmatched)
    }

    /// Returns where to begin in each topic.
    fn start(&self) -> Result<Vec<(TopicSelector, Start)>, CliError> {
        let usage = |rule: String| Err(CliError::Usage(rule));
        let mut start: Vec<(TopicSelector, Start)> = Vec::new();
        let mut named = self.after.iter().filter_map(|after| after.topic.as_ref());
        if let Some(topic) = named.find(|topic| !self.topics.contains(topic)) {
            return usage(format!("--after names {topic}, which is not among the topics"));
        }
        if self.after.iter().filter(|after| after.topic.is_none()).count() > 1 {
            return usage("--after without a topic is for all topics, and stands once".to_owned());
        }
        for topic in &self.topics {
            if start.iter().any(|(other, _)| other == topic) {
                continue;
            }
            let own = self.after.iter().rfind(|after| after.topic.as_ref() == Some(topic));
            let all = self.after.iter().find(|after| after.topic.is_none());
            let from = own.or(all).map(|after| after.start.clone());
            let usual = if self.latest { Cursor::Earliest } else { Cursor::Latest };
            start.push((topic.clone(), from.unwrap_or(Start::Since(Since::Cursor(usual)))));
        }
        Ok(start)
    }
}

/// Prints what comes until there was enough of it, or `stop` ends.
async fn follow(
    subscription: &mut Subscription,
    printer: &mut Printer,
    limit: Option<u64>,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<(), CliError> {
    let mut left = limit.unwrap_or(u64::MAX);
    let mut is_away = false;
    // Of a pattern another topic may come.
    let mut open: Vec<_> = subscription.cursors().into_iter().map(|(topic, _)| topic).collect();
    while left > 0 {
        // What is there already is written together.
        let ready = if printer.is_full() { None } else { subscription.next().now_or_never() };
        let event = if let Some(event) = ready {
            event
        } else {
            if printer.write(subscription, stop.as_mut()).await?.is_break() {
                return Ok(());
            }
            tokio::select! {
                event = subscription.next() => event,
                () = &mut stop => {
                    // Everything is written, and cursors of patterns come behind it.
                    printer.cursors = subscription.cursors();
                    return Ok(());
                }
            }
        };
        match event {
            Ok(Event::Message(message)) => {
                left -= 1;
                printer.message(&message);
            }
            Ok(Event::Gap(gap)) => printer.gap(&gap),
            Ok(Event::Closed(closed)) => {
                eprintln!("{}", how_closed(&closed));
                open.retain(|topic| *topic != TopicSelector::Topic(closed.topic.clone()));
                if open.is_empty() {
                    break;
                }
            }
            Ok(Event::Disconnected(error)) => {
                if !std::mem::replace(&mut is_away, true) {
                    eprintln!("{error}; connecting again");
                }
            }
            Ok(Event::Reconnected) => {
                is_away = false;
                eprintln!("connected again");
                note_absent(subscription);
            }
            Err(error) => {
                let _ = printer.write(subscription, stop).await?;
                return Err(ended(error));
            }
        }
    }
    printer.write(subscription, stop).await.map(drop)
}

/// Returns what is told of a topic that takes no messages any more.
fn how_closed(closed: &Closed) -> String {
    let Closed { topic, state, reason } = closed;
    match reason.as_deref().filter(|_| *state == RunState::Cancelled) {
        Some(reason) => format!("{topic} is cancelled: {}", output::printable(reason)),
        None => format!("{topic} is {}", state.as_str()),
    }
}

/// Tells which topics there are not, so that a typing mistake is seen.
fn note_absent(subscription: &Subscription) {
    for topic in subscription.absent() {
        eprintln!("there is no topic {topic} yet; waiting for it");
    }
}

/// Returns the error for topics that do not exist, and patterns that match none.
fn missing(absent: &[TopicName], unmatched: &[&TopicPattern]) -> CliError {
    let absent = absent.iter().map(|topic| format!("topic `{topic}` does not exist"));
    let unmatched = unmatched.iter().map(|pattern| format!("no topic matches `{pattern}`"));
    let message = absent.chain(unmatched).collect::<Vec<_>>().join(", ");
    ClientError::Refused(Refusal::new(Code::TopicNotFound, message)).into()
}

fn ended(error: ClientError) -> CliError {
    match error {
        // What was reached before is not in the wrong place.
        ClientError::Away { url, why } => CliError::NoAnswer { url, why },
        error => error.into(),
    }
}

/// Returns the command that goes on behind what was printed, as a shell reads it.
fn resume(cursors: &[(TopicSelector, Start)], flags: &[String]) -> String {
    let topics = cursors.iter().map(|(topic, _)| quoted(topic.as_str()));
    let after = cursors.iter().map(|(topic, start)| match cursors.len() {
        1 => format!("--after={start}"),
        _ => format!("--after={}", quoted(&format!("{topic}={start}"))),
    });
    let words: Vec<_> = topics.chain(after).chain(flags.iter().cloned()).collect();
    format!("tidemill tail {}", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_to_go_on_with_names_every_cursor() {
        let told = |cursors: &[(&str, &str)], flags: &[&str]| {
            let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
            resume(&cursors.iter().map(|(topic, start)| cursor(topic, start)).collect::<Vec<_>>(), &flags)
        };
        assert_eq!(told(&[("a", "5-0")], &[]), "tidemill tail a --after=5-0");
        assert_eq!(
            told(&[("a", "5-0")], &["--url=http://h:1", "--output=raw"]),
            "tidemill tail a --after=5-0 --url=http://h:1 --output=raw"
        );
        assert_eq!(
            told(&[("a", "5-0"), ("b", "earliest")], &[]),
            "tidemill tail a b --after=a=5-0 --after=b=earliest"
        );
        assert_eq!(told(&[("a.*", "p1.A")], &[]), "tidemill tail 'a.*' --after=p1.A");
        assert_eq!(
            told(&[("a", "5-0"), ("a.*", "p1.A")], &[]),
            "tidemill tail a 'a.*' --after=a=5-0 --after='a.*=p1.A'"
        );
    }

    fn cursor(topic: &str, start: &str) -> (TopicSelector, Start) {
        (TopicSelector::parse(topic).expect("a name or a pattern"), start.parse().expect("a start"))
    }

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        tail: Tail,
    }

    #[test]
    fn what_begins_where_is_what_was_told() {
        for cursors in [
            vec![cursor("a", "5-0")],
            vec![cursor("a.*", "p1.A-_z")],
            vec![cursor("*", "latest")],
            vec![cursor("a", "5-0"), cursor("*.eu", "p1.A"), cursor("a*b", "2026-01-31T12:00:00.000Z")],
        ] {
            let told = resume(&cursors, &[]).replace('\'', "");
            let words = told.split(' ').skip(1);
            let read = <Command as clap::Parser>::try_parse_from(words).expect("it is read");
            assert_eq!(read.tail.start().expect("it begins"), cursors, "{told}");
        }
    }
}
