//! Work over HTTP: groups, claims, and what is said of messages that were claimed. One request each, sent once: it must
//! not know when to ask again.

use std::time::Duration;

use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tidemill_proto::work::{
    ClaimRequest, Delivered, GroupDetail, GroupName, GroupUpdate, MessageState, SettleRequest, Settled,
    SettledAll, Work,
};
use tidemill_proto::{MessageId, TopicName, duration};

use crate::connection::Connector;
use crate::error::ClientError;
use crate::http::{Http, Request};
use crate::options::ClientOptions;

/// What is said of messages that a consumer has, for good.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// They are done.
    Ack {
        /// What came of it: any JSON value of at most 64 KiB, kept for as long as the group says.
        result: Option<Box<RawValue>>,
    },
    /// They have failed, and come again.
    Nack {
        /// When; by the backoff of the group if absent.
        delay: Option<Duration>,
        /// What went wrong. Of more than 1,024 bytes the first are kept.
        error: Option<String>,
    },
    /// They are dead letters.
    Reject {
        /// Why.
        reason: String,
    },
    /// They are given back: they can be claimed at once, and have not failed.
    Release,
}

/// Works on the messages of groups, over HTTP. It keeps connections that it may use again; a clone shares them.
///
/// Each method is one request, sent once. One that ends as [`ClientError::NoAnswer`] may have had its effect. A claim
/// can be repeated under its `claim_id`; of a message that was settled already, [`Settled`] says so.
#[derive(Clone, Debug)]
pub struct WorkClient {
    http: Http,
    pub(crate) options: ClientOptions,
}

impl WorkClient {
    pub(crate) fn new(connector: &Connector) -> Result<Self, ClientError> {
        let options = connector.options.clone();
        Ok(Self { http: Http::new(&connector.address, &options)?, options })
    }

    /// Returns the error of a request that was given up.
    pub(crate) fn took_too_long(&self) -> ClientError {
        self.http.no_answer("it took too long".to_owned())
    }

    /// Makes a group, or replaces the settings of the one there is. The topic is made if it is not there.
    ///
    /// # Errors
    /// As the relay refuses, or no answer.
    pub async fn put_group(
        &self,
        topic: &TopicName,
        group: &GroupName,
        settings: &GroupUpdate,
    ) -> Result<GroupDetail, ClientError> {
        let path = ["api", "v1", "topics", topic.as_str(), "groups", group.as_str()];
        self.send(Method::PUT, &path, settings, Duration::ZERO).await
    }

    /// Returns a group, with its settings and what it has.
    ///
    /// # Errors
    /// As the relay refuses, above all where there is no such group, or no answer.
    pub async fn group(&self, topic: &TopicName, group: &GroupName) -> Result<GroupDetail, ClientError> {
        let path = ["api", "v1", "topics", topic.as_str(), "groups", group.as_str()];
        self.get(&path, None, Duration::ZERO).await
    }

    /// Claims messages, none where there were none in time.
    ///
    /// # Errors
    /// As the relay refuses, or no answer. Repeat a claim whose answer was lost under the same `claim_id`.
    pub async fn claim(
        &self,
        topic: &TopicName,
        group: &GroupName,
        claim: &ClaimRequest,
    ) -> Result<Vec<Delivered>, ClientError> {
        let path = ["api", "v1", "topics", topic.as_str(), "groups", group.as_str(), "claim"];
        let wait = claim.wait.as_deref().and_then(|wait| duration::parse(wait).ok()).unwrap_or_default();
        let work: Work = self.send(Method::POST, &path, claim, wait).await?;
        Ok(work.messages)
    }

    /// Settles 1 to 1,000 messages, each alone, and returns what came of each, in their order.
    ///
    /// # Errors
    /// As the relay refuses all of them, or no answer.
    pub async fn settle(&self, receipts: &[String], verdict: &Verdict) -> Result<Vec<Settled>, ClientError> {
        let mut request = of(receipts);
        let verb = match verdict.clone() {
            Verdict::Ack { result } => {
                request.result = result;
                "ack"
            }
            Verdict::Nack { delay, error } => {
                (request.delay, request.error) = (delay.map(text), error);
                "nack"
            }
            Verdict::Reject { reason } => {
                request.reason = Some(reason);
                "reject"
            }
            Verdict::Release => "release",
        };
        self.say(verb, &request).await
    }

    /// Says that 1 to 1,000 messages are worked on, so that their consumer has them for `ack_wait`, or the group's time,
    /// from now on.
    ///
    /// # Errors
    /// As those of [`settle`](Self::settle).
    pub async fn extend(
        &self,
        receipts: &[String],
        ack_wait: Option<Duration>,
    ) -> Result<Vec<Settled>, ClientError> {
        self.say("extend", &SettleRequest { ack_wait: ack_wait.map(text), ..of(receipts) }).await
    }

    /// Tells what became of a message in a group. With `wait`, at most a minute, the answer comes when it is done or a
    /// dead letter, or the time is over.
    ///
    /// # Errors
    /// As the relay refuses, above all where there is no such message, or no answer.
    pub async fn state(
        &self,
        topic: &TopicName,
        group: &GroupName,
        id: MessageId,
        wait: Duration,
    ) -> Result<MessageState, ClientError> {
        let id = id.to_string();
        let path = ["api", "v1", "topics", topic.as_str(), "groups", group.as_str(), "messages", &id];
        self.get(&path, Some(("wait", text(wait))), wait).await
    }

    async fn say(&self, verb: &str, request: &SettleRequest) -> Result<Vec<Settled>, ClientError> {
        let all: SettledAll =
            self.send(Method::POST, &["api", "v1", "work", verb], request, Duration::ZERO).await?;
        if all.results.len() != request.receipts.len() {
            let what = format!("{} results for {} receipts", all.results.len(), request.receipts.len());
            return Err(self.http.not_a_relay(what));
        }
        Ok(all.results)
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: Option<(&str, String)>,
        wait: Duration,
    ) -> Result<T, ClientError> {
        let (name, value) = query.unzip();
        self.http.ask(Request::new(Method::GET, path).query(name.unwrap_or_default(), value).wait(wait)).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: &impl Serialize,
        wait: Duration,
    ) -> Result<T, ClientError> {
        self.http.ask(Request::new(method, path).json(body)?.wait(wait)).await
    }
}

fn of(receipts: &[String]) -> SettleRequest {
    SettleRequest {
        receipts: receipts.to_vec(),
        result: None,
        delay: None,
        error: None,
        ack_wait: None,
        reason: None,
    }
}

/// Returns a duration as the wire has it.
pub(crate) fn text(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}
