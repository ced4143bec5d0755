//! What one reader asked for and got, held against what was published.

use std::fmt::Write as _;
use std::sync::Arc;

use tidemill::clock::Clock;
use tidemill::proto::{GapReason, MessageId, Timestamp};

use super::published::{TOPIC, Track};
use crate::support::dice::Dice;

/// By how much the relay's idea of the server's clock may be wrong: as much as an answer may have taken.
const CLOCK_MS_OFF_MAX: u64 = 2_000;

/// Most messages that a reader reads to come from history to live.
const CROSSING_MAX: usize = 250;

/// Where a reader starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// After the message of this number.
    After(u64, MessageId),
    Earliest,
    Latest,
    /// At a time.
    Time(u64),
    /// So many milliseconds ago.
    Ago(u64),
}

impl From {
    /// Rolls where to start in a topic that has messages.
    pub(super) fn roll(dice: &mut Dice, track: &Track) -> Self {
        let confirmed = track.confirmed();
        let back = |back: u64| confirmed.saturating_sub(1 + back);
        match dice.roll(16) {
            0..=2 => Self::Latest,
            3 => Self::Earliest,
            4 => Self::Time(track.id(back(dice.roll(200))).ms),
            5 => Self::Ago(dice.roll(200)),
            6 => {
                // Most of these are of messages that were trimmed long ago.
                let number = dice.roll(confirmed);
                Self::After(number, track.id(number))
            }
            _ => {
                let bound = dice.pick(&[1, 2, 10, 60, 600]);
                let number = back(dice.roll(bound));
                Self::After(number, track.id(number))
            }
        }
    }

    /// Returns the cursor as it is written.
    pub(super) fn cursor(self) -> String {
        match self {
            Self::After(_, id) => id.to_string(),
            Self::Earliest => "earliest".to_owned(),
            Self::Latest => "latest".to_owned(),
            Self::Time(ms) => Timestamp::from_millis(ms).to_string(),
            Self::Ago(ms) => format!("-{ms}ms"),
        }
    }
}

/// What a reader gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Got {
    Message { id: MessageId, payload: u64 },
    Gap { from: MessageId, to: MessageId, reason: GapReason, missed: Option<u64> },
}

/// How a topic was before a reader asked for it.
#[derive(Debug)]
struct Before {
    confirmed: u64,
    sent: u64,
    trimmed: u64,
    time: u64,
}

/// What a reader gets of one topic.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) track: Arc<Track>,
    pub(super) from: From,
    got: Vec<Got>,
    /// How it was before the relay was asked.
    before: Before,
    /// How it was when the reader knew that it had begun: sent, and the time.
    begun: Option<(u64, u64)>,
    /// The cursor where it starts, if the relay has told it.
    told: Option<MessageId>,
    /// How many messages to get, at least.
    want: usize,
    /// Up to which number to go on then.
    cross_to: u64,
    messages: usize,
    last: Option<(u64, MessageId)>,
}

fn now() -> u64 {
    Clock::system().now().as_millis()
}

impl Reading {
    /// Begins to read, before the relay is asked.
    pub(super) fn new(track: Arc<Track>, from: From, dice: &mut Dice) -> Self {
        let (confirmed, sent, trimmed) = (track.confirmed(), track.sent(), track.trimmed());
        let near = !matches!(from, From::Earliest);
        Self {
            from,
            got: Vec::new(),
            before: Before { confirmed, sent, trimmed, time: now() },
            begun: None,
            told: None,
            want: usize::try_from(1 + dice.roll(40)).expect("a count"),
            cross_to: if near { sent + dice.roll(10) } else { 0 },
            messages: 0,
            last: None,
            track,
        }
    }

    /// Notes that the relay has answered, and where it says that the reader starts.
    pub(super) fn begun(&mut self, told: Option<MessageId>) {
        if self.begun.is_none() {
            self.begun = Some((self.track.sent(), now()));
            self.told = told;
        }
    }

    pub(super) fn take(&mut self, got: Got) {
        if let Got::Message { id, payload } = &got {
            assert_eq!(payload / TOPIC, self.track.place, "a message of another topic: {got:?}");
            self.messages += 1;
            self.last = Some((payload % TOPIC, *id));
        }
        self.got.push(got);
    }

    /// Returns whether it has enough.
    pub(super) fn is_done(&self) -> bool {
        let Some((last, _)) = self.last else { return false };
        self.messages >= self.want && (last >= self.cross_to || self.messages >= CROSSING_MAX)
    }

    /// Returns the id of the last message, from which another reader can go on.
    pub(super) fn last(&self) -> Option<MessageId> {
        self.last.map(|(_, id)| id)
    }

    /// Returns the number behind the last message.
    ///
    /// # Panics
    /// There is none.
    pub(super) fn next(&self) -> u64 {
        self.last.expect("it has got messages").0 + 1
    }

    /// Returns whether a gap was the last that it got.
    pub(super) fn ends_in_gap(&self) -> bool {
        matches!(self.got.last(), Some(Got::Gap { .. }))
    }

    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    pub(super) fn gaps(&self) -> usize {
        self.got.len() - self.messages
    }

    /// Returns whether it began with what was there and came to what was published after.
    pub(super) fn has_crossed(&self) -> bool {
        let first = self.got.iter().find_map(|got| match got {
            Got::Message { payload, .. } => Some(payload % TOPIC),
            Got::Gap { .. } => None,
        });
        first.is_some_and(|first| first < self.before.confirmed)
            && self.last.is_some_and(|(last, _)| last >= self.before.sent)
    }

    /// Returns the numbers between which the first message lies, if nothing is trimmed.
    fn first(&self) -> (u64, u64) {
        let Before { confirmed, trimmed, time, .. } = self.before;
        let (sent, time_begun) = self.begun.unwrap_or((u64::MAX, now()));
        let at = |ms: u64| self.track.first_from(MessageId::new(ms, 0));
        match self.from {
            From::After(number, _) => (number + 1, number + 1),
            From::Earliest => (trimmed, trimmed),
            From::Time(ms) => (at(ms), at(ms)),
            From::Ago(ms) => {
                (at(time - ms - CLOCK_MS_OFF_MAX), at(time_begun.saturating_sub(ms) + CLOCK_MS_OFF_MAX))
            }
            From::Latest => match self.told {
                None => (confirmed, sent),
                Some(id) => {
                    let first = self.track.first_from(id.next().expect("not the last id"));
                    assert!(confirmed <= first && first <= sent, "{id} is not now: {first}");
                    (first, first)
                }
            },
        }
    }

    /// Checks everything: no hole without a gap, no copy, no disorder, no gap without a hole, and
    /// nothing that was not published.
    pub(super) async fn check(&self) {
        if let Some((last, _)) = self.last {
            self.track.until(last + 1).await;
        }
        if let Err(fault) = self.find_fault() {
            let mut text = String::new();
            for got in &self.got {
                let _ = writeln!(text, "{got:?}");
            }
            panic!(
                "{fault}, in {} from {:?} (before: {:?}, begun: {:?}, told: {:?}, trimmed {}, trimming {}):\n{text}",
                self.track.name,
                self.from,
                self.before,
                self.begun,
                self.told,
                self.track.trimmed(),
                self.track.trimming(),
            );
        }
    }

    fn find_fault(&self) -> Result<(), String> {
        // Nothing from here on has been trimmed.
        let floor = self.track.trimming();
        let (mut low, mut high) = self.first();
        let mut gaps: Vec<(MessageId, MessageId, Option<u64>)> = Vec::new();
        // Who asks for what there is, or for a time, is told of no gap in front of it.
        let mut may_be_silent = matches!(self.from, From::Earliest | From::Time(_) | From::Ago(_));
        let mut last = match self.from {
            From::After(_, id) => Some(id),
            From::Latest => self.told,
            _ => None,
        };
        for got in &self.got {
            match got {
                Got::Gap { from, to, reason, missed } => {
                    if *reason != GapReason::Trimmed {
                        return Err(format!("a gap of another reason, {reason:?}"));
                    }
                    // Where all up to the cursor is gone, Valkey cannot tell whether more is.
                    if low > floor {
                        return Err(format!("a gap, and nothing from {low} on was trimmed"));
                    }
                    if gaps.is_empty() && last.is_some_and(|last| last != *from) {
                        return Err(format!("a gap from {from}, and the reader is at {last:?}"));
                    }
                    gaps.push((*from, *to, *missed));
                }
                Got::Message { id, payload } => {
                    let number = payload % TOPIC;
                    if self.track.id(number) != *id {
                        return Err(format!("{payload} is not {id}"));
                    }
                    if number < low {
                        return Err(format!("{number} where {low} was to come"));
                    }
                    if number > high {
                        if number > floor {
                            return Err(format!("{number} where {high} was to come, and {floor} is there"));
                        }
                        if gaps.is_empty() && !may_be_silent {
                            return Err(format!("{number} where {high} was to come, without a gap"));
                        }
                        if let [(from, _, Some(missed))] = gaps[..]
                            && low == high
                            && (missed < number - low || (last == Some(from) && missed > number - low))
                        {
                            return Err(format!("{missed} missed between {low} and {number}"));
                        }
                    }
                    if let Some((_, to, _)) = gaps.iter().find(|(_, to, _)| to > id) {
                        return Err(format!("a gap to {to} before {id}"));
                    }
                    gaps.clear();
                    may_be_silent = false;
                    last = Some(*id);
                    (low, high) = (number + 1, number + 1);
                }
            }
        }
        Ok(())
    }
}
