//! `tidemill read`: messages of a topic, as many pages of them as it takes.

use std::borrow::Cow;

use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use tidemill_proto::frame::{ServerFrame, json};
use tidemill_proto::json::with_blanks;
use tidemill_proto::limits::{PAGE_MESSAGES_DEFAULT, PAGE_MESSAGES_MAX};
use tidemill_proto::page::Order;
use tidemill_proto::payload::PayloadMembers;
use tidemill_proto::{Gap, Message, MessageId, TopicName};

use super::CliError;
use super::client::{Client, RelayFlags};
use super::latest;
use super::output::{self, Form};
use super::points::{count, point};
use crate::config::Environment;

const EXAMPLES: &str = "\
Examples:
  tidemill read orders                               the newest ten, newest first
  tidemill read orders --limit 100 --order asc       the oldest hundred
  tidemill read orders --after=-10m --all            everything of the last ten minutes
  tidemill read orders --after 1517363399650-0       what came after a message
  tidemill read pumps --latest --all                 of each key its latest message
  tidemill read orders --all -o json > orders.ndjson every message, as the relay serves it
  tidemill read pictures -n 1 -o raw > tide.png      the payload alone, byte for byte

With -o raw a line end follows a payload of JSON, and nothing else. With -o json line breaks inside
of a payload are blanks.

Where messages after --after or --cursor are gone before they could be read, standard error says
so, and with -o json a line `{\"type\":\"gap\",…}` stands in their place.";

/// The arguments of `tidemill read`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Read {
    /// The topic
    topic: TopicName,

    /// How many messages to read at most [default: 10]
    #[arg(long, short = 'n', value_name = "COUNT", value_parser = count, conflicts_with = "all")]
    limit: Option<u64>,

    /// Read to the end
    #[arg(long)]
    all: bool,

    /// asc is oldest first, desc newest first [default: asc with --after, --all or --latest, else desc]
    #[arg(long, value_name = "ORDER")]
    order: Option<Order>,

    /// Read forward from after this: a message id, `earliest`, `latest`, an RFC 3339 time, or a time
    /// ago (`-10m`)
    #[arg(long, value_name = "POINT", allow_hyphen_values = true, value_parser = point)]
    #[arg(conflicts_with = "cursor")]
    after: Option<String>,

    /// Go on from the `next_cursor` of an earlier page, in its order
    #[arg(long, value_name = "ID")]
    cursor: Option<MessageId>,

    /// Of a topic with `compact_by`: the latest message of each key, oldest first, with the key in front
    /// of its payload
    #[arg(long, conflicts_with = "order")]
    latest: bool,

    /// The form of what is printed
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    output: Form,

    #[command(flatten)]
    target: RelayFlags,
}

/// A page whose messages stay as they were written.
#[derive(Deserialize)]
struct RawPage<'a> {
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
    next_cursor: Option<MessageId>,
    #[serde(default)]
    gap: Option<Gap>,
}

/// The payload of a message, as it was written.
#[derive(Deserialize)]
struct RawPayload<'a> {
    #[serde(borrow, default, deserialize_with = "tidemill_proto::json::present")]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default)]
    payload_text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    payload_base64: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    content_type: Option<Cow<'a, str>>,
}

impl Read {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        if self.after.is_some() && self.order == Some(Order::Desc) {
            let rule = "--after reads forward; leave out --order desc, or name the place with --cursor";
            return Err(CliError::Usage(rule.to_owned()));
        }
        let client = self.target.client(environment)?;
        let has_keys = self.latest && self.output == Form::Text;
        let field = if has_keys { latest::field_of(&client, &self.topic).await } else { None };
        let forward = self.after.is_some() || self.all || self.latest;
        let order = self.order.unwrap_or(if forward { Order::Asc } else { Order::Desc });
        let mut left = if self.all { u64::MAX } else { self.limit.unwrap_or(PAGE_MESSAGES_DEFAULT as u64) };
        let mut start = match (&self.after, self.cursor) {
            (Some(after), _) => Some(("after", after.clone())),
            (None, cursor) => cursor.map(|id| ("cursor", id.to_string())),
        };
        while left > 0 {
            let limit = left.min(PAGE_MESSAGES_MAX as u64);
            let (count, next) = self.page(&client, limit, order, (start.as_ref(), field.as_deref())).await?;
            left = left.saturating_sub(count);
            let Some(next) = next else { break };
            start = Some(("cursor", next.to_string()));
            // Who asks for the newest so many does not look for the end.
            if left == 0 && (order == Order::Asc || self.limit.is_none()) {
                self.note_more(&client, order, next).await?;
            }
        }
        Ok(())
    }

    /// Tells that there is more behind the last message, if there is.
    async fn note_more(&self, client: &Client, order: Order, next: MessageId) -> Result<(), CliError> {
        let path = ["api", "v1", "topics", self.topic.as_str(), "messages"];
        let mut query =
            vec![("limit", "1".to_owned()), ("order", order.to_string()), ("cursor", next.to_string())];
        query.extend(self.view());
        let answer = client.send(client.request(Method::GET, &path).query(&query)).await?;
        let page: RawPage<'_> = client.read(&answer)?;
        if page.messages.is_empty() {
            return Ok(());
        }
        match order {
            Order::Asc if self.latest => eprintln!("more follow; add --all, or go on with --cursor {next}"),
            Order::Asc => eprintln!("more follow; add --all, or go on with --after {next}"),
            Order::Desc => eprintln!(
                "older ones follow; go on with --cursor {next}, or read all, oldest first, with --all"
            ),
        }
        Ok(())
    }

    fn view(&self) -> Option<(&'static str, String)> {
        self.latest.then(|| ("view", "latest".to_owned()))
    }

    /// Prints one page, and returns how many messages it had and where the next one starts.
    async fn page(
        &self,
        client: &Client,
        limit: u64,
        order: Order,
        (start, field): (Option<&(&str, String)>, Option<&str>),
    ) -> Result<(u64, Option<MessageId>), CliError> {
        let path = ["api", "v1", "topics", self.topic.as_str(), "messages"];
        let mut query = vec![("limit", limit.to_string()), ("order", order.to_string())];
        query.extend(start.cloned());
        query.extend(self.view());
        let answer = client.send(client.request(Method::GET, &path).query(&query)).await?;
        let page: RawPage<'_> = client.read(&answer)?;
        if let Some(gap) = &page.gap {
            self.gap(gap)?;
        }
        for message in &page.messages {
            match self.output {
                Form::Json => output::line(&output::one_line(message.get()))?,
                Form::Text => output::line(&text(&client.read_part(message.get())?, field))?,
                Form::Raw => raw(client, message.get())?,
            }
        }
        Ok((page.messages.len() as u64, page.next_cursor))
    }

    /// Tells people of a gap, and programs in its place among the messages.
    fn gap(&self, gap: &Gap) -> Result<(), CliError> {
        eprintln!("{}", output::gap(gap));
        if self.output != Form::Json {
            return Ok(());
        }
        let mut frame = Vec::new();
        json::write(&ServerFrame::Gap(gap.clone()), &mut frame);
        output::line(&String::from_utf8_lossy(&frame))
    }
}

/// Prints the payload of a message alone: JSON with a line end behind it, other bytes as they are.
fn raw(client: &Client, message: &str) -> Result<(), CliError> {
    let RawPayload { payload, payload_text, payload_base64, content_type } = client.read_part(message)?;
    if let Some(json) = payload {
        return output::line(with_blanks(message, json.get()));
    }
    let members = PayloadMembers { json: None, text: payload_text, base64: payload_base64, content_type };
    output::bytes(&members.read().map_err(CliError::Problem)?.bytes)
}

/// Returns a message as a line for people, with its key where that is known to be in a field.
fn text(message: &Message, field: Option<&str>) -> String {
    let payload = message.payload_bytes().unwrap_or_default();
    let payload = output::payload(&payload, message.content_type.as_deref());
    let metadata = message.metadata.as_ref().map(|metadata| metadata.get().as_bytes());
    let key = latest::shown(field, metadata);
    format!("{}  {}  {key}{payload}", message.message_id, message.timestamp)
}
