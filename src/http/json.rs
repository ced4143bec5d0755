//! JSON bodies: one reader for every object that a client sends.
//!
//! A body is cut into its fields as raw JSON, so that an error can name the field and values pass
//! through byte for byte. It must not know what the fields mean.

use std::borrow::Cow;
use std::fmt;

use axum::body::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;
use tidemill_proto::{Code, Problem};

use super::names::nearest;
use crate::relay::{Failure, JsonText};

/// The largest number up to which a fraction can be told from none: 2^53.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// Parses a JSON object with some of the fields `names` and no others, each at most once.
///
/// # Errors
/// The text is not JSON, not an object, or a field is unknown, twice there, or not a `V`.
pub(super) fn fields<'a, V: Deserialize<'a>, const N: usize>(
    json: &'a [u8],
    names: [&'static str; N],
) -> Result<[Option<V>; N], Failure> {
    let mut reader = serde_json::Deserializer::from_slice(without_mark(json));
    let mut fault = None;
    let visitor = Fields { names, fault: &mut fault, values: [const { None }; N] };
    let read = reader.deserialize_map(visitor).and_then(|values| reader.end().map(|()| values));
    read.map_err(|error| match (error.classify(), fault) {
        (Category::Data, Some((field, rule))) => Problem::field(field, rule).into(),
        (Category::Data, None) => Problem::new(Code::InvalidField, "the body must be a JSON object").into(),
        _ => invalid_json(&error),
    })
}

/// Parses any JSON value, with the blanks around it.
///
/// # Errors
/// The text is not JSON.
pub(super) fn value(body: &Bytes, json: &[u8]) -> Result<JsonText, Failure> {
    JsonText::parse(body, without_mark(json)).map_err(|error| invalid_json(&error))
}

/// Parses the JSON value of one line of a body that has a value a line. Who is told knows the number of the line.
///
/// # Errors
/// The text is not JSON.
pub(super) fn line(body: &Bytes, json: &[u8]) -> Result<JsonText, Failure> {
    JsonText::parse(body, without_mark(json)).map_err(|error| {
        let what = what_is_wrong(&error);
        let hint = if has_more(&error) {
            "; each line is one value, and `curl -d` takes the line breaks out: use `--data-binary`"
        } else {
            ""
        };
        Problem::new(Code::InvalidJson, format!("{what} at column {}{hint}", error.column())).into()
    })
}

/// Returns a text without the byte-order mark that some editors and languages put in front (RFC 8259 section
/// 8.1 lets a reader pass over it).
fn without_mark(json: &[u8]) -> &[u8] {
    json.strip_prefix("\u{feff}".as_bytes()).unwrap_or(json)
}

/// Returns a string field.
///
/// # Errors
/// The value is not a string.
pub(super) fn string<'a>(field: &str, raw: &'a RawValue) -> Result<Cow<'a, str>, Failure> {
    // A key with nothing to unescape is the common case, and borrows.
    if let Ok(plain) = serde_json::from_str::<&str>(raw.get()) {
        return Ok(Cow::Borrowed(plain));
    }
    serde_json::from_str::<String>(raw.get()).map(Cow::Owned).map_err(|_| {
        let rule = if raw.get().starts_with('"') { "must be valid Unicode" } else { "must be a string" };
        Problem::field(field, rule).into()
    })
}

/// Returns a field that is a list of strings.
///
/// # Errors
/// The value is none.
pub(super) fn strings(field: &str, raw: &RawValue) -> Result<Vec<String>, Failure> {
    serde_json::from_str(raw.get()).map_err(|_| Problem::field(field, "must be a list of strings").into())
}

/// A list of which at most `MAX` items are kept, however many it has.
pub(super) struct Few<'a, const MAX: usize> {
    pub(super) items: Vec<&'a RawValue>,
    /// How many it has.
    pub(super) count: usize,
}

impl<'de: 'a, 'a, const MAX: usize> Deserialize<'de> for Few<'a, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FewVisitor(Self { items: Vec::new(), count: 0 }))
    }
}

struct FewVisitor<'a, const MAX: usize>(Few<'a, MAX>);

impl<'de: 'a, 'a, const MAX: usize> Visitor<'de> for FewVisitor<'a, MAX> {
    type Value = Few<'a, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let Self(mut few) = self;
        while few.count < MAX
            && let Some(item) = list.next_element()?
        {
            few.items.push(item);
            few.count += 1;
        }
        // Whatever they are, they need no place.
        while few.count >= MAX && list.next_element::<IgnoredAny>()?.is_some() {
            few.count += 1;
        }
        Ok(few)
    }
}

/// Returns a field that is true or false.
///
/// # Errors
/// The value is neither.
pub(super) fn switch(field: &str, raw: &RawValue) -> Result<bool, Failure> {
    serde_json::from_str(raw.get()).map_err(|_| Problem::field(field, "must be true or false").into())
}

/// Returns the text of a number, of a whole one without fraction and exponent: `3.6e3` is 3600, as JSON
/// Schema has it, and so some languages write it. What is no whole number comes back as it was written.
pub(super) fn whole(raw: &RawValue) -> Cow<'_, str> {
    let text = raw.get();
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Cow::Borrowed(text);
    }
    match serde_json::from_str::<f64>(text) {
        // Up to here every whole number is one of this kind.
        Ok(number) if number.fract() == 0.0 && (0.0..=WHOLE_MAX).contains(&number) => {
            Cow::Owned(format!("{:.0}", number.abs()))
        }
        _ => Cow::Borrowed(text),
    }
}

/// Returns a field that is a whole number of 64 bits.
///
/// # Errors
/// The value is none.
pub(super) fn integer(field: &str, raw: &RawValue) -> Result<i64, Failure> {
    let text = raw.get();
    let exact = || text.parse().ok();
    // As whole numbers are written elsewhere, too.
    let written = || whole(raw).parse().ok();
    let negative = || {
        let positive: &RawValue = serde_json::from_str(text.strip_prefix('-')?).ok()?;
        whole(positive).parse::<i64>().ok().map(|number| -number)
    };
    exact().or_else(written).or_else(negative).ok_or_else(|| {
        let rule = format_args!("must be a whole number from {} to {}", i64::MIN, i64::MAX);
        Problem::field(field, rule).into()
    })
}

/// Returns the value of a field that may be absent, where null means absent too.
pub(super) fn optional(raw: Option<&RawValue>) -> Option<&RawValue> {
    raw.filter(|raw| raw.get() != "null")
}

/// Returns the failure of a field that must be there.
pub(super) fn missing(field: &str) -> Failure {
    Problem::field(field, "is missing").into()
}

fn invalid_json(error: &serde_json::Error) -> Failure {
    let detail = if error.is_eof() && (error.line(), error.column()) == (1, 0) {
        "the body is empty; it must be JSON".to_owned()
    } else if has_more(error) {
        format!(
            "{error}: the body is more than one JSON value; of several, one a line, the content type is `application/x-ndjson` (`tidemill publish TOPIC < FILE` publishes them, too)"
        )
    } else {
        error.to_string()
    };
    Problem::new(Code::InvalidJson, detail).into()
}

/// Returns whether a text goes on behind its value, as the library says it.
fn has_more(error: &serde_json::Error) -> bool {
    error.is_syntax() && error.to_string().starts_with("trailing characters")
}

/// Returns what is wrong with a text, without the place.
fn what_is_wrong(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

struct Fields<'f, 'de, V, const N: usize> {
    names: [&'static str; N],
    values: [Option<V>; N],
    /// The field that is wrong, and the rule that it breaks: the reader's own error says neither.
    fault: &'f mut Option<(Cow<'de, str>, Cow<'static, str>)>,
}

impl<'de, V: Deserialize<'de>, const N: usize> Visitor<'de> for Fields<'_, 'de, V, N> {
    type Value = [Option<V>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            let Some(at) = self.names.iter().position(|name| *name == key) else {
                let rule = format!("is unknown here{}", nearest(&key, &self.names));
                *self.fault = Some((key, rule.into()));
                return Err(A::Error::custom("unknown field"));
            };
            if self.values[at].is_some() {
                *self.fault = Some((key, "is there twice".into()));
                return Err(A::Error::custom("duplicate field"));
            }
            // A raw value can be anything; where a `V` cannot, it is a list.
            *self.fault = Some((key, "must be an array".into()));
            self.values[at] = Some(map.next_value()?);
            *self.fault = None;
        }
        Ok(self.values)
    }
}

/// A key, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<[Option<&RawValue>; 2], Failure> {
        fields(json.as_bytes(), ["topic", "payload"])
    }

    #[test]
    fn of_a_long_list_no_more_is_kept_than_may_be() {
        let read = |json: &'static str| serde_json::from_str::<Few<'_, 3>>(json);
        for (json, kept, count) in [
            ("[]", &[][..], 0),
            ("[1, [2] ]", &["1", "[2]"], 2),
            ("[1,2,3]", &["1", "2", "3"], 3),
            ("[1,2,3,4,{}]", &["1", "2", "3"], 5),
        ] {
            let few = read(json).expect("a list");
            let items: Vec<&str> = few.items.iter().map(|raw| raw.get()).collect();
            assert_eq!((items, few.count), (kept.to_vec(), count), "{json}");
        }
        for json in ["{}", "1", "[1,2,3,4,]", "[1,2,3,4"] {
            assert!(read(json).is_err(), "{json}");
        }
    }

    #[test]
    fn fields_come_as_they_were_written() {
        let [topic, payload] =
            read(r#" {"payload": {"n":1.10,  "a":"\u00e9"} , "t\u006fpic":null}"#).expect("a valid object");
        assert_eq!(topic.map(RawValue::get), Some("null"));
        assert_eq!(payload.map(RawValue::get), Some(r#"{"n":1.10,  "a":"\u00e9"}"#));
    }

    #[test]
    fn a_whole_number_is_one_however_it_is_written() {
        for (json, text) in [
            ("3600", "3600"),
            ("3600.0", "3600"),
            ("3.6e3", "3600"),
            ("-0.0", "0"),
            ("18446744073709551615", "18446744073709551615"),
            ("1e300", "1e300"),
            ("0.5", "0.5"),
            ("-1", "-1"),
            ("\"1\"", "\"1\""),
            ("true", "true"),
        ] {
            let raw: &RawValue = serde_json::from_str(json).expect("JSON");
            assert_eq!(whole(raw), text, "{json}");
        }
    }

    #[test]
    fn a_number_of_64_bits_is_exact() {
        for (json, number) in [
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("-5", Some(-5)),
            ("1e3", Some(1_000)),
            ("-2.0", Some(-2)),
            ("9223372036854775808", None),
            ("0.5", None),
            ("\"1\"", None),
            ("null", None),
        ] {
            let raw: &RawValue = serde_json::from_str(json).expect("JSON");
            assert_eq!(integer("by", raw).ok(), number, "{json}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, code, field) in [
            ("", Code::InvalidJson, None),
            ("{", Code::InvalidJson, None),
            (r#"{"topic":NaN}"#, Code::InvalidJson, None),
            (r#"{"topic":1} x"#, Code::InvalidJson, None),
            ("[]", Code::InvalidField, None),
            ("null", Code::InvalidField, None),
            (r#"{"topic":1,"topic":2}"#, Code::InvalidField, Some("topic")),
            (r#"{"topics":1}"#, Code::InvalidField, Some("topics")),
        ] {
            let failure = read(json).expect_err(json);
            assert_eq!((failure.code(), failure.problem().field.as_deref()), (code, field), "{json}");
        }
        let failure = read(r#"{"paylaod":1}"#).expect_err("an unknown field");
        assert_eq!(failure.to_string(), "`paylaod` is unknown here; did you mean `payload`?");
        assert_eq!(
            read("{\"topic\": \"\u{0}\"}").expect_err("a control character").code(),
            Code::InvalidJson
        );
        let invalid_utf8 = fields::<&RawValue, 1>(b"{\"topic\": \"\xff\"}", ["topic"]);
        assert_eq!(invalid_utf8.expect_err("not UTF-8").code(), Code::InvalidJson);
    }
}
