//! Turns the errors of the connection, and the server's error replies, into the storage contract's. No other
//! file reads one, but for those of the client library, which `control` turns.

use super::layout;
use super::resolver::Address;
use super::resp::RespError;
use super::slots::SLOTS;
use crate::storage::StorageError;

/// What a call would have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing: a read can be repeated, whatever became of it.
    Read,
    /// A change, which may have happened where the outcome is not known.
    Write,
}

/// An error as the library or the server told it, kept for the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// There is no connection at the moment.
    #[error("no connection to the server {server}: {why}")]
    Down {
        /// Where it is, or is looked for.
        server: String,
        /// Why not.
        why: String,
    },
    /// Nothing is asked of a server any more.
    #[error("the relay is stopping")]
    Stopping,
    /// The connection was lost, or the relay stopped, before the answer came.
    #[error("the connection was lost before the answer came")]
    Lost,
    /// What became of several messages at once, told to each of them.
    #[error("{0}")]
    Shared(String),
    /// The topic that a message asks for could not be made.
    #[error("the topic could not be created: {0}")]
    NotCreated(String),
    /// A later message of its topic is there already, whose order it may not change.
    #[error("a later message of the topic was published at this moment")]
    Overtaken,
    /// No server of the cluster has the slot.
    #[error("no server of the cluster serves this part of it now")]
    Unserved,
    /// It did not arrive where it goes in time.
    #[error("this part of the cluster is on its way to another server")]
    OnItsWay,
    /// It waited too long for its turn and was not sent.
    #[error("the server did not take it in time")]
    Expired,
    /// The server cannot run scripts.
    #[error("the server runs no scripts, which idempotent publishes and new topics need: {0}")]
    NoScripts(String),
    /// A reply in a form that this command does not have.
    #[error("unexpected reply to {0}")]
    Reply(&'static str),
    /// The client library's error.
    #[error(transparent)]
    Library(Box<dyn std::error::Error + Send + Sync>),
    /// The connection's error.
    #[error("{server}: {error}")]
    Resp {
        /// Where it goes.
        server: String,
        /// What went wrong.
        error: RespError,
    },
    /// The server's error reply.
    #[error("{0}")]
    Server(String),
}

impl Failure {
    /// Returns that of a topic that does not stay long enough.
    pub(super) fn deleted_at_once() -> Self {
        Self::NotCreated("it is deleted as fast as it is created".to_owned())
    }
}

/// What scripts answer as an error where a topic has no room. They spell it, too.
const TOPIC_FULL: &str = "TOPICFULL";

/// Returns the contract's error for a request to a server that has no replies.
pub(super) fn of_exchange(server: String, error: RespError, effect: Effect) -> StorageError {
    let unsent = match &error {
        RespError::Unsent(_) => true,
        RespError::Unanswered(_) | RespError::TooLarge { .. } => effect == Effect::Read,
    };
    let cause = Failure::Resp { server, error }.into();
    if unsent { StorageError::Unavailable(cause) } else { StorageError::Indeterminate(cause) }
}

/// Returns the contract's error for the text of the server's error reply to one command. The server
/// answers with an error before it changes anything, so none of these leaves a doubt.
pub(super) fn of_reply(text: String) -> StorageError {
    // An error inside a script comes as `ERR … script: …` with the inner code in its text.
    let has = |code: &str| text == code || text.contains(&format!("{code} "));
    let (wrong_type, full) = (has("WRONGTYPE"), has("OOM"));
    if text.contains("exhausted the last possible ID") {
        return StorageError::IdsUsedUp;
    }
    if has(TOPIC_FULL) {
        return StorageError::TopicFull;
    }
    if has("NOGROUP") {
        return StorageError::NoGroup;
    }
    let cause = Failure::Server(text).into();
    if wrong_type {
        StorageError::NotATopic
    } else if full {
        StorageError::Full(cause)
    } else {
        StorageError::Unavailable(cause)
    }
}

/// Returns the error of a command on a key that is no topic's stream.
pub(super) fn of_key(error: StorageError, key: impl Into<Box<str>>) -> StorageError {
    match error {
        StorageError::NotATopic => StorageError::ForeignKey(key.into()),
        error => error,
    }
}

/// Whether the reply says that this server takes no writes now, so that another may have to be found.
pub(super) fn refuses_writes(text: &str) -> bool {
    // The library has a spelling of its own for the code.
    text.contains("READONLY") || text.starts_with("ReadOnly")
}

/// What a server of a cluster says of a key that it does not serve. Nothing was done then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// This slot is another server's: where, if that is told.
    Moved(u16, Option<Address>),
    /// This slot is on its way, and what is asked for is with the server that gets it.
    Ask(u16, Option<Address>),
    /// The slot is on its way, and of what is asked for a part is with each of two servers.
    TryAgain,
}

impl Redirect {
    /// Reads an error reply (Valkey cluster specification, “MOVED Redirection” and “ASK redirection”).
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let code = words.next()?;
        if code == "TRYAGAIN" {
            return Some(Self::TryAgain);
        }
        let slot: u16 = words.next()?.parse().ok().filter(|slot| *slot < SLOTS)?;
        let address = words.next().and_then(Address::read);
        match code {
            "MOVED" => Some(Self::Moved(slot, address)),
            "ASK" => Some(Self::Ask(slot, address)),
            _ => None,
        }
    }

    /// Returns what an error of the contract says of it: its causes begin with their sentences, and end with what
    /// the server has said.
    pub(super) fn of(error: &StorageError) -> Option<Self> {
        let StorageError::Unavailable(_) = error else { return None };
        causes_of(error).split(": ").find_map(Self::read)
    }
}

/// Whether the reply says that the user may not do this.
pub(super) fn lacks_right(text: &str) -> bool {
    text.starts_with("NOPERM")
}

/// Whether the text of a failed attempt to connect says that the server refuses the login, a right that connecting needs,
/// or the number of the database. It says the same of every other attempt.
pub(super) fn refuses_connecting(text: &str) -> bool {
    // The library has spellings of its own for some. It says the last two of a connection that is cut in this moment, too.
    const REFUSALS: [&str; 9] = [
        "WRONGPASS",
        "invalid password",
        "AuthenticationFailed",
        "NOAUTH",
        "NOPERM",
        "PermissionDenied",
        "DB index is out of range",
        "server refused to set client name",
        "server refused to switch database",
    ];
    REFUSALS.iter().any(|refusal| text.contains(refusal)) || layout::is_newer(text)
}

/// Whether the reply says that the server is not ready yet.
pub(super) fn is_loading(text: &str) -> bool {
    text.split(' ').next() == Some("LOADING")
}

/// Whether the reply says that there is no such key, as `XINFO` does where a range is just empty.
pub(super) fn is_no_such_key(text: &str) -> bool {
    text.contains("no such key")
}

/// Returns what lies under an error in one line, where one error has to stand for many.
pub(super) fn causes_of(error: &StorageError) -> String {
    let mut text = String::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let separator = if text.is_empty() { "" } else { ": " };
        text.push_str(separator);
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Returns the same error again, where one call stands for several results.
pub(super) fn same(error: &StorageError) -> StorageError {
    let cause = || Failure::Shared(causes_of(error)).into();
    match error {
        StorageError::Unavailable(_) => StorageError::Unavailable(cause()),
        StorageError::Indeterminate(_) => StorageError::Indeterminate(cause()),
        StorageError::Overloaded => StorageError::Overloaded,
        StorageError::Full(_) => StorageError::Full(cause()),
        StorageError::KeysFull(_) => StorageError::KeysFull(cause()),
        StorageError::NoTopic => StorageError::NoTopic,
        StorageError::TopicExists => StorageError::TopicExists,
        StorageError::NotATopic => StorageError::NotATopic,
        StorageError::ForeignKey(key) => StorageError::ForeignKey(key.clone()),
        StorageError::IdsUsedUp => StorageError::IdsUsedUp,
        StorageError::TopicsLimit => StorageError::TopicsLimit,
        StorageError::SchedulesLimit => StorageError::SchedulesLimit,
        StorageError::NotLast(last) => StorageError::NotLast(*last),
        StorageError::Fenced(fence) => StorageError::Fenced(*fence),
        StorageError::Closed => StorageError::Closed,
        StorageError::Cancelled(reason) => StorageError::Cancelled(reason.clone()),
        StorageError::ReadOnly(why) => StorageError::ReadOnly(*why),
        StorageError::TopicFull => StorageError::TopicFull,
        StorageError::NotCompacted => StorageError::NotCompacted,
        StorageError::Undurable(why) => StorageError::Undurable(why.clone()),
        StorageError::TooFewReplicas { asked, connected } => {
            StorageError::TooFewReplicas { asked: *asked, connected: *connected }
        }
        StorageError::KeyReused => StorageError::KeyReused,
        StorageError::NoGroup => StorageError::NoGroup,
        StorageError::PoliciesLimit => StorageError::PoliciesLimit,
        StorageError::GroupsLimit => StorageError::GroupsLimit,
        StorageError::GroupHolds => StorageError::GroupHolds,
        StorageError::NoBucket => StorageError::NoBucket,
        StorageError::BucketsLimit => StorageError::BucketsLimit,
    }
}

/// Returns the contract's error for a reply of a form that the command does not have.
pub(super) fn unexpected(command: &'static str, effect: Effect) -> StorageError {
    let cause = Failure::Reply(command).into();
    match effect {
        Effect::Read => StorageError::Unavailable(cause),
        Effect::Write => StorageError::Indeterminate(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_read_and_nothing_else() {
        let at = |host: &str, port| Some(Address { host: host.to_owned(), port });
        for (text, redirect) in [
            ("MOVED 3999 127.0.0.1:6381", Some(Redirect::Moved(3_999, at("127.0.0.1", 6381)))),
            ("MOVED 0 fd00::1:6381", Some(Redirect::Moved(0, at("fd00::1", 6381)))),
            ("MOVED 16383 :6381", Some(Redirect::Moved(16_383, None))),
            ("ASK 3999 a.example:1", Some(Redirect::Ask(3_999, at("a.example", 1)))),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Some(Redirect::TryAgain)),
            ("MOVED 16384 127.0.0.1:6381", None),
            ("MOVED", None),
            ("CLUSTERDOWN The cluster is down", None),
            ("ERR MOVED 1 h:1", None),
        ] {
            assert_eq!(Redirect::read(text), redirect, "{text}");
        }
        let moved = of_reply("MOVED 7 h:1".to_owned());
        assert_eq!(Redirect::of(&moved), Some(Redirect::Moved(7, at("h", 1))));
        assert_eq!(Redirect::of(&same(&moved)), Redirect::of(&moved));
        let not_created = StorageError::Unavailable(Failure::NotCreated(causes_of(&moved)).into());
        assert_eq!(Redirect::of(&not_created), Redirect::of(&moved));
        assert_eq!(Redirect::of(&StorageError::Indeterminate("MOVED 7 h:1".into())), None);
    }
}
