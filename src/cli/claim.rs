//! `tidemill claim`: messages of a group, for scripts that settle them with `tidemill ack` and its like.

use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use tidemill_proto::work::{ClaimId, ClaimRequest, ConsumerName, Delivered, GroupName};
use tidemill_proto::{TopicName, duration};

use super::CliError;
use super::client::Relay;
use super::groups::advised;
use super::output::{self, Output};
use super::points::span;
use crate::config::Environment;

const EXAMPLES: &str = "\
Examples:
  tidemill claim jobs workers --consumer me              one message, if there is one
  tidemill claim jobs workers --consumer me --max 10 --wait 30s
  tidemill claim jobs workers --consumer me -o json | jq -r .receipt | xargs -r tidemill ack

Text prints receipt, delivery, deadline and payload. The receipt is what settles the message: with
`tidemill ack`, `nack`, `extend`, `reject` or `release`. Without one it comes again after its
deadline. `tidemill work` does all of that for a command.";

/// The arguments of `tidemill claim`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Claim {
    /// The topic
    topic: TopicName,

    /// The group
    #[arg(value_parser = GroupName::parse)]
    group: GroupName,

    /// Who claims; each process has a name of its own
    #[arg(long, value_name = "NAME", value_parser = ConsumerName::parse)]
    consumer: ConsumerName,

    /// Most messages
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
    max: u32,

    /// How long to wait where there is none, at most 60s
    #[arg(long, value_name = "DURATION", value_parser = wait)]
    wait: Option<String>,

    /// By which the same claim can be repeated where its answer was lost
    #[arg(long, value_name = "ID", value_parser = ClaimId::parse)]
    claim_id: Option<ClaimId>,

    #[command(flatten)]
    relay: Relay,
}

/// What was claimed, as it was written.
#[derive(Deserialize)]
struct RawWork<'a> {
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
}

/// Longest wait, as the relay takes it.
const WAIT_MAX: Duration = Duration::from_mins(1);
/// How long the request may take beyond that.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// Reads a wait that the relay takes.
fn wait(text: &str) -> Result<String, String> {
    let text = span(text)?;
    let is_short = duration::parse(&text).is_ok_and(|wait| wait <= WAIT_MAX);
    if is_short { Ok(text) } else { Err("write at most `60s`, and claim again".to_owned()) }
}

impl Claim {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.relay.client(environment)?;
        let body = ClaimRequest {
            consumer: self.consumer,
            max: Some(self.max),
            wait: self.wait,
            claim_id: self.claim_id.map(|id| id.to_string()),
        };
        let path = ["api", "v1", "topics", self.topic.as_str(), "groups", self.group.as_str(), "claim"];
        let answer = client
            .send(client.request(Method::POST, &path).timeout(WAIT_MAX + ANSWERED_WITHIN).json(&body))
            .await;
        let answer = answer.map_err(|refusal| advised(refusal.into(), &self.topic, &self.group))?;
        let work: RawWork<'_> = client.read(&answer)?;
        for raw in work.messages {
            if self.relay.output == Output::Json {
                output::line(&output::one_line(raw.get()))?;
                continue;
            }
            let Delivered { message, receipt, delivery, deadline, cancelled } =
                client.read_part(raw.get())?;
            let payload = message.payload_bytes().unwrap_or_default();
            let payload = output::payload(&payload, message.content_type.as_deref());
            let cancelled = cancelled.map(|reason| format!("(cancelled: {}) ", output::printable(&reason)));
            let cancelled = cancelled.unwrap_or_default();
            output::line(&format!("{receipt}  {delivery}  {deadline}  {cancelled}{payload}"))?;
        }
        Ok(())
    }
}
