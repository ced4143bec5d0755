//! Problems: the one form of every error (RFC 9457), and the list of their codes.

use serde::{Deserialize, Serialize};

use crate::work::ConsumerName;
use crate::{DurabilityTold, MessageId, Timestamp};

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $status:literal, $retryable:literal, $title:literal;)+) => {
        /// What went wrong, as a program tells it apart. Codes are stable; titles and details are
        /// for people.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code {
            $(
                $(#[doc = $doc])+
                #[serde(rename = $text)]
                $name,
            )+
        }

        impl Code {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Returns the code with this text on the wire.
            #[must_use]
            pub fn named(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.as_str() == text)
            }

            /// Returns the text that stands on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// Returns the HTTP status.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status),+ }
            }

            /// Returns whether the same request, sent again later, can succeed and does no harm.
            #[must_use]
            pub const fn retryable(self) -> bool {
                match self { $(Self::$name => $retryable),+ }
            }

            /// Returns whether it can where that was sent under an idempotency key, and does no harm for the sake of that
            /// key: the answer then says so, whatever [`retryable`](Self::retryable) says.
            #[must_use]
            pub const fn retryable_under_key(self) -> bool {
                self.retryable() || matches!(self, Self::OutcomeUnknown | Self::DurabilityNotReached)
            }

            /// Returns a short title, the same for every problem of this code.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title),+ }
            }

            /// Returns what the code means and what to do, for the page of problems.
            #[must_use]
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+)),+ }
            }
        }
    };
}

codes! {
    /// The body is not JSON. The detail names line and column.
    InvalidJson = "invalid_json", 400, false, "The body is not JSON";
    /// A field or parameter breaks a rule. `field` names it, the detail names the rule. Nothing was changed.
    InvalidField = "invalid_field", 400, false, "A field is not valid";
    /// The storage cannot make messages as durable as was asked, or as is set for the topic or the node. Nothing was kept; a message that was kept under the same `Idempotency-Key` is found all the same. The detail says what to set, and where.
    DurabilityUnsupported = "durability_unsupported", 400, false, "The storage cannot do that durability";
    /// The HTTP request itself is broken, for example because its body ended early; or a frame on a WebSocket is, for example because it is text where the connection speaks binary.
    InvalidRequest = "invalid_request", 400, false, "The request is not valid";
    /// The relay does not know who calls: credentials are missing, wrong, or have expired. Send valid ones.
    Unauthenticated = "unauthenticated", 401, false, "Credentials are needed";
    /// A web page of another site may change nothing here and open no WebSocket. Name its origin in the setting `ALLOWED_ORIGINS`. The cookie of a log-in counts for pages of the relay's own origin alone, and for nothing that changes something or connects where nothing shows that one of them has sent it.
    OriginForbidden = "origin_forbidden", 403, false, "The origin is not allowed";
    /// The relay is not called by the name in the header `Host`, so the request may come from a web page that has given its own name the relay's address. Call the relay by one of its names, or add the name to the setting `TRUSTED_HOSTS`.
    HostForbidden = "host_forbidden", 403, false, "The relay has another name";
    /// The caller is known, and has no right to do this. The detail names the right that is missing. Ask an administrator of the relay.
    Forbidden = "forbidden", 403, false, "This is not allowed";
    /// The topic limit of this relay is reached, so no topic was created. Delete topics, or raise `TIDEMILL_TOPICS_MAX`.
    TopicsLimit = "topics_limit", 403, false, "No more topics may be created";
    /// The topic has as many groups as it may, so none was made. Delete one that is not used.
    GroupsLimit = "groups_limit", 403, false, "No more groups may be created";
    /// There are as many buckets as this relay allows, so none was made. Delete one that is not used, or raise `TIDEMILL_BUCKETS_MAX`.
    BucketsLimit = "buckets_limit", 403, false, "No more buckets may be created";
    /// There is no such path. `/docs` lists the paths, where it is served.
    NotFound = "not_found", 404, false, "There is nothing at this path";
    /// The topic does not exist. A topic is created by its first publish (unless the relay is set otherwise) or with `POST /api/v1/topics`; reading never creates one.
    TopicNotFound = "topic_not_found", 404, false, "The topic does not exist";
    /// The topic exists, but the message does not: it was never there, was trimmed or deleted, or has expired.
    MessageNotFound = "message_not_found", 404, false, "The message does not exist";
    /// The topic has no group of this name. Make it with `PUT /api/v1/topics/{topic}/groups/{group}`.
    GroupNotFound = "group_not_found", 404, false, "The group does not exist";
    /// There is no such bucket. The first key that is put in it makes it (unless the relay is set otherwise), or `PUT /api/v1/buckets/{bucket}` does.
    BucketNotFound = "bucket_not_found", 404, false, "The bucket does not exist";
    /// The bucket has no such key: it was never put, was deleted, or its time is over; or the revision is not kept.
    KeyNotFound = "key_not_found", 404, false, "The key does not exist";
    /// No message waits under this id, or no recurring message has this name: it was never there, was cancelled, or was published when it was due.
    ScheduleNotFound = "schedule_not_found", 404, false, "Nothing waits under this name";
    /// The lease has ended, or there was none: what was put under it has ended, too. Create another one, and make anew what it is to keep.
    LeaseNotFound = "lease_not_found", 404, false, "The lease does not exist";
    /// Nobody holds the lock, so there is nothing to take away.
    LockNotHeld = "lock_not_held", 404, false, "Nobody holds the lock";
    /// The path exists, but not with this method. The header `Allow` lists the methods.
    MethodNotAllowed = "method_not_allowed", 405, false, "The method is not allowed here";
    /// The body did not arrive in time, and the connection is closed. Send it faster, or raise `TIDEMILL_BODY_TIMEOUT_MS`.
    RequestTimeout = "request_timeout", 408, true, "The request took too long to arrive";
    /// A topic of that name exists already.
    TopicExists = "topic_exists", 409, false, "The topic exists already";
    /// A bucket of that name exists already, and is not the one that is being copied.
    BucketExists = "bucket_exists", 409, false, "The bucket exists already";
    /// The topic was closed: it takes no messages any more. Its pages stay. To begin anew, delete it and make it again, or publish to another topic.
    TopicClosed = "topic_closed", 409, false, "The topic is closed";
    /// The topic was cancelled: it takes no messages any more. `reason` says why. Its pages stay. To begin anew, delete it and make it again, or publish to another topic.
    Cancelled = "cancelled", 409, false, "The topic is cancelled";
    /// The backend holds something under the topic's key that is not a stream, so another program owns that name.
    TopicConflict = "topic_conflict", 409, false, "The name is taken by something that is not a topic";
    /// The group was made anew, or set to another place, since the message was claimed: its messages are given out anew. What the receipt is of counts no more; claim again.
    ReceiptVoid = "receipt_void", 409, false, "The receipt counts no more";
    /// The consumer's time was over, and the message was given to another one, or to the same one again. Only the newest receipt counts.
    DeliveredAgain = "delivered_again", 409, false, "The message was delivered again";
    /// The message was settled already: with this receipt, or it is done or a dead letter.
    AlreadySettled = "already_settled", 409, false, "The message was settled already";
    /// The consumer has had the message for as long as its group allows (`max_run`), so that its time was not extended. When its deadline passes the message comes back.
    MaxRunReached = "max_run_reached", 409, false, "The message was held for as long as it may";
    /// The key is not there, and another fills it: it was not there yet at the end of the wait. Ask again after `Retry-After`, or wait longer with `wait`.
    Filling = "filling", 409, true, "Another fills the key";
    /// Another holds the lock, and still did at the end of the wait. `holder` says who, `expires_at` until when, unless it is renewed. Try again, or wait with `wait`.
    Locked = "locked", 409, true, "Another holds the lock";
    /// The token is not that of who holds the lock: the lock was released, its time was over, it was taken away, or it is another lock. Whatever was done under it since may not count; acquire it anew.
    LockLost = "lock_lost", 409, false, "The lock is held no more";
    /// What is there does not fit the request: somebody else has changed it meanwhile, what is to be incremented is no number or would leave its bounds, another program keeps something under a key of the relay's, a topic has given the last id there is, or a group's `ordering` is to change while messages of it are not settled. The detail says which. Look at it, and decide anew.
    Conflict = "conflict", 409, false, "The request does not fit what is there";
    /// The message was to follow another one than the last of the topic (`expected_last`). Nothing was kept; `last_id` has the id of the last message, `0-0` where there was none. Look at what came between, and decide anew.
    LastMismatch = "expected_last_mismatch", 412, false, "Another message is the last of the topic";
    /// The fence is not that of who holds the lock now, or a greater one was seen. Nothing was kept: who has sent this holds the lock no more. `fence` is the one that stands against it, where there is one.
    Fenced = "fenced", 412, false, "The fence is not that of the holder";
    /// The token that the header `Tidemill-Fill` has shown counts no more: its time was over, or the key was changed or deleted meanwhile. Nothing was changed; `revision` has the revision that there is, and is absent where there is no such key. What was to be put may be old: ask for the key again.
    FillLost = "fill_lost", 412, false, "The fill counts no more";
    /// A condition of the request, such as `If-Match`, does not hold. Nothing was changed. The detail says what is there instead; of a key, `revision` has its revision, and is absent where there is no such key. Look at it, and decide anew.
    PreconditionFailed = "precondition_failed", 412, false, "A condition does not hold";
    /// The body or a payload is larger than allowed. The detail names the limit and its setting.
    TooLarge = "too_large", 413, false, "The body or a payload is too large";
    /// This path takes another content type. The detail names which.
    UnsupportedMediaType = "unsupported_media_type", 415, false, "The content type is not supported here";
    /// The body was compressed in a way that the relay does not know. The header `Accept-Encoding` lists those that it knows.
    UnsupportedEncoding = "unsupported_encoding", 415, false, "The content encoding is not supported";
    /// The idempotency key was used for another message, or for other changes of keys. Use a new key for what is new.
    KeyReused = "key_reused", 422, false, "The idempotency key belongs to something else";
    /// The caller has asked for more than its limit allows in this time. Nothing was changed; try again after `Retry-After`.
    RateLimited = "rate_limited", 429, true, "Too many requests";
    /// The request headers are larger than allowed.
    HeadersTooLarge = "headers_too_large", 431, false, "The headers are too large";
    /// The value is not what was put: it was damaged or replaced in the storage. `?fallback=parent` gives the newest earlier value that is kept and sound.
    Damaged = "damaged", 500, false, "The value is damaged";
    /// A defect of the relay. Please report it with the request id.
    Internal = "internal", 500, false, "The relay has failed";
    /// The provider with whom the user signs in cannot be asked, or answers nothing that can be used. Sign in again; the relay's log has the cause.
    ProviderUnavailable = "provider_unavailable", 502, true, "The provider is unavailable";
    /// More is under way than the relay may hold. Nothing was changed; try again after `Retry-After`.
    Overloaded = "overloaded", 503, true, "The relay is overloaded";
    /// The backend cannot be reached or refuses writes. Nothing was changed; try again after `Retry-After`.
    StorageUnavailable = "storage_unavailable", 503, true, "The storage is unavailable";
    /// Fewer replicas are connected to the server now than the message is to reach. Nothing was kept; try again after `Retry-After`, or ask for less.
    TooFewReplicas = "too_few_replicas", 503, true, "Too few replicas are connected";
    /// The topic, or the bucket of keys, takes no changes now; nothing was kept or changed. The detail says why. It is being copied here and is not whole yet: try again, and if no copy runs any more, run `tidemill copy` or `tidemill import` again, or delete what it has left. Or it was made read-only with `tidemill freeze`, as before a move: publish to where it has moved, or try again once that is undone. Or it is not there, and the whole storage is read-only, which makes no more.
    ReadOnly = "read_only", 503, true, "The topic is read-only";
    /// The backend did not answer in time, so the message may have been kept or not. Or all of it was done, and the relay has no room now for the answer; then the detail says so. To retry without a possible copy, publish with an `Idempotency-Key`: repeated within ten minutes (`TIDEMILL_IDEMPOTENCY_WINDOW_SECONDS`) under the same key, the message is kept once, and `retryable` is true.
    OutcomeUnknown = "outcome_unknown", 504, false, "The outcome is unknown";
    /// The message is kept, under `message_id`, and was not as durable in time as was asked: `durability` says what was reached. It may become so yet, or be lost with the server. Under its `Idempotency-Key` the same publish finds it again, and waits anew, so `retryable` is true; without one it makes a copy, and `retryable` is false.
    DurabilityNotReached = "durability_not_reached", 504, false, "The durability was not reached in time";
    /// The backend did not answer a read in time. Reading again does no harm.
    StorageTimeout = "storage_timeout", 504, true, "The storage did not answer in time";
    /// The backend has reached its memory limit, or the topics of a pattern keep as many bytes as they may (`TIDEMILL_LIMIT_KEPT_BYTES`); the detail says which. Nothing was changed; trim topics or raise the limit.
    StorageFull = "storage_full", 507, true, "The storage is full";
    /// The bucket has as many keys or bytes as it may (`max_keys`, `max_bytes`). Nothing was changed; delete keys, or let some expire.
    BucketFull = "bucket_full", 507, true, "The bucket is full";
    /// The topic has as many messages or bytes as it may, and is set to refuse what comes then (`when_full`). Nothing was kept; try again when messages were removed: by age, by a trim, or, with `keep_until_acked`, since groups are done with them.
    TopicFull = "topic_full", 507, true, "The topic is full";
}

// By hand: the derived one does not see the texts behind the macro, and would list the names.
#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Code {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .enum_values(Some(Self::ALL.iter().map(|code| code.as_str())))
            .description(Some("What went wrong, as a program tells it apart. Codes are stable."))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Code {}

/// Returns the seconds after which a problem of this code is worth another try, where nothing better is
/// known when it is told.
const fn usual_wait_seconds(code: Code) -> Option<u64> {
    match code {
        Code::Overloaded | Code::StorageUnavailable | Code::RateLimited | Code::TooFewReplicas => Some(1),
        Code::StorageFull | Code::TopicFull | Code::BucketFull | Code::ReadOnly => Some(10),
        _ => None,
    }
}

/// An error as every client reads it: `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// A reference to the explanation of the code, relative to the relay: `/problems#<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// A short title, the same for every problem of this code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong with this request, and what to do.
    pub detail: String,
    /// What a program tells problems apart by.
    pub code: Code,
    /// Whether the same request, sent again later, can succeed and does no harm.
    pub retryable: bool,
    /// Seconds to wait before that, where waiting helps; the header `Retry-After` says the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub retry_after_seconds: Option<u64>,
    /// The field or parameter that is meant, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub field: Option<String>,
    /// The id of the last message of the topic, `0-0` for none, where the message was to follow another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub last_id: Option<MessageId>,
    /// The id of the message, where it is kept and not as durable as was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub message_id: Option<MessageId>,
    /// How durable it is then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub durability: Option<DurabilityTold>,
    /// The revision that the key has, where it was to have another one; absent where there is no such key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub revision: Option<MessageId>,
    /// Why the topic was cancelled, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub reason: Option<String>,
    /// Who holds the lock, where another does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, nullable = false))]
    pub holder: Option<ConsumerName>,
    /// Until when, unless it is renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub expires_at: Option<Timestamp>,
    /// The fence that stands against the one that was shown, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub fence: Option<MessageId>,
    /// The id of the request, as in the log and in the header `X-Request-Id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub request_id: Option<String>,
}

/// The field of a `storage_full` that is about the idempotency key alone: without one the message would be taken.
pub const IDEMPOTENCY_KEY_FIELD: &str = "Idempotency-Key";

impl Problem {
    /// Returns a problem of this code.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("/problems#{}", code.as_str()),
            title: code.title().to_owned(),
            status: code.status(),
            detail: detail.into(),
            code,
            retryable: code.retryable(),
            retry_after_seconds: usual_wait_seconds(code),
            field: None,
            last_id: None,
            message_id: None,
            durability: None,
            revision: None,
            reason: None,
            holder: None,
            expires_at: None,
            fence: None,
            request_id: None,
        }
    }

    /// Returns a problem with a field or parameter; the detail reads "`field` rule".
    #[must_use]
    pub fn field(field: impl Into<String>, rule: impl std::fmt::Display) -> Self {
        let field = field.into();
        let mut problem = Self::new(Code::InvalidField, format!("`{field}` {rule}"));
        problem.field = Some(field);
        problem
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.detail)
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    /// What clients already know. A row may be added; one that changes breaks programs.
    const PROMISED: &[(&str, u16, bool)] = &[
        ("invalid_json", 400, false),
        ("invalid_field", 400, false),
        ("durability_unsupported", 400, false),
        ("invalid_request", 400, false),
        ("unauthenticated", 401, false),
        ("origin_forbidden", 403, false),
        ("host_forbidden", 403, false),
        ("forbidden", 403, false),
        ("topics_limit", 403, false),
        ("groups_limit", 403, false),
        ("buckets_limit", 403, false),
        ("not_found", 404, false),
        ("topic_not_found", 404, false),
        ("message_not_found", 404, false),
        ("group_not_found", 404, false),
        ("bucket_not_found", 404, false),
        ("key_not_found", 404, false),
        ("schedule_not_found", 404, false),
        ("lease_not_found", 404, false),
        ("lock_not_held", 404, false),
        ("method_not_allowed", 405, false),
        ("request_timeout", 408, true),
        ("topic_exists", 409, false),
        ("bucket_exists", 409, false),
        ("topic_closed", 409, false),
        ("cancelled", 409, false),
        ("topic_conflict", 409, false),
        ("receipt_void", 409, false),
        ("delivered_again", 409, false),
        ("already_settled", 409, false),
        ("max_run_reached", 409, false),
        ("filling", 409, true),
        ("locked", 409, true),
        ("lock_lost", 409, false),
        ("conflict", 409, false),
        ("expected_last_mismatch", 412, false),
        ("fenced", 412, false),
        ("fill_lost", 412, false),
        ("precondition_failed", 412, false),
        ("too_large", 413, false),
        ("unsupported_media_type", 415, false),
        ("unsupported_encoding", 415, false),
        ("key_reused", 422, false),
        ("rate_limited", 429, true),
        ("headers_too_large", 431, false),
        ("damaged", 500, false),
        ("internal", 500, false),
        ("provider_unavailable", 502, true),
        ("overloaded", 503, true),
        ("storage_unavailable", 503, true),
        ("too_few_replicas", 503, true),
        ("read_only", 503, true),
        ("outcome_unknown", 504, false),
        ("durability_not_reached", 504, false),
        ("storage_timeout", 504, true),
        ("storage_full", 507, true),
        ("bucket_full", 507, true),
        ("topic_full", 507, true),
    ];

    #[test]
    fn codes_stay_as_clients_know_them() {
        let told: Vec<_> = Code::ALL
            .iter()
            .map(|code| {
                let text = serde_json::to_value(code).expect("a code is a string");
                let problem = Problem::new(serde_json::from_value(text.clone()).expect("its own text"), "");
                (text, problem.status, problem.retryable)
            })
            .collect();
        let promised: Vec<_> =
            PROMISED.iter().map(|(text, status, retryable)| ((*text).into(), *status, *retryable)).collect();
        assert_eq!(told, promised);
    }

    #[test]
    fn only_what_may_be_retried_says_when() {
        for code in Code::ALL {
            let problem = Problem::new(*code, "");
            assert!(problem.retryable || problem.retry_after_seconds.is_none(), "{code:?}");
            // RFC 6585 section 4 and RFC 9110 section 15.6.4: what is over soon says how soon.
            if matches!(problem.status, 429 | 503) {
                assert!(problem.retry_after_seconds.is_some(), "{code:?}");
            }
        }
    }
}
