//! A live reader: what one connection reads, from any number of topics.
//!
//! It holds a cursor for each topic and nothing else. Its bell is rung when a feed has something; who
//! drives the reader takes what there is, as much as it can send now, and comes back, or sits down and
//! leaves the rest to the feeds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tidemill_proto::{MessageId, Since, TopicName};

use super::feed::Mark;
use super::hub::{Absent, Hub};
use super::item::{Budget, Item, Taken};
use super::line::{Line, Reading, Sitting, Standing};
use super::outlet::{NoOutlet, Outlet};
use super::seat::Seat;
use crate::relay::Failure;

/// Wait before a failed read of storage is repeated.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(2);
/// Topics that the log names of one reader.
const NOTED_TOPICS: usize = 5;

/// What one connection reads.
pub struct LiveReader<O: Outlet = NoOutlet> {
    hub: Arc<Hub>,
    /// Empty while it sits.
    lines: Vec<Line<O>>,
    seat: Arc<Seat<Sitting<O>>>,
    reading: Option<Reading<O>>,
    /// The line to look at first, so that a busy topic does not starve the others.
    turn: usize,
    retry: Duration,
}

impl<O: Outlet> fmt::Debug for LiveReader<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveReader").field("lines", &self.lines.len()).finish_non_exhaustive()
    }
}

impl<O: Outlet> LiveReader<O> {
    /// Returns a reader of nothing yet.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { hub, lines: Vec::new(), seat: Arc::default(), reading: None, turn: 0, retry: RETRY_FIRST }
    }

    /// Adds a topic, or moves the reader to another place in it, and returns the cursor where it
    /// starts.
    ///
    /// # Errors
    /// The topic does not exist, or the storage did not answer.
    pub async fn add(&mut self, topic: &TopicName, since: Since) -> Result<Option<MessageId>, Failure> {
        self.add_as(topic, since, Absent::Refuse).await
    }

    /// Adds a topic as [`add`](Self::add) does, also one that does not exist yet: its messages come
    /// once it is made, from the first one on.
    ///
    /// # Errors
    /// The storage did not answer.
    pub async fn add_awaited(
        &mut self,
        topic: &TopicName,
        since: Since,
    ) -> Result<Option<MessageId>, Failure> {
        self.add_as(topic, since, Absent::Await).await
    }

    async fn add_as(
        &mut self,
        topic: &TopicName,
        since: Since,
        absent: Absent,
    ) -> Result<Option<MessageId>, Failure> {
        let is_tail = matches!(since, Since::Cursor(tidemill_proto::Cursor::Latest));
        // Who begins a feed is told of the tail; everybody else asks for it.
        let mut resolved = None;
        let (feed, (cursor, seen), tail_of) = loop {
            // Before the question: the answer says nothing of what the feed comes to meanwhile.
            let mark = if is_tail { self.hub.mark(topic) } else { None };
            if resolved.is_none() && (!is_tail || mark.is_some()) {
                let place = self.hub.resolve(topic, since, absent).await?;
                resolved = Some((place, mark));
            }
            let (feed, begun) = self.hub.join(topic, absent).await?;
            // From here to the line nothing is waited for, so that who has joined is in the crowd.
            match resolved.or_else(|| begun.map(|tail| ((tail.last, true), Some(Mark::default())))) {
                Some((place, tail_of)) => break (feed, place, tail_of),
                // Somebody else has begun it at this moment.
                None => self.hub.leave(topic),
            }
        };
        self.remove(topic);
        self.lines.push(Line::enter(feed, self.seat.clone(), cursor, seen, tail_of));
        self.seat.call();
        Ok(cursor)
    }

    /// Takes a topic away; returns whether it was there.
    pub fn remove(&mut self, topic: &TopicName) -> bool {
        let Some(at) = self.lines.iter().position(|line| line.topic() == topic) else {
            return false;
        };
        let line = self.lines.swap_remove(at);
        self.reading.take_if(|reading| reading.is_for(&line.bell));
        line.leave(&self.hub);
        true
    }

    /// Returns how many topics are read.
    #[must_use]
    pub fn topics(&self) -> usize {
        self.lines.len()
    }

    /// Returns the cursor of each topic: that of the last item which was taken.
    #[must_use]
    pub fn cursors(&self) -> Vec<(TopicName, Option<MessageId>)> {
        self.lines.iter().map(|line| (line.topic().clone(), line.cursor())).collect()
    }

    /// Returns a topic's cursor.
    #[must_use]
    pub fn cursor(&self, topic: &TopicName) -> Option<MessageId> {
        self.lines.iter().find(|line| line.topic() == topic).and_then(Line::cursor)
    }

    /// Tells the log that the client took nothing for so long that its connection was cut, and up to
    /// where messages were on their way to it: no last word can be written to such a client.
    pub fn note_cut(&self) {
        let standing: Vec<String> = self
            .lines
            .iter()
            .take(NOTED_TOPICS)
            .map(|line| format!("{}={}", line.topic(), line.cursor().unwrap_or(MessageId::MIN)))
            .collect();
        tracing::info!(
            topics = self.lines.len(),
            cursors = standing.join(" "),
            "a client that took nothing was cut; up to these cursors messages were on their way to it"
        );
    }

    /// Waits until there is something, and takes it. Waits for ever where nothing is read.
    ///
    /// While the storage cannot be read, it waits: the messages come when it is back.
    ///
    /// # Cancel safety
    /// Cancel-safe: what is not returned is not taken, and a read of storage goes on.
    pub async fn next(&mut self, budget: Budget) -> Vec<Item> {
        loop {
            let items = self.take(budget);
            if !items.is_empty() {
                return items;
            }
            self.called().await;
        }
    }

    /// Takes what there is, which may be nothing; waits for storage where it has to be read, and for
    /// nothing else.
    ///
    /// # Cancel safety
    /// Cancel-safe: what is not returned is not taken, and a read of storage goes on.
    pub async fn catch_up(&mut self, budget: Budget) -> Vec<Item> {
        loop {
            let items = self.take(budget);
            match &mut self.reading {
                Some(reading) if items.is_empty() => reading.finish().await,
                _ => return items,
            }
        }
    }

    /// Waits for the next thing to do: until there may be something to take (`None`), or `until` is
    /// ready. Meanwhile, if the reader is up to date, the feeds write to `outlet`, which comes back
    /// with what its client has not taken.
    ///
    /// # Panics
    /// Never: nobody else takes the outlet from the seat.
    ///
    /// # Cancel safety
    /// None: the outlet would be lost. Await it to its end.
    pub async fn idle<T>(&mut self, outlet: O, until: impl Future<Output = T>) -> (O, Option<T>) {
        let kept = self.sit(outlet).err();
        let until = tokio::select! {
            until = until => Some(until),
            () = self.called() => None,
        };
        let outlet = kept.or_else(|| self.rise()).expect("nobody else takes it from the seat");
        (outlet, until)
    }

    /// Waits until there may be something to take.
    async fn called(&mut self) {
        match &mut self.reading {
            None => self.seat.called().await,
            Some(reading) => tokio::select! {
                () = reading.finish() => {}
                () = self.seat.called() => {}
            },
        }
    }

    /// Sits down, or returns the outlet: there is something to take, or storage has to be read.
    fn sit(&mut self, outlet: O) -> Result<(), O> {
        let is_up_to_date = self.reading.is_none() && self.lines.iter().all(Line::is_in_ring);
        if self.lines.is_empty() || !is_up_to_date {
            return Err(outlet);
        }
        let lines = std::mem::take(&mut self.lines);
        self.seat.sit(Sitting { lines, outlet }).map_err(|Sitting { lines, outlet }| {
            self.lines = lines;
            // For the bell that was rung.
            self.seat.call();
            outlet
        })
    }

    fn rise(&mut self) -> Option<O> {
        let Sitting { lines, outlet } = self.seat.rise()?;
        self.lines = lines;
        Some(outlet)
    }

    /// Takes what there is now, which may be nothing. Where storage has to be read it begins to.
    pub fn take(&mut self, budget: Budget) -> Vec<Item> {
        let mut taken = Taken::new(budget);
        if let Some(reading) = self.reading.take_if(|reading| reading.is_finished())
            && let Some(line) = self.lines.iter_mut().find(|line| reading.is_for(&line.bell))
        {
            self.retry = if line.take_read(&reading, &mut taken) {
                RETRY_FIRST
            } else {
                // It has waited so long already.
                (self.retry * 2).min(RETRY_LAST)
            };
            line.bell.keep_rung();
        }
        for _ in 0..self.lines.len() {
            self.turn = (self.turn + 1) % self.lines.len();
            if taken.is_full() {
                break;
            }
            if self.lines[self.turn].bell.is_rung() {
                self.take_from_line(self.turn, &mut taken);
            }
        }
        taken.items
    }

    fn take_from_line(&mut self, at: usize, taken: &mut Taken) {
        let line = &mut self.lines[at];
        // Whatever is rung from here on is looked at in the next turn.
        line.bell.silence();
        loop {
            match line.standing {
                Standing::Ring(from) | Standing::Apart(from) => {
                    if line.take_from_ring(from, taken) {
                        return;
                    }
                }
                Standing::Behind { seen, confirmed } => {
                    if self.reading.as_ref().is_some_and(|reading| reading.is_for(&line.bell)) {
                        // What storage gives comes first.
                        line.bell.keep_rung();
                        return;
                    }
                    if line.join_ring(confirmed) {
                        continue;
                    }
                    // A crowd of lines takes its turns; history is read with what is left of the budget.
                    if taken.items.is_empty() && self.reading.is_none() {
                        self.reading = Some(line.read(&self.hub, seen, taken.budget, self.retry));
                    } else {
                        line.bell.keep_rung();
                    }
                    return;
                }
            }
        }
    }
}

impl<O: Outlet> Drop for LiveReader<O> {
    fn drop(&mut self) {
        let sitting = self.seat.rise().map(|sitting| sitting.lines);
        for line in self.lines.drain(..).chain(sitting.into_iter().flatten()) {
            line.leave(&self.hub);
        }
    }
}
