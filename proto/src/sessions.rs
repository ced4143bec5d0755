//! Sessions: what callers have open on a node, as those who administer the relay see it.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{NodeId, Timestamp};

/// Which session: the node, `-`, and its number there. So a node never takes that of another for one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionId {
    /// The node.
    pub node: NodeId,
    /// The number that the node has given it.
    pub number: u64,
}

/// A text names no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a session as it is listed, as in `8d3e51f0a2c44b97-17`")]
pub struct SessionIdError;

impl SessionId {
    /// Parses what names a session.
    ///
    /// # Errors
    /// The text has another form.
    pub fn parse(text: &str) -> Result<Self, SessionIdError> {
        let (node, number) = text.split_once('-').ok_or(SessionIdError)?;
        let node = NodeId::parse(node).map_err(|_| SessionIdError)?;
        let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.parse().ok().filter(|_| is_number).ok_or(SessionIdError)?;
        Ok(Self { node, number })
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.node, self.number)
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// What a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum SessionKind {
    /// A WebSocket.
    WebSocket,
    /// A stream of events or lines.
    Stream,
    /// A request that waits for messages, or for a key.
    Poll,
    /// Keys or a room that are watched, over whatever connection.
    Watch,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionInfo {
    /// What names it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub session: SessionId,
    /// What it is.
    pub kind: SessionKind,
    /// Who has opened it, as in `user "ann"`.
    pub caller: String,
    /// From where; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, nullable = false))]
    pub address: Option<IpAddr>,
    /// When it was opened.
    pub since: Timestamp,
    /// How many topics and patterns it reads.
    pub topics: u32,
    /// How many seconds ago the message came that it was given last, where there may be more for it; 0 while it has
    /// everything.
    pub behind_seconds: f64,
}

/// The answer of `GET /api/v1/admin/sessions`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionList {
    /// The node whose sessions these are: the one that answers.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub node: NodeId,
    /// How many are open on it.
    pub count: u64,
    /// The sessions, in the order in which they were opened.
    pub sessions: Vec<SessionInfo>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_session_is_read_as_it_is_written() {
        let id = SessionId::parse("8d3e51f0a2c44b97-17").expect("it is one");
        assert_eq!((id.number, id.to_string().as_str()), (17, "8d3e51f0a2c44b97-17"));
        for text in
            ["", "17", "-17", "8d3e51f0a2c44b97-", "8d3e51f0a2c44b97-+1", "8d3e51f0a2c44b97-1-1", "x-1"]
        {
            assert_eq!(SessionId::parse(text), Err(SessionIdError), "{text}");
        }
    }
}
