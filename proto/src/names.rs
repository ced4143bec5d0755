//! Names of what is no topic: buckets and keys, locks, limits, rooms and their members, series.
//!
//! Their grammar is that of topics, so that each can stand in a path, a rule and a key without an escape.

use crate::alphabet::{INSIDE_ONLY, is_allowed};
use crate::limits::NAME_BYTES_MAX;

/// Why a text is not such a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has none or too many characters.
    #[error("has {0} characters; a name has 1 to {NAME_BYTES_MAX}")]
    Length(usize),
    /// A character outside the alphabet.
    #[error(
        "has the character {0:?} at byte {1}; allowed are letters, digits, `_`, `-`, and inside the name `.` and `:`"
    )]
    Character(char, usize),
    /// `.` or `:` at an end.
    #[error("starts or ends with `.` or `:`; these stand only inside a name")]
    Edge,
}

fn check(text: &str) -> Result<(), NameError> {
    if !(1..=NAME_BYTES_MAX).contains(&text.len()) {
        return Err(NameError::Length(text.len()));
    }
    if let Some((at, character)) = text.char_indices().find(|(_, character)| !is_allowed(*character)) {
        return Err(NameError::Character(character, at));
    }
    if text.starts_with(INSIDE_ONLY) || text.ends_with(INSIDE_ONLY) {
        return Err(NameError::Edge);
    }
    Ok(())
}

macro_rules! names {
    ($($(#[$doc:meta])+ $name:ident;)+) => {
        checked_names! {$(
            $(#[$doc])+
            ///
            /// 1 to 255 of `A-Z a-z 0-9 _ - . :`, where `.` and `:` stand only inside.
            $name, NameError: check;
        )+}

        $(
            #[cfg(feature = "openapi")]
            impl utoipa::PartialSchema for $name {
                fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                    utoipa::openapi::ObjectBuilder::new()
                        .schema_type(utoipa::openapi::schema::Type::String)
                        .min_length(Some(1))
                        .max_length(Some(NAME_BYTES_MAX))
                        .pattern(Some("^[A-Za-z0-9_-]([A-Za-z0-9_.:-]*[A-Za-z0-9_-])?$"))
                        .into()
                }
            }

            #[cfg(feature = "openapi")]
            impl utoipa::ToSchema for $name {}
        )+
    };
}

names! {
    /// The name of a bucket.
    BucketName;
    /// The name of a key in a bucket.
    KeyName;
    /// The name of a lock.
    LockName;
    /// The name of a limit of an application.
    LimitName;
    /// The name of a room, in which members are present.
    RoomName;
    /// The name of a member of a room.
    MemberName;
    /// The name of a series of measurements.
    SeriesName;
}

/// What the name of the bucket of a room has in front: no bucket that somebody names can hold the slash.
const ROOM_PREFIX: &str = "presence/";

impl BucketName {
    /// Returns the name of the bucket that has the members of a room.
    #[must_use]
    pub fn of_room(room: &RoomName) -> Self {
        Self(format!("{ROOM_PREFIX}{room}").into())
    }

    /// Returns what stands in front of the buckets of all rooms, in the order of names. No bucket is called so.
    #[must_use]
    pub fn before_rooms() -> Self {
        Self(ROOM_PREFIX.into())
    }

    /// Returns whose members it has, if it is that of a room.
    #[must_use]
    pub fn room(&self) -> Option<RoomName> {
        RoomName::parse(self.0.strip_prefix(ROOM_PREFIX)?).ok()
    }

    /// Parses the name of a bucket that is kept: also of that of a room, which nobody else can name.
    #[must_use]
    pub fn parse_kept(text: &str) -> Option<Self> {
        match text.strip_prefix(ROOM_PREFIX) {
            Some(room) => RoomName::parse(room).ok().map(|room| Self::of_room(&room)),
            None => Self::parse(text).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TopicName;

    #[test]
    fn names_have_the_grammar_of_topics() {
        let long = "x".repeat(255);
        for text in ["a", "a.b:c-d_9", "-", &long] {
            assert_eq!(KeyName::parse(text).map(|name| name.to_string()).as_deref(), Ok(text));
            assert!(TopicName::parse(text).is_ok());
        }
        let longer = "x".repeat(256);
        for (text, error) in [
            ("", NameError::Length(0)),
            (&longer, NameError::Length(256)),
            ("a/b", NameError::Character('/', 1)),
            ("a*", NameError::Character('*', 1)),
            ("é", NameError::Character('é', 0)),
            ("a{b}", NameError::Character('{', 1)),
            (".a", NameError::Edge),
            ("a:", NameError::Edge),
        ] {
            assert_eq!(KeyName::parse(text), Err(error), "{text}");
            assert!(TopicName::parse(text).is_err());
        }
    }

    #[test]
    fn the_bucket_of_a_room_has_a_name_that_no_other_can_have() {
        let room = RoomName::parse("lobby").expect("a name");
        let bucket = BucketName::of_room(&room);
        assert!(BucketName::before_rooms() < bucket && BucketName::before_rooms().room().is_none());
        assert_eq!((bucket.as_str(), bucket.room()), ("presence/lobby", Some(room)));
        assert!(BucketName::parse(bucket.as_str()).is_err());
        assert_eq!(BucketName::parse_kept(bucket.as_str()), Some(bucket.clone()));
        let log = TopicName::log_of(&bucket);
        assert_eq!((log.as_str(), log.bucket()), ("presence/lobby", Some(bucket)));
        let named = BucketName::parse("lobby").expect("a name");
        assert_eq!((named.room(), TopicName::log_of(&named).as_str()), (None, "keys/lobby"));
        for text in ["presence/", "presence/a/b", "keys/a"] {
            assert_eq!(BucketName::parse_kept(text), None, "{text}");
        }
    }
}
