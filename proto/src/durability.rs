//! Durability: what must hold of a message, beyond that the storage has confirmed it, before its publisher is answered.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::DURABILITY_REPLICAS_MAX;

/// How durable a message is: the text `accepted`, `fsync`, `replicas=1`, or `fsync, replicas=1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Durability {
    /// The server has it on its disk.
    pub fsync: bool,
    /// So many replicas of the server have received it; at most [`DURABILITY_REPLICAS_MAX`].
    pub replicas: u8,
}

/// A text is no durability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be `accepted`, `fsync`, `replicas=N` with N from 1 to {DURABILITY_REPLICAS_MAX}, or `fsync, replicas=N`"
)]
pub struct DurabilityError;

impl Durability {
    /// The storage has confirmed it, and nothing more.
    pub const ACCEPTED: Self = Self { fsync: false, replicas: 0 };

    /// Parses one: its parts in any order, each once, with or without white space around them.
    ///
    /// # Errors
    /// The text is none.
    pub fn parse(text: &str) -> Result<Self, DurabilityError> {
        if text.trim_ascii() == "accepted" {
            return Ok(Self::ACCEPTED);
        }
        let mut read = Self::ACCEPTED;
        for part in text.split(',') {
            let part = part.trim_ascii();
            if part == "fsync" && !read.fsync {
                read.fsync = true;
            } else if let Some(number) = part.strip_prefix("replicas=")
                && read.replicas == 0
                // A sign, and zeros in front, are none of its forms.
                && number.starts_with(|digit: char| ('1'..='9').contains(&digit))
            {
                let replicas = number.parse().ok().filter(|replicas| *replicas <= DURABILITY_REPLICAS_MAX);
                read.replicas = replicas.ok_or(DurabilityError)?;
            } else {
                return Err(DurabilityError);
            }
        }
        Ok(read)
    }

    /// Whether nothing is asked for beyond what the storage confirms.
    #[must_use]
    pub fn is_accepted(self) -> bool {
        self == Self::ACCEPTED
    }

    /// Whether what is so durable is as durable as was asked.
    #[must_use]
    pub const fn covers(self, asked: Self) -> bool {
        (self.fsync || !asked.fsync) && self.replicas >= asked.replicas
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.fsync, self.replicas) {
            (false, 0) => f.write_str("accepted"),
            (true, 0) => f.write_str("fsync"),
            (false, replicas) => write!(f, "replicas={replicas}"),
            (true, replicas) => write!(f, "fsync, replicas={replicas}"),
        }
    }
}

impl Serialize for Durability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Durability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Durability {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .pattern(Some(format!("^(accepted|fsync|(fsync, *)?replicas=[1-{DURABILITY_REPLICAS_MAX}])$")))
            .description(Some(
                "How durable a message is: `accepted` (the storage has confirmed it), `fsync` (the server has it on its disk), `replicas=N` (so many replicas have received it), or `fsync, replicas=N`.",
            ))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Durability {}

/// What was asked for of a message, and what was reached when its publisher was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DurabilityTold {
    /// What was asked for: by the request, or for the topic or the node.
    pub asked: Durability,
    /// What was reached. It may become more.
    pub reached: Durability,
}

impl DurabilityTold {
    /// Whether what was asked for was reached.
    #[must_use]
    pub const fn is_reached(self) -> bool {
        self.reached.covers(self.asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn durability(fsync: bool, replicas: u8) -> Durability {
        Durability { fsync, replicas }
    }

    #[test]
    fn a_durability_comes_back_as_it_was_written() {
        for (text, read, written) in [
            ("accepted", Durability::ACCEPTED, "accepted"),
            (" accepted ", Durability::ACCEPTED, "accepted"),
            ("fsync", durability(true, 0), "fsync"),
            ("replicas=1", durability(false, 1), "replicas=1"),
            ("replicas=5", durability(false, 5), "replicas=5"),
            ("fsync, replicas=2", durability(true, 2), "fsync, replicas=2"),
            ("replicas=2,fsync", durability(true, 2), "fsync, replicas=2"),
        ] {
            assert_eq!(Durability::parse(text), Ok(read), "{text:?}");
            assert_eq!(read.to_string(), written);
            assert_eq!(serde_json::to_value(read).expect("a string"), written);
            assert_eq!(serde_json::from_value::<Durability>(written.into()).expect("its own text"), read);
        }
    }

    #[test]
    fn what_is_no_durability_is_refused() {
        for text in [
            "",
            ",",
            "Accepted",
            "accepted, fsync",
            "fsync, accepted",
            "fsync,",
            "fsync, fsync",
            "fsync replicas=1",
            "replicas",
            "replicas=",
            "replicas=0",
            "replicas=01",
            "replicas=+1",
            "replicas=-1",
            "replicas=6",
            "replicas=256",
            "replicas=1, replicas=1",
            "replicas =1",
            "replicas=1.0",
            "quorum",
        ] {
            assert_eq!(Durability::parse(text), Err(DurabilityError), "{text:?}");
        }
    }

    #[test]
    fn more_covers_less_and_nothing_else() {
        let all: Vec<_> =
            [false, true].into_iter().flat_map(|fsync| (0..3).map(move |n| durability(fsync, n))).collect();
        for one in &all {
            assert!(one.covers(Durability::ACCEPTED) && one.covers(*one));
            assert_eq!(Durability::ACCEPTED.covers(*one), one.is_accepted());
        }
        assert!(durability(true, 2).covers(durability(true, 1)));
        assert!(!durability(true, 0).covers(durability(false, 1)));
        assert!(!durability(false, 2).covers(durability(true, 1)));
        let told = DurabilityTold { asked: durability(true, 1), reached: durability(false, 1) };
        assert!(!told.is_reached());
        assert_eq!(
            serde_json::to_string(&told).expect("two texts"),
            r#"{"asked":"fsync, replicas=1","reached":"replicas=1"}"#
        );
    }
}
