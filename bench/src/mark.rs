//! Marks: what the load generator writes into a message so that it knows it again, and the requests
//! that carry them.
//!
//! A request is built once; publishing the next message writes its mark, and where there are several
//! its topic, over the last one's. It must not know how a request travels.

use std::fmt::Write as _;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;

use memchr::memmem::Finder;

/// What stands in front of every mark.
const SIGN: &str = "tidemark:";
static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(SIGN));
const PUBLISHER_DIGITS: usize = 4;
const SEQUENCE_DIGITS: usize = 12;
const TIME_DIGITS: usize = 16;
/// Length of a mark in bytes.
const MARK_BYTES: usize = SIGN.len() + PUBLISHER_DIGITS + SEQUENCE_DIGITS + TIME_DIGITS;
/// Digits of a topic's number.
const TOPIC_DIGITS: usize = 6;
/// Digits of a reference.
const REFERENCE_DIGITS: usize = 6;
const PAYLOAD_HEAD: &str = r#"{"mark":""#;
const PAYLOAD_MIDDLE: &str = r#"","pad":""#;
const PAYLOAD_TAIL: &str = r#""}"#;

/// Smallest payload in bytes that can carry a mark.
pub(crate) const PAYLOAD_BYTES_MIN: usize =
    PAYLOAD_HEAD.len() + MARK_BYTES + PAYLOAD_MIDDLE.len() + PAYLOAD_TAIL.len();
/// Most topics that one run can name.
pub(crate) const TOPICS_MAX: u32 = 1_000_000;
/// Most publishers that a mark can tell apart.
pub(crate) const PUBLISHERS_MAX: u64 = 1 << (4 * PUBLISHER_DIGITS);

const _: () = assert!(PAYLOAD_BYTES_MIN <= 64);
const _: () = assert!(TOPICS_MAX.ilog10() as usize == TOPIC_DIGITS);

/// Which message this is, and when it was to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Counted from 0.
    pub(crate) publisher: u32,
    /// Counted from 0 for each publisher.
    pub(crate) sequence: u64,
    /// Nanoseconds since the run's epoch.
    pub(crate) at_nanos: u64,
}

impl Mark {
    fn write(self, out: &mut [u8]) {
        let (publisher, rest) = out[SIGN.len()..].split_at_mut(PUBLISHER_DIGITS);
        let (sequence, time) = rest.split_at_mut(SEQUENCE_DIGITS);
        write_hex(publisher, u64::from(self.publisher));
        write_hex(sequence, self.sequence);
        write_hex(time, self.at_nanos);
    }

    fn write_key(self, out: &mut [u8]) {
        let (publisher, sequence) = out.split_at_mut(PUBLISHER_DIGITS);
        write_hex(publisher, u64::from(self.publisher));
        write_hex(sequence, self.sequence);
    }

    /// Calls `found` with each mark in `bytes`.
    pub(crate) fn each(bytes: &[u8], mut found: impl FnMut(Self)) {
        let mut rest = bytes;
        while let Some(at) = FINDER.find(rest) {
            rest = &rest[at + SIGN.len()..];
            let Some(digits) = rest.get(..MARK_BYTES - SIGN.len()) else { return };
            let (publisher, digits) = digits.split_at(PUBLISHER_DIGITS);
            let (sequence, time) = digits.split_at(SEQUENCE_DIGITS);
            if let (Some(publisher), Some(sequence), Some(at_nanos)) =
                (read_hex(publisher), read_hex(sequence), read_hex(time))
            {
                found(Self { publisher: u32::try_from(publisher).unwrap_or(u32::MAX), sequence, at_nanos });
            }
        }
    }
}

fn write_hex(out: &mut [u8], mut number: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[usize::try_from(number & 15).unwrap_or_default()];
        number >>= 4;
    }
}

fn read_hex(digits: &[u8]) -> Option<u64> {
    let mut number = 0;
    for digit in digits {
        number = (number << 4) | u64::from(char::from(*digit).to_digit(16)?);
    }
    Some(number)
}

fn write_decimal(out: &mut [u8], mut number: u32) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789"[number as usize % 10];
        number /= 10;
    }
}

/// The topics of a run: one, or a row of numbered ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topics {
    prefix: String,
    /// How many.
    pub(crate) count: u32,
    /// Whether they are the run's own, and go with it.
    pub(crate) own: bool,
}

impl Topics {
    pub(crate) const fn new(prefix: String, count: u32) -> Self {
        Self { prefix, count, own: false }
    }

    /// Returns topics that nobody else has.
    pub(crate) fn of_run(count: u32) -> Self {
        let prefix = format!("bench-{:016x}", RandomState::new().hash_one(0));
        Self { prefix, count, own: true }
    }

    /// Returns the name of a topic.
    pub(crate) fn name(&self, number: u32) -> String {
        if self.count == 1 { self.prefix.clone() } else { format!("{}-{number:06}", self.prefix) }
    }

    /// Returns the names of all.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> + '_ {
        (0..self.count).map(|number| self.name(number))
    }
}

/// A request with places for marks, topics and references.
#[derive(Clone, Debug, Default)]
pub(crate) struct Template {
    /// The request.
    pub(crate) bytes: Vec<u8>,
    marks: Vec<usize>,
    topics: Vec<usize>,
    references: Vec<usize>,
    keys: Vec<usize>,
}

impl Template {
    /// Appends text that stays.
    pub(crate) fn text(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// Appends a payload of `bytes` bytes, at least [`PAYLOAD_BYTES_MIN`].
    pub(crate) fn payload(&mut self, bytes: usize) {
        self.text(PAYLOAD_HEAD);
        self.marks.push(self.bytes.len());
        self.text(SIGN);
        self.bytes.resize(self.bytes.len() + MARK_BYTES - SIGN.len(), b'0');
        self.text(PAYLOAD_MIDDLE);
        let letters = (b'a'..=b'z').cycle().take(bytes.saturating_sub(PAYLOAD_BYTES_MIN));
        self.bytes.extend(letters);
        self.text(PAYLOAD_TAIL);
    }

    /// Appends the name of a topic.
    pub(crate) fn topic(&mut self, topics: &Topics) {
        self.text(&topics.name(0));
        if topics.count > 1 {
            self.topics.push(self.bytes.len() - TOPIC_DIGITS);
        }
    }

    /// Appends a reference.
    pub(crate) fn reference(&mut self) {
        self.references.push(self.bytes.len());
        self.text("000000");
    }

    /// Appends a key that no other message has.
    pub(crate) fn key(&mut self) {
        self.keys.push(self.bytes.len());
        self.bytes.resize(self.bytes.len() + PUBLISHER_DIGITS + SEQUENCE_DIGITS, b'0');
    }

    /// Appends another template.
    pub(crate) fn append(&mut self, other: &Self) {
        let by = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.marks.extend(other.marks.iter().map(|at| at + by));
        self.topics.extend(other.topics.iter().map(|at| at + by));
        self.references.extend(other.references.iter().map(|at| at + by));
        self.keys.extend(other.keys.iter().map(|at| at + by));
    }

    /// Returns how many messages the request carries.
    pub(crate) fn messages(&self) -> usize {
        self.marks.len()
    }

    /// Writes the mark of the message with this index.
    pub(crate) fn mark(&mut self, index: usize, mark: Mark) {
        let at = self.marks[index];
        mark.write(&mut self.bytes[at..at + MARK_BYTES]);
        if let Some(at) = self.keys.get(index) {
            mark.write_key(&mut self.bytes[*at..*at + PUBLISHER_DIGITS + SEQUENCE_DIGITS]);
        }
    }

    /// Writes the topic into every place where one stands.
    pub(crate) fn aim(&mut self, number: u32) {
        for at in &self.topics {
            write_decimal(&mut self.bytes[*at..*at + TOPIC_DIGITS], number);
        }
    }

    /// Writes the reference.
    pub(crate) fn refer(&mut self, reference: u32) {
        for at in &self.references {
            write_decimal(&mut self.bytes[*at..*at + REFERENCE_DIGITS], reference);
        }
    }
}

/// Returns the bytes of a RESP command made of these parts; each is one argument.
pub(crate) fn command(arguments: &[Template]) -> Template {
    let mut out = Template::default();
    let mut head = String::new();
    let _ = write!(head, "*{}\r\n", arguments.len());
    for argument in arguments {
        let _ = write!(head, "${}\r\n", argument.bytes.len());
        out.text(&head);
        out.append(argument);
        out.text("\r\n");
        head.clear();
    }
    out
}

/// Returns the name of the key that a relay would keep a topic in.
pub(crate) fn key(topic: &str) -> String {
    format!("stream:topic:{topic}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_where_it_was_written() {
        let mut template = Template::default();
        template.text("PUT ");
        template.topic(&Topics::new("t".to_owned(), 9));
        template.reference();
        template.payload(200);
        template.payload(200);
        let marks = [
            Mark { publisher: 3, sequence: 0xabcd, at_nanos: u64::MAX },
            Mark { publisher: 65_535, sequence: 7, at_nanos: 1 },
        ];
        template.mark(0, marks[0]);
        template.mark(1, marks[1]);
        template.aim(12);
        template.refer(34);
        assert_eq!(template.bytes.len(), "PUT t-000000".len() + REFERENCE_DIGITS + 400);
        assert!(template.bytes.starts_with(b"PUT t-000012000034{\"mark\":\"tidemark:0003"));
        let payload: serde_json::Value =
            serde_json::from_slice(&template.bytes[template.bytes.len() - 200..]).expect("JSON");
        assert!(payload["mark"].is_string());
        let mut found = Vec::new();
        Mark::each(&template.bytes, |mark| found.push(mark));
        assert_eq!(found, marks);
        found.clear();
        Mark::each(&template.bytes[..40], |mark| found.push(mark));
        assert!(found.is_empty(), "half a mark is none");
    }

    #[test]
    fn a_command_is_resp() {
        let mut argument = Template::default();
        argument.text("PING");
        assert_eq!(command(&[argument]).bytes, b"*1\r\n$4\r\nPING\r\n");
    }
}
