//! How many lines were published, kept, and refused, and what a refusal of one means for those behind it.

use std::collections::BTreeMap;

use tidemill_proto::{Code, TopicName};

use super::output;

/// Most lines of one kind of refusal that are named; the others are counted.
const NAMED_MAX: u64 = 10;

/// What has been published so far.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) accepted: u64,
    /// Kept, and not as durable as was asked.
    pub(super) undurable: u64,
    pub(super) rejected: u64,
    /// Lines of the last two, by kind.
    kinds: BTreeMap<String, u64>,
}

impl Tally {
    /// Whether nothing was told of any line yet.
    pub(super) const fn is_empty(&self) -> bool {
        self.accepted + self.undurable + self.rejected == 0
    }

    /// Whether all is published that was told of.
    pub(super) const fn is_clean(&self) -> bool {
        self.undurable + self.rejected == 0
    }

    /// Counts a line of this kind, and returns whether it is one of the first, which are named.
    pub(super) fn is_named(&mut self, kind: &str) -> bool {
        let count = self.kinds.entry(kind.to_owned()).or_default();
        *count += 1;
        *count <= NAMED_MAX
    }

    /// Tells how many lines of each kind were not named.
    pub(super) fn tell_more(&self) {
        for (kind, count) in self.kinds.iter().filter(|(_, count)| **count > NAMED_MAX) {
            eprintln!("{}: {kind}", output::counted(count - NAMED_MAX, "more line"));
        }
    }

    /// Returns how many there are, as a line.
    pub(super) fn told(&self, topic: &TopicName) -> String {
        let Self { accepted, undurable, rejected, .. } = self;
        let kept = match undurable {
            0 => String::new(),
            count => format!("{count} kept and not as durable as was asked, "),
        };
        format!("{accepted} published to {topic}, {kept}{rejected} refused")
    }
}

/// Returns whether a refusal holds for every line, and does not pass by itself: all go to one topic.
pub(super) const fn is_for_good(code: Code) -> bool {
    let may_be_kept = matches!(code, Code::OutcomeUnknown | Code::DurabilityNotReached);
    !is_about_message(code) && !code.retryable() && !may_be_kept
}

/// Returns whether a refusal is about the message alone, so that the next one may well be taken. The others hold
/// for every line, or have not passed while the line was tried again.
pub(super) const fn is_about_message(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidJson | Code::InvalidField | Code::InvalidRequest | Code::TooLarge | Code::KeyReused
    )
}
