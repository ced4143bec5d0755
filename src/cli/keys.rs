//! `tidemill keys`: gets, puts, deletes, lists, watches and counts keys of buckets.

use std::io::{self, IsTerminal as _, Read as _};
use std::path::PathBuf;

use reqwest::header::{CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH};
use reqwest::{Method, RequestBuilder};
use serde_json::value::RawValue;
use tidemill_proto::duration::Seconds;
use tidemill_proto::keys::{Key, KeyChanged, KeyHistory, KeyIncrement, KeyIncremented, KeyRef, KeyTouch};
use tidemill_proto::leases::LeaseId;
use tidemill_proto::limits::KEYS_PAGE_MAX;
use tidemill_proto::locks::Fence;
use tidemill_proto::payload::{MemberNames, PayloadMembers};
use tidemill_proto::{BucketName, KeyName, MessageId, PayloadRef, Timestamp, content_type};

use super::CliError;
use super::buckets::seconds;
use super::client::{Answer, Client, Relay};
use super::output::{self, Output};
use super::points::span;
use super::publish::FENCE;
use super::watch::{DAMAGED, Watched};
use crate::config::Environment;

const EXAMPLES: &str = "\
Examples:
  tidemill keys put flows flow-7 '{\"step\": 3}'             prints the revision
  tidemill keys get flows flow-7                           the value, byte for byte
  tidemill keys put flows flow-7 '{\"step\": 4}' --if-match 1517363399650-0
  tidemill keys put flows flow-8 '{\"step\": 1}' --if-absent --ttl 1h
  tidemill keys put flows flow-7 '{\"step\": 5}' --fence nightly=1517363399650-1
  tidemill keys put pictures tide --file tide.png --content-type image/png
  tidemill keys list flows --prefix flow- --values
  tidemill keys watch flows --prefix flow-                 what there is, and what changes
  tidemill keys increment flows started
  tidemill keys history flows flow-7                       as far as the bucket keeps it
  tidemill keys touch sessions 9f86d081 --ttl 30m          lives on, and nobody is told
  tidemill keys delete flows flow-7

A condition that does not hold is an error that names the revision that there is, and nothing is
changed.";

/// The arguments of `tidemill keys`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Keys {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Print the value of a key, byte for byte
    Get {
        #[command(flatten)]
        of: Of,
        /// The value that it had with this revision, where the bucket keeps it
        #[arg(long, value_name = "REVISION")]
        revision: Option<MessageId>,
        #[command(flatten)]
        relay: Relay,
    },
    /// Put a key, and print its revision
    ///
    /// The value is the argument, a file, or else standard input as a whole. With -o json the answer says when the key
    /// expires, too.
    Put(Box<Put>),
    /// Delete a key
    Delete {
        #[command(flatten)]
        of: Of,
        /// Only where it has this revision
        #[arg(long, value_name = "REVISION")]
        if_match: Option<MessageId>,
        /// Only as long as this is the fence of who holds the lock, as in `nightly=1517363399650-0`
        #[arg(long, value_name = "LOCK=FENCE", value_parser = Fence::parse)]
        fence: Option<Fence>,
        #[command(flatten)]
        relay: Relay,
    },
    /// List the keys of a bucket
    List {
        /// The bucket
        bucket: BucketName,
        /// Only keys that begin so
        #[arg(long, value_name = "TEXT")]
        prefix: Option<String>,
        /// Print their values, too
        #[arg(long)]
        values: bool,
        #[command(flatten)]
        relay: Relay,
    },
    /// Print the keys of a bucket, and every change from there on
    ///
    /// Connects again by itself and goes on where it was. Where changes are gone before they could be read, it says so and
    /// prints everything anew. With -o json each line is a frame as the relay sends it: at `synced`, what was not named
    /// since the begin, or since `reset`, is gone. Ctrl-C ends, and tells how to go on later.
    Watch(Watch),
    /// List the revisions of a key that the bucket keeps, the newest first
    History {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        relay: Relay,
    },
    /// Add to the number that a key is, and print it
    Increment(Increment),
    /// Have a key live on, without a revision
    Touch {
        #[command(flatten)]
        of: Of,
        /// For how long from now on, as in `30m` [default: the bucket's time]
        #[arg(long, value_name = "DURATION", value_parser = seconds)]
        ttl: Option<Seconds>,
        #[command(flatten)]
        relay: Relay,
    },
}

/// Which key.
#[derive(Debug, clap::Args)]
struct Of {
    /// The bucket
    bucket: BucketName,
    /// The key
    key: KeyName,
}

impl Of {
    fn path(&self) -> Vec<&str> {
        vec!["api", "v1", "keys", self.bucket.as_str(), self.key.as_str()]
    }

    fn path_to(&self, what: &'static str) -> Vec<&str> {
        let mut path = self.path();
        path.push(what);
        path
    }
}

#[derive(Debug, clap::Args)]
struct Put {
    #[command(flatten)]
    of: Of,
    /// The value, as JSON
    #[arg(allow_negative_numbers = true)]
    value: Option<String>,
    /// Take the value as text, and keep it as `text/plain`
    #[arg(long, short, conflicts_with = "content_type")]
    text: bool,
    /// Put what this file holds
    #[arg(long, short, value_name = "PATH", conflicts_with = "value")]
    file: Option<PathBuf>,
    /// Put the value as bytes of this type, not as JSON
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// How long the key lives, as in `30m` [default: the bucket's time]
    #[arg(long, value_name = "DURATION", value_parser = span)]
    ttl: Option<String>,
    /// How long the value is fresh, as in `30s` [default: as long as the key lives]
    #[arg(long, value_name = "DURATION", value_parser = span)]
    fresh: Option<String>,
    /// The lease that keeps the key, as `tidemill leases create` prints it
    #[arg(long, conflicts_with = "ttl", value_parser = LeaseId::parse)]
    lease: Option<LeaseId>,
    /// Whose the key is
    #[arg(long, value_name = "OWNER")]
    owner: Option<KeyName>,
    /// Only where the key has this revision
    #[arg(long, value_name = "REVISION")]
    if_match: Option<MessageId>,
    /// Only where the key is not there
    #[arg(long, conflicts_with = "if_match")]
    if_absent: bool,
    /// The idempotency key: putting the same again under it within ten minutes changes nothing
    #[arg(long = "key", value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Only as long as this is the fence of who holds the lock, as in `nightly=1517363399650-0`
    #[arg(long, value_name = "LOCK=FENCE", value_parser = Fence::parse)]
    fence: Option<Fence>,
    #[command(flatten)]
    relay: Relay,
}

#[derive(Debug, clap::Args)]
struct Watch {
    /// The bucket; one that does not exist yet is waited for
    bucket: BucketName,
    /// Only keys that begin so
    #[arg(long, value_name = "TEXT", conflicts_with = "key")]
    prefix: Option<String>,
    /// Only this key
    #[arg(long, value_name = "KEY")]
    key: Option<KeyName>,
    /// Go on behind this change, without what there is
    #[arg(long, value_name = "REVISION")]
    after: Option<MessageId>,
    #[command(flatten)]
    relay: Relay,
}

#[derive(Debug, clap::Args)]
struct Increment {
    #[command(flatten)]
    of: Of,
    /// How much more, or less
    #[arg(default_value = "1", allow_negative_numbers = true)]
    by: i64,
    /// It is refused where less would come out
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    min: Option<i64>,
    /// It is refused where more would come out
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    max: Option<i64>,
    /// How long a key lives that comes to be with it, as in `1d`
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    ttl: Option<Seconds>,
    #[command(flatten)]
    relay: Relay,
}

impl Keys {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        match self.action {
            Action::Get { of, revision, relay } => {
                let client = relay.client(environment)?;
                let revision = revision.map(|revision| ("revision", revision.to_string()));
                let request = client.request(Method::GET, &of.path()).query(revision.as_slice());
                print_value(&client, &of, &client.send(request).await?, relay.output)
            }
            Action::Put(put) => put.run(environment).await,
            Action::Delete { of, if_match, fence, relay } => {
                let client = relay.client(environment)?;
                let request = matching(client.request(Method::DELETE, &of.path()), if_match);
                let request = fenced(request, fence.as_ref());
                let deleted: KeyChanged = client.read(&client.send(request).await?)?;
                match relay.output {
                    Output::Json => output::json(&deleted),
                    Output::Text => output::line(&format!("deleted {}", deleted.key)),
                }
            }
            Action::List { bucket, prefix, values, relay } => {
                list(&relay, environment, &bucket, prefix, values).await
            }
            Action::Watch(watch) => watch.run(environment).await,
            Action::History { of, relay } => {
                let client = relay.client(environment)?;
                let request = client.request(Method::GET, &of.path()).query(&[("view", "history")]);
                let history: KeyHistory = client.read(&client.send(request).await?)?;
                print_keys(&history.revisions, true, &mut Some(()), relay.output)
            }
            Action::Increment(increment) => increment.run(environment).await,
            Action::Touch { of, ttl, relay } => {
                let client = relay.client(environment)?;
                let request = client.request(Method::POST, &of.path_to("touch"));
                let answer = client.send(request.json(&KeyTouch { ttl, wanted: None })).await?;
                let key: Key = client.read(&answer)?;
                match (relay.output, key.expires_at) {
                    (Output::Json, _) => output::json(&key),
                    (Output::Text, Some(at)) => output::line(&format!("{} lives until {at}", key.key)),
                    (Output::Text, None) => output::line(&format!("{} lives on for ever", key.key)),
                }
            }
        }
    }
}

impl Watch {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let Self { bucket, prefix, key, after, relay } = self;
        let path = ["api", "v1", "keys", bucket.as_str()];
        let mut query = Vec::new();
        query.extend(prefix.map(|prefix| ("prefix", prefix)));
        query.extend(key.map(|key| ("key", key.to_string())));
        let again = |(name, value): &(&str, String)| format!("--{name}={}", output::quoted(value));
        let words = ["tidemill keys watch".to_owned(), bucket.to_string()].into_iter();
        let again = words.chain(query.iter().map(again)).collect();
        Watched { path: &path, query, after, again }.follow(&relay, environment).await
    }
}

impl Put {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.relay.client(environment)?;
        let bytes = self.read()?;
        let kind = match &self.content_type {
            Some(kind) => kind.clone(),
            None if self.text => content_type::TEXT.to_owned(),
            None => {
                // Told here, with what to write instead.
                serde_json::from_slice::<&RawValue>(&bytes).map_err(|error| {
                    let hint = "write it with --text as text, or name its --content-type";
                    CliError::Usage(format!("the value is not JSON ({error}); {hint}"))
                })?;
                content_type::JSON.to_owned()
            }
        };
        let mut request = client.request(Method::PUT, &self.of.path()).header(CONTENT_TYPE, kind).body(bytes);
        if let Some(ttl) = &self.ttl {
            request = request.query(&[("ttl", ttl)]);
        }
        if let Some(fresh) = &self.fresh {
            request = request.query(&[("fresh", fresh)]);
        }
        if let Some(lease) = &self.lease {
            request = request.query(&[("lease", lease)]);
        }
        if let Some(owner) = &self.owner {
            request = request.query(&[("owner", owner.as_str())]);
        }
        if let Some(key) = &self.idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        if self.if_absent {
            request = request.header(IF_NONE_MATCH, "*");
        }
        let request = fenced(matching(request, self.if_match), self.fence.as_ref());
        let answer = client.send(request).await?;
        let put: KeyChanged = client.read(&answer)?;
        match self.relay.output {
            Output::Json => output::json(&put),
            Output::Text => output::line(&put.revision.to_string()),
        }
    }

    /// Reads the value.
    fn read(&self) -> Result<Vec<u8>, CliError> {
        if let Some(value) = &self.value {
            return Ok(value.as_bytes().to_vec());
        }
        if let Some(path) = &self.file {
            let name = path.display();
            return std::fs::read(path)
                .map_err(|cause| CliError::Usage(format!("the file {name} cannot be read: {cause}")));
        }
        if io::stdin().is_terminal() {
            let rule =
                "there is no value; write it as an argument, name a --file, or send it to standard input";
            return Err(CliError::Usage(rule.to_owned()));
        }
        let mut bytes = Vec::new();
        let read = io::stdin().lock().read_to_end(&mut bytes);
        read.map_err(|cause| CliError::Failed("cannot read standard input", cause.into()))?;
        Ok(bytes)
    }
}

impl Increment {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.relay.client(environment)?;
        let Self { of, by, min, max, ttl, relay } = self;
        let request = client.request(Method::POST, &of.path_to("increment"));
        let request = request.json(&KeyIncrement { by: Some(by), min, max, ttl });
        let told: KeyIncremented = client.read(&client.send(request).await?)?;
        match relay.output {
            Output::Json => output::json(&told),
            Output::Text => output::line(&told.value.to_string()),
        }
    }
}

fn matching(request: RequestBuilder, revision: Option<MessageId>) -> RequestBuilder {
    match revision {
        Some(revision) => request.header(IF_MATCH, format!("\"{revision}\"")),
        None => request,
    }
}

fn fenced(request: RequestBuilder, fence: Option<&Fence>) -> RequestBuilder {
    match fence {
        Some(fence) => request.header(FENCE, fence.to_string()),
        None => request,
    }
}

/// Prints a value as it is; as JSON with all that is known of its key.
fn print_value(client: &Client, of: &Of, answer: &Answer, form: Output) -> Result<(), CliError> {
    let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
    let kind = header(CONTENT_TYPE.as_str()).unwrap_or(content_type::BYTES);
    if form == Output::Text {
        output::bytes(&answer.body)?;
        // Where somebody looks at it, the prompt begins on a line of its own.
        let is_open = io::stdout().is_terminal() && !answer.body.ends_with(b"\n");
        return if is_open { output::line("") } else { Ok(()) };
    }
    let time = |name: &str| header(name).and_then(|text| Timestamp::parse(text).ok());
    let revision = header(ETAG.as_str()).and_then(|tag| MessageId::parse(tag.trim_matches('"')).ok());
    let (Some(revision), Some(created_at)) = (revision, time("tidemill-created-at")) else {
        return Err(client.no_key());
    };
    let owner = header("tidemill-owner").and_then(|text| KeyName::parse(text).ok());
    let content_type = (!content_type::is_plain_json(kind)).then_some(kind);
    let key = KeyRef {
        key: &of.key,
        revision,
        created_at,
        expires_at: time("tidemill-expires-at"),
        owner: owner.as_ref(),
        value: Some(PayloadRef { bytes: &answer.body, content_type }),
        damaged: false,
    };
    let mut out = Vec::new();
    key.write_json(&mut out);
    output::line(&output::one_line(&String::from_utf8_lossy(&out)))
}

/// Prints every page of a list.
async fn list(
    relay: &Relay,
    environment: &Environment,
    bucket: &BucketName,
    prefix: Option<String>,
    values: bool,
) -> Result<(), CliError> {
    let client = relay.client(environment)?;
    let mut request = client.request(Method::GET, &["api", "v1", "keys", bucket.as_str()]);
    request = request.query(&[("limit", KEYS_PAGE_MAX)]);
    if let Some(prefix) = prefix {
        request = request.query(&[("prefix", prefix)]);
    }
    if values {
        request = request.query(&[("values", "true")]);
    }
    let (mut answer, mut heading) = (client.send(request).await?, Some(()));
    loop {
        let keys: Vec<Key> = client.read(&answer)?;
        print_keys(&keys, values, &mut heading, relay.output)?;
        let Some(next) = answer.next else { return Ok(()) };
        answer = client.send(client.follow(&next)?).await?;
    }
}

/// Prints keys, as a table of its own width, or one a line; the heading stands over the first table.
fn print_keys(keys: &[Key], values: bool, heading: &mut Option<()>, form: Output) -> Result<(), CliError> {
    if form == Output::Json {
        return keys.iter().try_for_each(output::json);
    }
    let is_first = heading.take().is_some();
    if keys.is_empty() && !is_first {
        return Ok(());
    }
    let names = ["KEY", "REVISION", "EXPIRES", "OWNER", if values { "VALUE" } else { "" }];
    let heading = is_first.then(|| names.map(str::to_owned));
    let rows: Vec<_> = heading.into_iter().chain(keys.iter().map(row)).collect();
    output::line(&output::table(&rows))
}

fn row(key: &Key) -> [String; 5] {
    let members = PayloadMembers {
        json: key.value.as_deref(),
        text: key.value_text.as_deref().map(Into::into),
        base64: key.value_base64.as_deref().map(Into::into),
        content_type: key.content_type.as_deref().map(Into::into),
    };
    // Without values there is none, which is no mistake here.
    let value = members.read_as(MemberNames::VALUE).ok();
    let value = value.map(|value| output::payload(&value.bytes, value.content_type.as_deref()));
    [
        key.key.to_string(),
        key.revision.to_string(),
        key.expires_at.map_or_else(|| "-".to_owned(), |at| at.to_string()),
        key.owner.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
        value.unwrap_or_else(|| if key.damaged { DAMAGED.to_owned() } else { String::new() }),
    ]
}
