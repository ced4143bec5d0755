//! `tidemill tail`: messages of topics as they come.

use std::io::{self, IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::time::Duration;

use clap::ValueEnum;
use futures_util::FutureExt as _;
use tidemill_proto::frame::{ServerFrame, json};
use tidemill_proto::{Cursor, Gap, Since, TopicName};
use tokio::io::AsyncWriteExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::CliError;
use super::client::Place;
use super::output::{self, Form};
use crate::config::Environment;
use tidemill_client::{ClientError, Encoding, Event, Message, Subscription};

/// Bytes after which what is printed is written, also while more is there to print.
const WRITE_BYTES: usize = 64 * 1024;

/// How long a write may take once the user has asked to stop.
const LAST_WRITE: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  tidemill tail orders                         what comes from now on
  tidemill tail orders --after earliest        everything there is, and what comes
  tidemill tail orders --after=-10m --limit 5  five messages of the last ten minutes or later
  tidemill tail orders log --after orders=1517363399650-0
                                               each topic from its own place; log from now on
  tidemill tail orders -o raw | jq .total      payloads alone
  tidemill tail pictures -n 1 -o raw > tide.png  bytes exactly as they were published
  tidemill tail orders -o json                 one frame a line, as the relay sends it

Text prints time, topic, id and payload. Where messages are gone before they could be read, a
line on standard error tells the gap, and with -o json so does a frame `{\"type\":\"gap\",…}`.

It runs until Ctrl-C or --limit, and then prints the command that goes on behind the last message.";

/// How frames travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Wire {
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
    /// The topics to follow; one that does not exist yet is waited for
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<TopicName>,

    /// Begin after this: a message id, `earliest`, `latest`, an RFC 3339 time, or a time ago (`-10m`);
    /// or TOPIC=POINT for one of several topics. May be repeated [default: latest]
    #[arg(long, value_name = "POINT", allow_hyphen_values = true, value_parser = After::parse)]
    after: Vec<After>,

    /// End with an error where a topic does not exist
    #[arg(long)]
    must_exist: bool,

    /// End after so many messages
    #[arg(long, short = 'n', value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    /// How messages travel between relay and client; what is printed is the same
    #[arg(long, value_name = "ENCODING", value_enum, default_value_t)]
    encoding: Wire,

    /// The form of what is printed
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    output: Form,

    #[command(flatten)]
    place: Place,
}

/// Where to begin, for one topic or for all.
#[derive(Clone, Debug)]
struct After {
    topic: Option<TopicName>,
    since: Since,
}

impl After {
    fn parse(text: &str) -> Result<Self, String> {
        let (topic, since) = match text.split_once('=') {
            Some((topic, since)) => {
                (Some(TopicName::parse(topic).map_err(|error| format!("the topic {error}"))?), since)
            }
            None => (None, text),
        };
        Ok(Self { topic, since: Since::parse(since).map_err(|error| error.to_string())? })
    }
}

impl Tail {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let start = self.start()?;
        let encoding = match self.encoding {
            Wire::Json => Encoding::Json,
            Wire::Binary => Encoding::Binary,
        };
        let client = self.place.live_client(environment, encoding)?;
        let mut stop = pin!(stopped()?);
        let subscribe = async {
            if self.must_exist {
                client.subscribe_existing(start).await
            } else {
                client.subscribe(start).await
            }
        };
        let mut subscription = tokio::select! {
            subscription = subscribe => subscription?,
            () = &mut stop => return Ok(()),
        };
        note_absent(&subscription);
        let mut printer = Printer::new(self.output, subscription.cursors());
        let result = follow(&mut subscription, &mut printer, self.limit, stop).await;
        let is_unread = matches!(&result, Err(CliError::Output(_)));
        if !is_unread {
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
            Wire::Json => None,
            Wire::Binary => Some("--encoding=binary"),
        };
        let own = [output, encoding].into_iter().flatten().map(str::to_owned);
        self.place.flags().into_iter().chain(own).collect()
    }

    /// Returns where to begin in each topic.
    fn start(&self) -> Result<Vec<(TopicName, Since)>, CliError> {
        let usage = |rule: String| Err(CliError::Usage(rule));
        let mut start: Vec<(TopicName, Since)> = Vec::new();
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
            let since = own.or(all).map_or(Since::Cursor(Cursor::Latest), |after| after.since);
            start.push((topic.clone(), since));
        }
        Ok(start)
    }
}

/// Returns what ends when the user, or the system, asks to stop.
fn stopped() -> Result<impl Future<Output = ()>, CliError> {
    let failed = |cause: io::Error| CliError::Failed("cannot wait for signals", cause.into());
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
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
                () = &mut stop => return Ok(()),
            }
        };
        match event {
            Ok(Event::Message(message)) => {
                left -= 1;
                printer.message(&message);
            }
            Ok(Event::Gap(gap)) => printer.gap(&gap),
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

/// Tells which topics there are not, so that a typing mistake is seen.
fn note_absent(subscription: &Subscription) {
    for topic in subscription.absent() {
        eprintln!("there is no topic {topic} yet; waiting for it");
    }
}

fn ended(error: ClientError) -> CliError {
    match error {
        // What was reached before is not in the wrong place.
        ClientError::Away { url, why } => CliError::NoAnswer { url, why },
        error => error.into(),
    }
}

/// Returns the command that goes on behind what was printed.
fn resume(cursors: &[(TopicName, Since)], flags: &[String]) -> String {
    let topics = cursors.iter().map(|(topic, _)| topic.to_string());
    let after = cursors.iter().map(|(topic, since)| match cursors.len() {
        1 => format!("--after={since}"),
        _ => format!("--after={topic}={since}"),
    });
    let words: Vec<_> = topics.chain(after).chain(flags.iter().cloned()).collect();
    format!("tidemill tail {}", words.join(" "))
}

/// What is printed: gathered, and written when nothing more is there.
struct Printer {
    form: Form,
    colours: bool,
    out: Vec<u8>,
    /// Behind what was written.
    cursors: Vec<(TopicName, Since)>,
}

impl Printer {
    fn new(form: Form, cursors: Vec<(TopicName, Since)>) -> Self {
        let colours =
            io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
        Self { form, colours, out: Vec::new(), cursors }
    }

    const fn is_full(&self) -> bool {
        self.out.len() >= WRITE_BYTES
    }

    fn message(&mut self, message: &Message) {
        match self.form {
            Form::Text => {
                let payload = output::payload(&message.payload, message.content_type.as_deref());
                let Message { message_id: id, topic, timestamp: time, .. } = message;
                // Writing into a vector cannot fail.
                let _ = if self.colours {
                    write!(
                        self.out,
                        "\x1b[2m{time}\x1b[0m  \x1b[36m{topic}\x1b[0m  \x1b[33m{id}\x1b[0m  {payload}"
                    )
                } else {
                    write!(self.out, "{time}  {topic}  {id}  {payload}")
                };
            }
            Form::Json => {
                let start = self.out.len();
                json::write_message_ref(&message.as_message_ref(), &mut self.out);
                json::flatten_lines(&mut self.out[start..]);
            }
            Form::Raw => {
                self.out.extend_from_slice(&message.payload);
                if !message.is_json() {
                    // What is not JSON may be part of something larger, a file for example.
                    return;
                }
            }
        }
        self.out.push(b'\n');
    }

    fn gap(&mut self, gap: &Gap) {
        eprintln!("{}", output::gap(gap));
        if self.form == Form::Json {
            json::write(&ServerFrame::Gap(gap.clone()), &mut self.out);
            self.out.push(b'\n');
        }
    }

    /// Writes what was gathered up to here, and says to break if `stop` ended meanwhile.
    async fn write(
        &mut self,
        subscription: &Subscription,
        stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<ControlFlow<()>, CliError> {
        let mut flow = ControlFlow::Continue(());
        if !self.out.is_empty() {
            {
                let mut writing = pin!(async {
                    let mut stdout = tokio::io::stdout();
                    stdout.write_all(&self.out).await?;
                    stdout.flush().await
                });
                tokio::select! {
                    biased;
                    written = &mut writing => written?,
                    () = stop => {
                        flow = ControlFlow::Break(());
                        // What is on its way counts as printed only when it is; nobody may be reading.
                        match timeout(LAST_WRITE, writing).await {
                            Ok(written) => written?,
                            Err(_) => return Ok(flow),
                        }
                    }
                }
            }
            self.out.clear();
        }
        self.cursors = subscription.cursors();
        Ok(flow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_to_go_on_with_names_every_cursor() {
        let topic = |name| TopicName::parse(name).expect("a valid name");
        let since = |text| Since::parse(text).expect("a cursor");
        assert_eq!(resume(&[(topic("a"), since("5-0"))], &[]), "tidemill tail a --after=5-0");
        let flags = ["--url=http://h:1".to_owned(), "--output=raw".to_owned()];
        assert_eq!(
            resume(&[(topic("a"), since("5-0"))], &flags),
            "tidemill tail a --after=5-0 --url=http://h:1 --output=raw"
        );
        assert_eq!(
            resume(&[(topic("a"), since("5-0")), (topic("b"), since("earliest"))], &[]),
            "tidemill tail a b --after=a=5-0 --after=b=earliest"
        );
    }
}
