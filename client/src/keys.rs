//! Keys of buckets over HTTP: one request each, sent once. It must not know when to ask again.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, ETAG, HeaderName, IF_MATCH, IF_NONE_MATCH, LINK};
use serde::Serialize;
use tidemill_proto::duration::Seconds;
use tidemill_proto::keys::{
    Key, KeyChange, KeyChanged, KeyChanges, KeyHistory, KeyIncrement, KeyIncremented, KeyTouch, KeysChanged,
};
use tidemill_proto::locks::Fence;
use tidemill_proto::{BucketName, Code, KeyName, MessageId, Timestamp, content_type};

use crate::connection::Connector;
use crate::error::ClientError;
use crate::http::{Answer, Http, Request};
use crate::key_watch::{KeyWatch, WatchScope};
use crate::work::text;

const FENCE: HeaderName = HeaderName::from_static("tidemill-fence");

/// What must be so of a key before it is changed; else the relay refuses with the code `precondition_failed`, and the
/// [`revision`](crate::Refusal::revision) that there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyCondition {
    /// Anything.
    #[default]
    Anything,
    /// It is not there.
    Absent,
    /// It is there.
    Present,
    /// It has this revision.
    Revision(MessageId),
}

/// How a key is changed.
#[derive(Clone, Debug, Default)]
pub struct ChangeOptions {
    /// What must be so before.
    pub condition: KeyCondition,
    /// What shows that the caller holds a lock; else the relay refuses with the code `fenced`.
    pub fence: Option<Fence>,
    /// Under which a repeat changes nothing, and has the first answer again.
    pub idempotency_key: Option<String>,
}

/// How a key is put.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// How it is changed.
    pub change: ChangeOptions,
    /// How long it lives; the time of its bucket, if `None`.
    pub ttl: Option<Duration>,
    /// How long its value is fresh; as long as it lives, if `None`.
    pub fresh: Option<Duration>,
    /// Whose it is.
    pub owner: Option<KeyName>,
}

/// Which keys of a bucket a page has.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// What their names begin with.
    pub prefix: String,
    /// The key behind which it begins.
    pub after: Option<KeyName>,
    /// Whether their values come with them. Such a page ends early where they weigh much.
    pub values: bool,
    /// Most keys, at most 1,000; 100 if `None`.
    pub limit: Option<usize>,
}

/// A page of keys, in the order of their names, as they were at one moment.
#[derive(Clone, Debug)]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<Key>,
    /// The `after` of the next page, if there is one.
    pub next: Option<KeyName>,
}

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// Its bytes, as they were put.
    pub bytes: Bytes,
    /// What they are.
    pub content_type: String,
    /// The change that they came with.
    pub revision: MessageId,
    /// When the key came to be.
    pub created_at: Timestamp,
    /// When it expires, if it does.
    pub expires_at: Option<Timestamp>,
    /// Whose it is, where its put has said so.
    pub owner: Option<KeyName>,
    /// Whether the value is not fresh any more.
    pub is_stale: bool,
}

/// Reads and changes keys of buckets, over HTTP. It keeps connections that it may use again; a clone shares them.
///
/// Each method is one request, sent once, but for [`watch`](Self::watch). One that ends as [`ClientError::NoAnswer`] may
/// have had its effect: it can be repeated under its idempotency key.
///
/// ```no_run
/// use tidemill_client::{ChangeOptions, Client, ClientOptions, KeyCondition, PutOptions};
/// use tidemill_client::proto::{BucketName, KeyName};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let keys = Client::new("http://127.0.0.1:8080", ClientOptions::default())?.keys()?;
/// let (flows, flow) = (BucketName::parse("flows")?, KeyName::parse("flow-7")?);
///
/// let put = keys.put_json(&flows, &flow, &["step", "one"], PutOptions::default()).await?;
/// // Only where nobody else has changed it meanwhile.
/// let condition = KeyCondition::Revision(put.revision);
/// let change = ChangeOptions { condition, ..ChangeOptions::default() };
/// keys.put_json(&flows, &flow, &["step", "two"], PutOptions { change, ..PutOptions::default() }).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct KeyClient {
    http: Http,
    connector: Connector,
}

impl KeyClient {
    pub(crate) fn new(connector: &Connector) -> Result<Self, ClientError> {
        let http = Http::new(&connector.address, &connector.options)?;
        Ok(Self { http, connector: connector.clone() })
    }

    /// Returns the value of a key; `None` where it is not there.
    ///
    /// # Errors
    /// As the relay refuses, above all with the code `damaged`, or no answer.
    pub async fn get(&self, bucket: &BucketName, key: &KeyName) -> Result<Option<KeyValue>, ClientError> {
        self.value(bucket, key, None).await
    }

    /// Returns the value that a key had with a revision; `None` where the bucket does not keep it.
    ///
    /// # Errors
    /// As those of [`get`](Self::get).
    pub async fn get_revision(
        &self,
        bucket: &BucketName,
        key: &KeyName,
        revision: MessageId,
    ) -> Result<Option<KeyValue>, ClientError> {
        self.value(bucket, key, Some(revision)).await
    }

    async fn value(
        &self,
        bucket: &BucketName,
        key: &KeyName,
        revision: Option<MessageId>,
    ) -> Result<Option<KeyValue>, ClientError> {
        let path = path_of(bucket, key);
        let request = Request::new(Method::GET, &path).query("revision", revision);
        let Some(answer) = there(self.http.send(request).await)? else { return Ok(None) };
        let time = |name| answer.header(name).and_then(|text| Timestamp::parse(text).ok());
        let tag = answer.header(ETAG.as_str()).map(|tag| tag.trim_matches('"'));
        let (Some(revision), Some(created_at)) =
            (tag.and_then(|tag| MessageId::parse(tag).ok()), time("tidemill-created-at"))
        else {
            return Err(self.http.not_a_relay("it has no revision, or no time".to_owned()));
        };
        Ok(Some(KeyValue {
            content_type: answer.header(CONTENT_TYPE.as_str()).unwrap_or(content_type::BYTES).to_owned(),
            revision,
            created_at,
            expires_at: time("tidemill-expires-at"),
            owner: answer.header("tidemill-owner").and_then(|text| KeyName::parse(text).ok()),
            is_stale: answer.header("tidemill-stale").is_some(),
            bytes: answer.body.into(),
        }))
    }

    /// Puts a key: any bytes, of this content type.
    ///
    /// # Errors
    /// As the relay refuses, above all with the codes `precondition_failed` and `fenced`, or no answer.
    pub async fn put(
        &self,
        bucket: &BucketName,
        key: &KeyName,
        content_type: &str,
        value: impl Into<Bytes>,
        options: PutOptions,
    ) -> Result<KeyChanged, ClientError> {
        let PutOptions { change, ttl, fresh, owner } = options;
        let path = path_of(bucket, key);
        let request = Request::new(Method::PUT, &path)
            .query("ttl", ttl.map(text))
            .query("fresh", fresh.map(text))
            .query("owner", owner)
            .body(content_type, value.into());
        self.http.ask(changing(request, &change)).await
    }

    /// Puts a key, as JSON.
    ///
    /// # Errors
    /// As those of [`put`](Self::put), or the value cannot be written as JSON.
    pub async fn put_json(
        &self,
        bucket: &BucketName,
        key: &KeyName,
        value: &(impl Serialize + ?Sized),
        options: PutOptions,
    ) -> Result<KeyChanged, ClientError> {
        let value = serde_json::to_vec(value).map_err(|cause| ClientError::Usage(cause.to_string()))?;
        self.put(bucket, key, content_type::JSON, value, options).await
    }

    /// Deletes a key; `None` where it was not there.
    ///
    /// # Errors
    /// As those of [`put`](Self::put).
    pub async fn delete(
        &self,
        bucket: &BucketName,
        key: &KeyName,
        options: ChangeOptions,
    ) -> Result<Option<KeyChanged>, ClientError> {
        let path = path_of(bucket, key);
        there(self.http.ask(changing(Request::new(Method::DELETE, &path), &options)).await)
    }

    /// Adds to the number that a key is; one that is not there is 0.
    ///
    /// # Errors
    /// As those of [`put`](Self::put), or with the code `conflict` where the number would leave its bounds, or the value
    /// is none.
    pub async fn increment(
        &self,
        bucket: &BucketName,
        key: &KeyName,
        increment: &KeyIncrement,
        options: ChangeOptions,
    ) -> Result<KeyIncremented, ClientError> {
        let path = path_to(bucket, key, "increment");
        self.http.ask(changing(Request::new(Method::POST, &path), &options).json(increment)?).await
    }

    /// Has a key live on for so long, or for the time of its bucket; nobody who watches is told. `None` where it is not
    /// there: it is never made.
    ///
    /// # Errors
    /// As the relay refuses, or no answer.
    pub async fn touch(
        &self,
        bucket: &BucketName,
        key: &KeyName,
        ttl: Option<Duration>,
    ) -> Result<Option<Key>, ClientError> {
        let path = path_to(bucket, key, "touch");
        let touch = KeyTouch { ttl: ttl.map(Seconds), wanted: None };
        there(self.http.ask(Request::new(Method::POST, &path).json(&touch)?).await)
    }

    /// Makes 1 to 100 changes, of a key each, or none of them. The condition of each stands in it, and not in the
    /// options.
    ///
    /// # Errors
    /// As those of [`put`](Self::put): [`field`](crate::Refusal::field) names the change, as in `changes[2]`.
    pub async fn change(
        &self,
        bucket: &BucketName,
        changes: Vec<KeyChange>,
        options: ChangeOptions,
    ) -> Result<KeysChanged, ClientError> {
        if options.condition != KeyCondition::Anything {
            let rule = "changes have conditions of their own; leave that of the options out";
            return Err(ClientError::Usage(rule.to_owned()));
        }
        let path = ["api", "v1", "keys", bucket.as_str()];
        let request = changing(Request::new(Method::POST, &path), &options);
        self.http.ask(request.json(&KeyChanges { changes })?).await
    }

    /// Returns a page of the keys of a bucket.
    ///
    /// # Errors
    /// As the relay refuses, or no answer.
    pub async fn list(&self, bucket: &BucketName, options: ListOptions) -> Result<KeyPage, ClientError> {
        let ListOptions { prefix, after, values, limit } = options;
        let path = ["api", "v1", "keys", bucket.as_str()];
        let request = Request::new(Method::GET, &path)
            .query("prefix", Some(prefix).filter(|prefix| !prefix.is_empty()))
            .query("after", after)
            .query("values", values.then_some(true))
            .query("limit", limit);
        let answer = self.http.send(request).await?;
        Ok(KeyPage { keys: self.http.read(&answer)?, next: next_of(&answer) })
    }

    /// Returns the revisions that are kept of a key, the newest first; `None` where it is not there.
    ///
    /// # Errors
    /// As the relay refuses, or no answer.
    pub async fn history(
        &self,
        bucket: &BucketName,
        key: &KeyName,
    ) -> Result<Option<KeyHistory>, ClientError> {
        let path = path_of(bucket, key);
        there(self.http.ask(Request::new(Method::GET, &path).query("view", Some("history"))).await)
    }

    /// Connects, and watches keys of a bucket, which need not exist: what there is, and every change from there on; or
    /// behind the `cursor` of an earlier watch of the same, what has changed since.
    ///
    /// # Errors
    /// No connection could be made now, or the relay refuses.
    pub async fn watch(
        &self,
        bucket: &BucketName,
        scope: WatchScope,
        cursor: Option<MessageId>,
    ) -> Result<KeyWatch, ClientError> {
        KeyWatch::begin(self.connector.clone(), bucket.clone(), scope, cursor).await
    }
}

fn path_of<'a>(bucket: &'a BucketName, key: &'a KeyName) -> [&'a str; 5] {
    ["api", "v1", "keys", bucket.as_str(), key.as_str()]
}

fn path_to<'a>(bucket: &'a BucketName, key: &'a KeyName, what: &'a str) -> [&'a str; 6] {
    ["api", "v1", "keys", bucket.as_str(), key.as_str(), what]
}

/// Adds what must be so before something is changed.
fn changing<'a>(request: Request<'a>, options: &ChangeOptions) -> Request<'a> {
    let ChangeOptions { condition, fence, idempotency_key } = options;
    let request = request.header(FENCE, fence.as_ref()).key(idempotency_key.as_deref());
    match condition {
        KeyCondition::Anything => request,
        KeyCondition::Absent => request.header(IF_NONE_MATCH, Some("*")),
        KeyCondition::Present => request.header(IF_MATCH, Some("*")),
        KeyCondition::Revision(revision) => request.header(IF_MATCH, Some(format_args!("\"{revision}\""))),
    }
}

/// Returns what is there.
fn there<T>(answer: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match answer {
        Ok(there) => Ok(Some(there)),
        Err(ClientError::Refused(refusal)) if refusal.code == Code::KeyNotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns behind which key the next page begins. No name has a character that is written in another way.
fn next_of(answer: &Answer) -> Option<KeyName> {
    let (target, _) = answer.header(LINK.as_str())?.strip_prefix('<')?.split_once('>')?;
    let (_, query) = target.split_once('?')?;
    let after = query.split('&').find_map(|part| part.strip_prefix("after="))?;
    KeyName::parse(after).ok()
}
