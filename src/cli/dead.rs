//! `tidemill dead`: lists the dead letters of a group, has them worked on again, or deletes them.

use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use tidemill_proto::limits::PAGE_MESSAGES_MAX;
use tidemill_proto::work::{GroupName, RedriveRequest, Redriven};
use tidemill_proto::{Code, Message, MessageId, TopicName};

use super::CliError;
use super::client::{Answer, Client, Relay};
use super::confirm::confirm;
use super::groups::{advised, fetch};
use super::output::{self, Output};
use super::points::count;
use crate::config::Environment;

const EXAMPLES: &str = "\
Examples:
  tidemill dead list jobs workers                        the newest hundred, with what went wrong
  tidemill dead redrive jobs workers 1517363399650-0     this message is worked on again
  tidemill dead redrive jobs workers --all --dry-run     how many would be
  tidemill dead purge jobs workers --all --yes           they are deleted

Ids are those of the messages in their topic, as `list` prints them first. The exit status is 1
where one is of no dead letter of the group, or neither message nor letter is there any more.";

/// Ids of one request.
const IDS_MAX: usize = 1_000;

/// The arguments of `tidemill dead`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Dead {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List dead letters, the newest first
    List {
        /// The topic
        topic: TopicName,
        /// The group
        #[arg(value_parser = GroupName::parse)]
        group: GroupName,
        /// How many at most
        #[arg(long, short = 'n', value_name = "COUNT", value_parser = count, default_value = "100")]
        limit: u64,
        #[command(flatten)]
        relay: Relay,
    },
    /// Have messages worked on again, with no failures
    Redrive {
        #[command(flatten)]
        chosen: Chosen,
        /// How many can be claimed in each second at most
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
        rate: Option<u32>,
    },
    /// Delete dead letters
    Purge {
        #[command(flatten)]
        chosen: Chosen,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Dead letters of a group, and where they are.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["ids", "all"])))]
struct Chosen {
    /// The topic
    topic: TopicName,
    /// The group
    #[arg(value_parser = GroupName::parse)]
    group: GroupName,
    /// The ids that the messages have in the topic
    #[arg(value_name = "ID", value_parser = MessageId::parse)]
    ids: Vec<MessageId>,
    /// All dead letters of the group
    #[arg(long)]
    all: bool,
    /// Only tell what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    relay: Relay,
}

/// A page whose messages stay as they were written.
#[derive(Deserialize)]
struct RawPage<'a> {
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
    next_cursor: Option<MessageId>,
}

/// What the metadata of a dead letter say of it.
#[derive(Deserialize)]
struct Metadata {
    dead_letter: Option<Origin>,
}

#[derive(Deserialize)]
struct Origin {
    topic: String,
    group: String,
    message_id: String,
    died_at: Option<String>,
    reason: Option<String>,
    error: Option<String>,
    deliveries: Option<u64>,
}

impl Dead {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        match self.action {
            Action::List { topic, group, limit, relay } => {
                list(&relay.client(environment)?, (&topic, &group), limit, relay.output).await
            }
            Action::Redrive { chosen, rate } => {
                let client = chosen.relay.client(environment)?;
                let done = chosen.send(&client, "redrive", chosen.dry_run, rate).await?;
                chosen.tell(done, if chosen.dry_run { "would be redriven" } else { "redriven" })
            }
            Action::Purge { chosen, yes } => {
                let client = chosen.relay.client(environment)?;
                let question = async {
                    let would = chosen.send(&client, "purge", true, None).await?;
                    Ok(format!(
                        "Delete {} of {}?",
                        output::counted(would.messages, "dead letter"),
                        chosen.group
                    ))
                };
                let deletes = "purging deletes messages that were not worked on";
                if !(yes || chosen.dry_run || confirm(deletes, question).await?) {
                    return Ok(());
                }
                let done = chosen.send(&client, "purge", chosen.dry_run, None).await?;
                chosen.tell(done, if chosen.dry_run { "would be purged" } else { "purged" })
            }
        }
    }
}

impl Chosen {
    async fn send(
        &self,
        client: &Client,
        verb: &str,
        dry_run: bool,
        rate: Option<u32>,
    ) -> Result<Redriven, CliError> {
        let Self { topic, group, .. } = self;
        let path = ["api", "v1", "topics", topic.as_str(), "groups", group.as_str(), verb];
        let parts: Vec<Option<Vec<MessageId>>> = if self.all {
            vec![None]
        } else {
            self.ids.chunks(IDS_MAX).map(|ids| Some(ids.to_vec())).collect()
        };
        let mut sum = Redriven::default();
        for ids in parts {
            let body = RedriveRequest { ids, all: self.all, dry_run, rate };
            let answer = client.send(client.request(Method::POST, &path).json(&body)).await;
            let answer = answer.map_err(|refusal| advised(refusal.into(), topic, group))?;
            let done: Redriven = client.read(&answer)?;
            sum.messages += done.messages;
            sum.copies += done.copies;
            sum.gone += done.gone;
            sum.unknown += done.unknown;
        }
        Ok(sum)
    }

    /// Prints what was done; fails where not all of it was.
    fn tell(&self, done: Redriven, what: &str) -> Result<(), CliError> {
        match self.relay.output {
            Output::Json => output::json(&done)?,
            Output::Text => output::line(&text(done, what))?,
        }
        if done.unknown > 0 {
            eprintln!(
                "ids are those of the messages, as `tidemill dead list {} {}` prints them first (`metadata.dead_letter.message_id` of the letters), not of the letters",
                self.topic, self.group
            );
        }
        if done.unknown + done.gone == 0 { Ok(()) } else { Err(CliError::Told) }
    }
}

/// Returns what was done, for people.
fn text(done: Redriven, what: &str) -> String {
    let copies = (done.copies > 0).then(|| format!(", {} as copies", done.copies));
    let unknown = match done.unknown {
        0 => None,
        1 => Some(", 1 is no dead letter".to_owned()),
        count => Some(format!(", {count} are no dead letters")),
    };
    let gone = match done.gone {
        0 => None,
        1 => Some(", 1 is gone, and its letter, too".to_owned()),
        count => Some(format!(", {count} are gone, and their letters, too")),
    };
    format!(
        "{} {what}{}{}{}",
        done.messages,
        copies.unwrap_or_default(),
        gone.unwrap_or_default(),
        unknown.unwrap_or_default()
    )
}

async fn list(
    client: &Client,
    (topic, group): (&TopicName, &GroupName),
    limit: u64,
    form: Output,
) -> Result<(), CliError> {
    let letters = fetch(client, topic, group).await?.settings.dead_letter;
    let (mut left, mut cursor) = (limit, None);
    let mut rows = vec![["ID", "DIED", "DELIVERIES", "REASON", "ERROR"].map(str::to_owned)];
    while left > 0 {
        let Some(answer) = page(client, &letters, cursor).await? else { break };
        let page: RawPage<'_> = client.read(&answer)?;
        for raw in page.messages {
            let message: Message = client.read_part(raw.get())?;
            let metadata = message.metadata.as_deref().map(RawValue::get);
            let origin = metadata.and_then(|json| serde_json::from_str::<Metadata>(json).ok()?.dead_letter);
            // Groups can share a topic of dead letters, and anybody who may can publish there.
            let is_its = |origin: &Origin| origin.topic == topic.as_str() && origin.group == group.as_str();
            let Some(origin) = origin.filter(is_its) else { continue };
            match form {
                Output::Json => output::line(&output::one_line(raw.get()))?,
                Output::Text => rows.push(row(origin)),
            }
            left -= 1;
            if left == 0 {
                break;
            }
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    match form {
        Output::Json => Ok(()),
        Output::Text => output::line(&output::table(&rows)),
    }
}

/// Returns a page of dead letters, the newest first; none where the topic was not made yet.
async fn page(
    client: &Client,
    letters: &TopicName,
    cursor: Option<MessageId>,
) -> Result<Option<Answer>, CliError> {
    let path = ["api", "v1", "topics", letters.as_str(), "messages"];
    let request = client.request(Method::GET, &path).query(&[("order", "desc")]);
    let request = request.query(&[("limit", PAGE_MESSAGES_MAX)]);
    let cursor = cursor.map(|cursor| ("cursor", cursor.to_string()));
    match client.send(request.query(cursor.as_slice())).await.map_err(CliError::from) {
        Ok(answer) => Ok(Some(answer)),
        Err(CliError::Problem(problem)) if problem.code == Code::TopicNotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn row(origin: Origin) -> [String; 5] {
    let or_dash = |text: Option<String>| text.map_or("-".to_owned(), |text| output::printable(&text));
    [
        output::printable(&origin.message_id),
        or_dash(origin.died_at),
        or_dash(origin.deliveries.map(|deliveries| deliveries.to_string())),
        or_dash(origin.reason),
        or_dash(origin.error),
    ]
}
