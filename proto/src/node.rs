//! Node ids: which of several relays answers.

use std::fmt;

use serde::{Serialize, Serializer};

/// The name of a node, one running relay: 16 hexadecimal digits that it makes up when it starts. No two
/// nodes have the same, and a node that starts again has another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

/// A text is not a node id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a node id; it has 16 lower-case hexadecimal digits")]
pub struct NodeIdError;

impl NodeId {
    /// Returns the id with this number, which should be a random one.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Parses a node id.
    ///
    /// # Errors
    /// It has another form.
    pub fn parse(text: &str) -> Result<Self, NodeIdError> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 16 || !text.bytes().all(is_digit) {
            return Err(NodeIdError);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| NodeIdError)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

deserialize_from_text!(NodeId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_comes_back_and_has_one_form() {
        for number in [0, 1, 0x00ab_cdef_0123_4567, u64::MAX] {
            let id = NodeId::new(number);
            assert_eq!(NodeId::parse(&id.to_string()), Ok(id));
        }
        assert_eq!(NodeId::new(0xab).to_string(), "00000000000000ab");
        for text in
            ["", "ab", "00000000000000AB", "+0000000000000ab", "00000000000000ag", "000000000000000ab"]
        {
            assert_eq!(NodeId::parse(text), Err(NodeIdError), "{text}");
        }
    }
}
