//! `tidemill buckets`: lists, shows, makes, changes and deletes buckets of keys.

use reqwest::Method;
use tidemill_proto::duration;
use tidemill_proto::duration::Seconds;
use tidemill_proto::keys::{AdaptiveTtl, Bucket, BucketUpdate, RevokeRequest, Revoked};
use tidemill_proto::{BucketName, KeyName};

use super::client::{Client, Relay};
use super::confirm::confirm;
use super::output::{self, Output};
use super::points::{count, number};
use super::{CliError, pages};
use crate::config::Environment;

const EXAMPLES: &str = "\
Examples:
  tidemill buckets                                      list all buckets
  tidemill buckets show sessions                        what it keeps, and how many keys it has
  tidemill buckets put sessions --ttl 30m --absolute-age 12h
  tidemill buckets put flows --history 10 --max-keys 100000
  tidemill buckets revoke sessions ann                  delete all keys whose owner is ann
  tidemill buckets delete flows --yes                   with all its keys";

/// The arguments of `tidemill buckets`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Buckets {
    #[command(subcommand)]
    action: Option<Action>,

    #[command(flatten)]
    relay: Relay,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List buckets
    List {
        #[command(flatten)]
        relay: Relay,
    },
    /// Show what a bucket keeps, and what it has
    Show {
        /// The bucket
        bucket: BucketName,
        #[command(flatten)]
        relay: Relay,
    },
    /// Make a bucket, or replace its settings; what is not named is as for a new one
    Put(Put),
    /// Delete all keys of an owner
    Revoke {
        /// The bucket
        bucket: BucketName,
        /// Whose keys
        owner: KeyName,
        #[command(flatten)]
        relay: Relay,
    },
    /// Delete a bucket with all its keys
    Delete {
        /// The bucket
        bucket: BucketName,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
        #[command(flatten)]
        relay: Relay,
    },
}

#[derive(Debug, clap::Args)]
struct Put {
    /// The bucket
    bucket: BucketName,
    /// Revisions that are kept of each key, with the current one, 1 to 64 [default: 1]
    #[arg(long, value_name = "COUNT", value_parser = number::<u32>)]
    history: Option<u32>,
    /// How long a key lives that is put without a time of its own, as in `30m` [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    ttl: Option<Seconds>,
    /// How long a key lives at most, from when it came to be, as in `12h`
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    absolute_age: Option<Seconds>,
    /// Most keys
    #[arg(long, value_name = "COUNT", value_parser = count)]
    max_keys: Option<u64>,
    /// Most bytes of values
    #[arg(long, value_name = "BYTES", value_parser = count)]
    max_bytes: Option<u64>,
    /// How long a key lives that is filled and was not read lately; each read adds as much
    #[arg(long, value_name = "DURATION", value_parser = seconds, requires = "adaptive_max")]
    adaptive_min: Option<Seconds>,
    /// How long a key lives at most that is filled, however often it is read
    #[arg(long, value_name = "DURATION", value_parser = seconds, requires = "adaptive_min")]
    adaptive_max: Option<Seconds>,
    #[command(flatten)]
    relay: Relay,
}

/// Reads a duration.
pub(super) fn seconds(text: &str) -> Result<Seconds, String> {
    duration::parse(text).map(Seconds).map_err(|_| {
        "write seconds, or a number with a unit (`ms`, `s`, `m`, `h`, `d`), as in `30m`".to_owned()
    })
}

fn path(bucket: &BucketName) -> [&str; 4] {
    ["api", "v1", "buckets", bucket.as_str()]
}

async fn fetch(client: &Client, bucket: &BucketName) -> Result<Bucket, CliError> {
    client.read(&client.send(client.request(Method::GET, &path(bucket))).await?)
}

impl Buckets {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        match self.action {
            None => list(&self.relay, environment).await,
            Some(Action::List { relay }) => list(&relay, environment).await,
            Some(Action::Show { bucket, relay }) => {
                let bucket = fetch(&relay.client(environment)?, &bucket).await?;
                show(&bucket, relay.output)
            }
            Some(Action::Put(put)) => put.run(environment).await,
            Some(Action::Revoke { bucket, owner, relay }) => {
                let client = relay.client(environment)?;
                let path = ["api", "v1", "buckets", bucket.as_str(), "revoke"];
                let request = client.request(Method::POST, &path).json(&RevokeRequest { owner });
                let revoked: Revoked = client.read(&client.send(request).await?)?;
                match relay.output {
                    Output::Json => output::json(&revoked),
                    Output::Text => output::line(&format!("revoked {}", revoked.revoked)),
                }
            }
            Some(Action::Delete { bucket, yes, relay }) => {
                let client = relay.client(environment)?;
                let question = async {
                    let detail = fetch(&client, &bucket).await?;
                    Ok(format!("Delete {bucket} with its {}?", output::counted(detail.keys, "key")))
                };
                if !yes && !confirm("deleting a bucket deletes its keys", question).await? {
                    return Ok(());
                }
                client.send(client.request(Method::DELETE, &path(&bucket))).await?;
                match relay.output {
                    Output::Json => output::json(&serde_json::json!({ "deleted": bucket })),
                    Output::Text => output::line(&format!("deleted {bucket}")),
                }
            }
        }
    }
}

impl Put {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let Self {
            bucket,
            history,
            ttl,
            absolute_age,
            max_keys,
            max_bytes,
            adaptive_min,
            adaptive_max,
            relay,
        } = self;
        let client = relay.client(environment)?;
        let adaptive_ttl = adaptive_min.zip(adaptive_max).map(|(min, max)| AdaptiveTtl { min, max });
        let body = BucketUpdate { history, ttl, absolute_age, max_keys, max_bytes, adaptive_ttl };
        let answer = client.send(client.request(Method::PUT, &path(&bucket)).json(&body)).await?;
        let bucket: Bucket = client.read(&answer)?;
        let done = if answer.status == 201 { "made" } else { "changed" };
        match relay.output {
            Output::Json => output::json(&bucket),
            Output::Text => output::line(&format!("{done} {}", bucket.bucket)),
        }
    }
}

async fn list(relay: &Relay, environment: &Environment) -> Result<(), CliError> {
    let client = relay.client(environment)?;
    let heading = ["BUCKET", "KEYS", "BYTES", "HISTORY", "TTL", "CREATED"];
    let first = client.request(Method::GET, &["api", "v1", "buckets"]);
    pages::list(&client, first, relay.output, heading, row).await
}

fn row(bucket: &Bucket) -> [String; 6] {
    [
        bucket.bucket.to_string(),
        bucket.keys.to_string(),
        bucket.bytes.to_string(),
        bucket.history.to_string(),
        time(bucket.ttl),
        bucket.created_at.to_string(),
    ]
}

fn time(time: Option<Seconds>) -> String {
    time.map_or_else(|| "-".to_owned(), |Seconds(time)| format!("{} s", time.as_secs_f64()))
}

fn show(bucket: &Bucket, form: Output) -> Result<(), CliError> {
    if form == Output::Json {
        return output::json(bucket);
    }
    let or_dash = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let adaptive = bucket.adaptive_ttl.map_or_else(
        || "-".to_owned(),
        |AdaptiveTtl { min, max }| format!("{} to {}", time(Some(min)), time(Some(max))),
    );
    let rows = [
        ("bucket", bucket.bucket.to_string()),
        ("created", bucket.created_at.to_string()),
        ("keys", bucket.keys.to_string()),
        ("bytes", bucket.bytes.to_string()),
        ("history", bucket.history.to_string()),
        ("ttl", time(bucket.ttl)),
        ("absolute age", time(bucket.absolute_age)),
        ("most keys", or_dash(bucket.max_keys)),
        ("most bytes", or_dash(bucket.max_bytes)),
        ("adaptive ttl", adaptive),
    ];
    output::line(&output::table(&rows.map(|(name, value)| [name.to_owned(), value])))
}
