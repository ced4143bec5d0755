//! The parts of a token, as they are written: three texts with points between them (RFC 7515, compact form).
//!
//! It must not know what a token's claims mean.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::Refusal;

/// A token, taken apart. Nothing of it has been verified.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    /// What is signed: header and payload.
    pub(super) signed: &'a str,
    pub(super) signature: &'a str,
    /// The header's `alg`.
    pub(super) algorithm: String,
    /// The header's `kid`.
    pub(super) key_id: Option<String>,
    pub(super) payload: Object,
}

impl<'a> Parts<'a> {
    /// Takes a token apart.
    pub(super) fn read(token: &'a str) -> Result<Self, Refusal> {
        let form = Refusal::Form;
        let (signed, signature) = token.rsplit_once('.').ok_or(form("it has not three parts"))?;
        let (header, payload) = signed.split_once('.').ok_or(form("it has not three parts"))?;
        if payload.contains('.') {
            return Err(form("it has not three parts"));
        }
        let header =
            Object::read(header).ok_or(form("its header is no JSON object, or names something twice"))?;
        let text =
            |name| header.get::<String>(name).map_err(|_| form("its header has a value of a wrong type"));
        let algorithm = text("alg")?.ok_or(form("its header names no algorithm (`alg`)"))?;
        let key_id = text("kid")?;
        // It says what must be understood beyond the standard, and nothing beyond it is.
        if header.has("crit") {
            return Err(form("its header has `crit`"));
        }
        // Tokens for other purposes, as that of a logout, say so here (RFC 8725, 3.11).
        if let Some(kind) = text("typ")? {
            let kind = kind.to_ascii_lowercase();
            let kind = kind.strip_prefix("application/").unwrap_or(&kind);
            if !matches!(kind, "jwt" | "at+jwt") {
                return Err(form("its `typ` is neither `JWT` nor `at+jwt`"));
            }
        }
        let payload =
            Object::read(payload).ok_or(form("its payload is no JSON object, or names a claim twice"))?;
        Ok(Self { signed, signature, algorithm, key_id, payload })
    }
}

/// A JSON object whose names differ, with the values as they are written. Where a name stands twice, two
/// readers may read two things.
#[derive(Debug)]
pub(super) struct Object(BTreeMap<String, Box<RawValue>>);

/// A value has another type.
#[derive(Clone, Copy, Debug)]
pub(super) struct OtherType;

impl Object {
    fn read(part: &str) -> Option<Self> {
        let json = URL_SAFE_NO_PAD.decode(part).ok()?;
        Some(Self(serde_json::from_slice::<Distinct<_>>(&json).ok()?.0))
    }

    /// Returns whether there is a value of this name, of whatever type.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Returns a value; `None` if there is none.
    pub(super) fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, OtherType> {
        self.0.get(name).map(|json| serde_json::from_str(json.get()).map_err(|_| OtherType)).transpose()
    }
}

/// A map that is read only where its names differ.
#[derive(Debug)]
pub(super) struct Distinct<V>(pub(super) BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Distinct<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Names(BTreeMap::new()))
    }
}

struct Names<V>(BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for Names<V> {
    type Value = Distinct<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object whose names differ")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = self.0;
        while let Some(name) = map.next_key::<String>()? {
            match values.entry(name) {
                Entry::Vacant(entry) => entry.insert(map.next_value()?),
                Entry::Occupied(_) => return Err(A::Error::custom("a name stands twice")),
            };
        }
        Ok(Distinct(values))
    }
}
