//! Reading: ranges of stream entries become pages of messages.
//!
//! A read asks for entries in chunks, because the server bounds a range in entries and a page is
//! bounded in bytes: what entries of the topic weigh tells how many may come at once (see `reads`).

use tidemill_proto::page::Order;
use tidemill_proto::topics::RunState;
use tidemill_proto::{MessageId, Timestamp, TopicName};

use super::Shard;
use super::facts::{Beside, Numbers, Of, Proof};
use super::reads::{Ask, CHUNK_MAX, FoundEntries, Reads, SMALL_BYTES_MAX};
use crate::storage::history::{Behind, Hole, Verdict};
use crate::storage::{Batch, Epoch, GapCheck, Range, StorageError, StoredMessage};

/// Most expired entries looked at in one read, so that a read ends in time however many there are.
const EXPIRED_MAX: usize = 20_000;

impl Shard {
    /// Returns the messages of a range.
    pub(super) async fn read(&self, topic: &TopicName, range: Range) -> Result<Batch, StorageError> {
        if let Some(batch) = self.read_replica(topic, range).await {
            return Ok(batch);
        }
        let reads = if range.bytes_max <= SMALL_BYTES_MAX { &self.read } else { &self.page };
        self.read_over(reads, topic, range).await
    }

    /// Returns the messages of a range as the server has them that is asked here.
    pub(super) async fn read_over(
        &self,
        reads: &Reads,
        topic: &TopicName,
        range: Range,
    ) -> Result<Batch, StorageError> {
        let (stream, deleted) = (self.keys.stream(topic), self.keys.deleted(topic));
        let of = Of { stream: &stream, deleted: &deleted };
        let _room = reads.room_for(of.stream, range.limit, range.bytes_max).await?;
        let mut batch = self.collect(reads, of, topic, range).await?;
        if let (GapCheck::Follows { given: Some(_), .. }, Some(after), Some(reached)) =
            (range.gap_check, range.after, batch.reached)
            && batch.taken_out.by_request > 0
        {
            // Who counts counts those that were deleted between the others, too.
            let mut deleted = reads.deleted_between(of, after, reached).await?;
            batch.messages.iter().for_each(|message| _ = deleted.remove(&message.id));
            batch.looked_at += deleted.len() as u64;
        }
        Ok(batch)
    }

    async fn collect(
        &self,
        reads: &Reads,
        of: Of<'_>,
        topic: &TopicName,
        range: Range,
    ) -> Result<Batch, StorageError> {
        let mut batch = Batch::default();
        let mut collected = Collected { range, bytes: 0, expired: 0, after: range.after, holes: Vec::new() };
        let mut chunk = reads.first_chunk(of.stream, range.limit, range.bytes_max);
        let mut first_chunk = true;
        loop {
            let mut found = if first_chunk {
                let begun = collected.begin(reads, of, topic, chunk).await?;
                match (&begun.numbers, begun.proved) {
                    (Some(numbers), _) => {
                        batch.epoch = Some(numbers.epoch());
                        batch.taken_out = numbers.taken_out();
                        batch.state = numbers.state();
                    }
                    (None, proved) => {
                        batch.epoch = proved.map(|proof| Epoch::Marked(proof.epoch));
                        batch.state = proved.map_or(RunState::Open, |proof| proof.state);
                    }
                }
                collected.holes = begun.holes;
                if let Some(verdict) = begun.verdict {
                    batch.gap = Some(verdict.gap);
                    collected.after = verdict.resume;
                }
                begun.found
            } else {
                let found = collected.chunk(reads, of, chunk).await?;
                if !found.is_kept && collected.range.gap_check != GapCheck::None {
                    // What is behind here was trimmed meanwhile: the next read tells it.
                    batch.next = collected.after;
                    return Ok(batch);
                }
                found
            };
            if range.order == Order::Asc {
                // From here on this read goes on from entries that it has seen itself.
                collected.range.gap_check = GapCheck::Seen;
            }
            first_chunk = false;
            let entries = std::mem::take(&mut found.entries);
            let entry_bytes = mean_bytes(&entries);
            if collected.take(entries, &mut batch, self.clock.now()) {
                return Ok(batch);
            }
            if found.is_all {
                batch.at_end = true;
                return Ok(batch);
            }
            if collected.expired >= EXPIRED_MAX {
                batch.next = collected.after;
                return Ok(batch);
            }
            chunk = collected.next_chunk(batch.messages.len(), entry_bytes);
        }
    }

    /// Returns the message with this id, if there is one.
    pub(super) async fn get(
        &self,
        topic: &TopicName,
        id: MessageId,
    ) -> Result<Option<StoredMessage>, StorageError> {
        let stream = self.keys.stream(topic);
        let text = id.to_string();
        let (from, to) = (&text[..], &text[..]);
        let ask = Ask { stream: &stream, order: Order::Asc, from, to, count: 1, in_front: 0, bytes_max: 0 };
        let _room = self.read.room_for(&stream, 1, SMALL_BYTES_MAX).await?;
        let Some(entry) = self.read.range(ask).await?.entries.pop() else {
            self.read.must_exist(&stream).await?;
            return self.latest_of(topic, id).await;
        };
        let now = self.clock.now();
        Ok(Some(entry).filter(|entry| !entry.is_expired(now)))
    }
}

/// A page while it is collected.
struct Collected {
    range: Range,
    bytes: usize,
    expired: usize,
    /// The last id looked at.
    after: Option<MessageId>,
    /// Where messages were lost behind where it began.
    holes: Vec<Hole>,
}

/// A part of a page, behind a cursor.
#[derive(Debug)]
struct Chunk {
    entries: Vec<StoredMessage>,
    /// Whether there are no more.
    is_all: bool,
    /// Whether the cursor's message was asked for and is there.
    is_kept: bool,
}

/// In how many steps of the server a part of a page, and what is known beside it, were read.
#[derive(Clone, Copy)]
enum Steps {
    One,
    Several,
}

/// The first part of a page, and what is to be told in front of it.
struct FirstPart {
    found: Chunk,
    numbers: Option<Numbers>,
    /// Which topic it is, where that was proved without the numbers, and that nothing is missing.
    proved: Option<Proof>,
    holes: Vec<Hole>,
    verdict: Option<Verdict>,
}

impl Chunk {
    const NOTHING: Self = Self { entries: Vec::new(), is_all: true, is_kept: false };

    /// Whether nothing is missing behind a cursor of a topic of this epoch, with whose message it had been given so
    /// many, where that is counted. There may be more than the proof knows of: what came since, and what it cannot count.
    fn is_proved(&self, proof: Proof, epoch: u64, given: Option<u64>) -> bool {
        let is_right_count = |given| !self.is_all || given + self.entries.len() as u64 >= proof.given;
        self.is_kept && proof.epoch == epoch && given.is_none_or(is_right_count)
    }
}

impl Collected {
    /// Takes entries into the page and tells whether it is full.
    fn take(&mut self, entries: Vec<StoredMessage>, batch: &mut Batch, now: Timestamp) -> bool {
        for entry in entries {
            let id = entry.id;
            if self.is_in_front_of_a_hole(id) && batch.looked_at > 0 {
                batch.next = batch.next.or(batch.reached);
                return true;
            }
            let len = entry.body.len_bytes();
            let expired = entry.is_expired(now);
            if !expired && !batch.messages.is_empty() && self.bytes + len > self.range.bytes_max {
                return true;
            }
            self.after = Some(id);
            batch.reached = Some(id);
            batch.looked_at += 1;
            if expired {
                self.expired += 1;
                continue;
            }
            self.bytes += len;
            batch.messages.push(entry);
            batch.next = Some(id);
            if batch.messages.len() == self.range.limit || self.bytes >= self.range.bytes_max {
                return true;
            }
        }
        false
    }

    /// Whether there is a hole between the last id looked at and this one: the next read tells it.
    fn is_in_front_of_a_hole(&self, id: MessageId) -> bool {
        self.range.order == Order::Asc && self.holes.iter().any(|hole| hole.lies_between(self.after, id))
    }

    /// Returns how many entries to ask for next, from what is missing and what entries weigh here.
    fn next_chunk(&self, found: usize, entry_bytes: usize) -> usize {
        let fitting = self.range.bytes_max.saturating_sub(self.bytes) / entry_bytes.max(1);
        let missing = self.range.limit - found;
        // Where most entries have expired, asking for just what is missing would take many turns.
        let wanted = if found == 0 { CHUNK_MAX } else { missing };
        wanted.min(fitting.saturating_add(1)).clamp(1, CHUNK_MAX)
    }

    /// Reads the first entries of a page, and judges what lies behind its cursor.
    ///
    /// That the cursor's message is kept proves that nothing was trimmed behind it, at the price of one entry. Along with
    /// the entries comes a proof that none is missing between them. Where there is none, what the server knows beside its
    /// entries is asked for; for readers that do not follow at the end of the topic, too. What looks like a gap is looked
    /// at again in one step of the server.
    async fn begin(
        &self,
        reads: &Reads,
        of: Of<'_>,
        topic: &TopicName,
        count: usize,
    ) -> Result<FirstPart, StorageError> {
        let gap_check = self.range.gap_check;
        let cursor = self.after.unwrap_or(MessageId::MIN);
        let (found, numbers, holes) = match (gap_check, self.asked(of, count)) {
            (GapCheck::None, asked) => {
                let (found, holes) = match asked {
                    // Who reads backwards passes holes from behind, and is told of none.
                    Some(_) if self.range.order == Order::Desc => {
                        (self.chunk(reads, of, count).await?, Vec::new())
                    }
                    Some(asked) => {
                        let (found, beside) = reads.range_and_proof(asked.ask(), of, cursor).await?;
                        (asked.chunk(found), beside.holes)
                    }
                    None => (Chunk::NOTHING, Vec::new()),
                };
                if found.entries.is_empty() {
                    reads.must_exist(of.stream).await?;
                }
                return Ok(FirstPart { found, numbers: None, proved: None, holes, verdict: None });
            }
            (GapCheck::Follows { epoch: Epoch::Marked(epoch), given, .. }, Some(asked))
                if asked.own.is_some() =>
            {
                let (found, Beside { proof, holes }) = reads.range_and_proof(asked.ask(), of, cursor).await?;
                let found = asked.chunk(found);
                let proved = proof.filter(|proof| found.is_proved(*proof, epoch, given));
                if proved.is_some() {
                    return Ok(FirstPart { found, numbers: None, proved, holes, verdict: None });
                }
                let (found, numbers) = reads.range_and_numbers(asked.ask(), of, cursor).await?;
                (asked.chunk(found), Some(numbers), holes)
            }
            (GapCheck::Epoch | GapCheck::Follows { .. }, Some(asked)) => {
                let (found, numbers) = reads.range_and_numbers(asked.ask(), of, cursor).await?;
                (asked.chunk(found), Some(numbers), Vec::new())
            }
            (GapCheck::Seen, Some(asked)) => {
                let (found, Beside { proof, holes }) = reads.range_and_proof(asked.ask(), of, cursor).await?;
                let found = asked.chunk(found);
                let is_to_be_asked =
                    found.is_all || (self.after.is_some() && (!found.is_kept || proof.is_none()));
                let numbers = if is_to_be_asked { Some(reads.numbers_of(of, cursor).await?) } else { None };
                (found, numbers, holes)
            }
            // Nothing can lie there.
            (_, None) => (Chunk::NOTHING, Some(reads.numbers_of(of, cursor).await?), Vec::new()),
        };
        let holes = numbers.as_ref().map_or(holes, |numbers| numbers.holes().to_vec());
        let mut begun = FirstPart { found, numbers, proved: None, holes, verdict: None };
        let Some(cursor) = self.after.filter(|_| gap_check != GapCheck::Epoch) else { return Ok(begun) };
        begun.verdict = self.judge(topic, cursor, &begun, Steps::Several);
        if begun.verdict.is_some()
            && let Some(asked) = self.asked(of, count)
        {
            let (found, numbers) = reads.range_with_history(asked.ask(), of, cursor).await?;
            begun.found = asked.chunk(found);
            begun.holes = numbers.holes().to_vec();
            begun.numbers = Some(numbers);
            begun.verdict = self.judge(topic, cursor, &begun, Steps::One);
        }
        if let Some(verdict) = &begun.verdict
            && verdict.resume != Some(cursor)
        {
            let range = Range { gap_check: GapCheck::None, ..self.range };
            let again = Self { range, bytes: 0, expired: 0, after: verdict.resume, holes: Vec::new() };
            begun.found = again.chunk(reads, of, count).await?;
        }
        Ok(begun)
    }

    /// Judges a cursor by what has been found.
    fn judge(
        &self,
        topic: &TopicName,
        cursor: MessageId,
        begun: &FirstPart,
        steps: Steps,
    ) -> Option<Verdict> {
        let numbers = begun.numbers.as_ref()?;
        let Chunk { entries, is_all, is_kept } = &begun.found;
        let id = |entry: &StoredMessage| entry.id;
        let last = entries.last().map(id);
        let facts = numbers.facts();
        let is_end = match steps {
            Steps::One => *is_all,
            // What was published since the entries were read is not counted with them. The newest may have been
            // taken out as well.
            Steps::Several => {
                let seen = last.unwrap_or(cursor).max(cursor);
                *is_all && (facts.last_given <= seen || facts.taken_out == Some(facts.last_given))
            }
        };
        let count = is_end.then_some(entries.len() as u64);
        let behind = Behind { is_kept: *is_kept, first: entries.first().map(id), last, count };
        facts.judge(topic, cursor, self.range.gap_check, behind)
    }

    /// Reads the next entries of a page.
    async fn chunk(&self, reads: &Reads, of: Of<'_>, count: usize) -> Result<Chunk, StorageError> {
        match self.asked(of, count) {
            Some(asked) => Ok(asked.chunk(reads.range(asked.ask()).await?)),
            None => Ok(Chunk::NOTHING),
        }
    }

    /// Returns what to ask for next, or `None` where nothing can lie there. A cursor whose reader is to be told
    /// of gaps is asked for with its own entry.
    fn asked<'a>(&self, of: Of<'a>, count: usize) -> Option<EntriesQuery<'a>> {
        let Range { order, bytes_max, gap_check, .. } = self.range;
        let with_own = matches!(gap_check, GapCheck::Seen | GapCheck::Follows { .. });
        // No message has the smallest id.
        let own = self.after.filter(|cursor| with_own && *cursor > MessageId::MIN);
        let (from, to) = match own {
            Some(cursor) => (cursor.to_string(), "+"),
            None => bounds(order, self.after)?,
        };
        Some(EntriesQuery { stream: of.stream, order, from, to, count, own, bytes_max })
    }
}

/// A question for entries.
struct EntriesQuery<'a> {
    stream: &'a str,
    order: Order,
    from: String,
    to: &'static str,
    count: usize,
    /// The cursor whose own entry is asked for, too.
    own: Option<MessageId>,
    bytes_max: usize,
}

impl EntriesQuery<'_> {
    fn ask(&self) -> Ask<'_> {
        Ask {
            stream: self.stream,
            order: self.order,
            from: &self.from,
            to: self.to,
            count: self.count,
            in_front: usize::from(self.own.is_some()),
            bytes_max: self.bytes_max,
        }
    }

    fn chunk(&self, found: FoundEntries) -> Chunk {
        let FoundEntries { mut entries, is_all } = found;
        let is_kept = self.own.is_some() && entries.first().map(|entry| entry.id) == self.own;
        if is_kept {
            entries.remove(0);
        }
        Chunk { entries, is_all, is_kept }
    }
}

/// Returns the bounds of a range after an id, or `None` where nothing can lie there.
fn bounds(order: Order, after: Option<MessageId>) -> Option<(String, &'static str)> {
    match (order, after) {
        (Order::Asc, None) => Some(("-".to_owned(), "+")),
        (Order::Desc, None) => Some(("+".to_owned(), "-")),
        (Order::Asc, Some(id)) => id.next().map(|id| (id.to_string(), "+")),
        (Order::Desc, Some(id)) => id.previous().map(|id| (id.to_string(), "-")),
    }
}

fn mean_bytes(entries: &[StoredMessage]) -> usize {
    let bytes: usize = entries.iter().map(|entry| entry.body.len_bytes()).sum();
    bytes / entries.len().max(1)
}
