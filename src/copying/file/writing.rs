//! Writing an export: a source that is listened to, and a target that keeps nothing but the file.
//!
//! What the source answers goes to the file as it comes. What it says of a topic, a bucket or a group itself goes there
//! when the copy takes it over: as it is then, the pages belong to it.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tidemill_proto::copy::CopyRead;
use tidemill_proto::{MessageId, TopicName};
use tokio::task::spawn_blocking;

use super::super::access::Documents;
use super::super::side::{CopySide, SideError, Told, Write, ask};
use super::frames::{head, pack};
use super::records::{Counts, FORM, FORM_WITH_ACCESS, Head, Header, Origin, text_of, text_of_access};
use crate::storage::{CopiedTopic, Freeze};

/// An export that is being written.
#[derive(Clone, Debug, Default)]
pub struct Export(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Held while a record is written: only by who may wait for as long as that takes.
    out: Mutex<Out>,
    has_begun: AtomicBool,
    /// Topics that have begun and are not whole, as far as their messages have come; and how many these are.
    topics: Mutex<HashMap<TopicName, (Box<CopiedTopic>, u64)>>,
}

/// Where it is written to, once that has begun.
#[derive(Default)]
struct Out {
    writer: Option<Box<dyn io::Write + Send>>,
    counts: Counts,
    /// Why nothing more can be written.
    failure: Option<io::Error>,
}

impl fmt::Debug for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Out").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl Export {
    /// Returns a source that answers as this one, and is written down from [`begin`](Self::begin) on.
    #[must_use]
    pub fn source(&self, side: Arc<dyn CopySide>) -> Arc<dyn CopySide> {
        Arc::new(Heard { side, shared: self.0.clone() })
    }

    /// Returns the target to which that source is to be copied.
    #[must_use]
    pub fn target(&self) -> Arc<dyn CopySide> {
        Arc::new(Kept(self.0.clone()))
    }

    /// Begins to write, with who may do what where that was asked for.
    ///
    /// # Errors
    /// The source does not say who it is, or nothing can be written: then [`failure`](Self::failure) says why.
    pub async fn begin(
        &self,
        source: &dyn CopySide,
        writer: Box<dyn io::Write + Send>,
        origin: &Origin,
        access: Option<Documents>,
    ) -> Result<(), SideError> {
        let from: Vec<String> = ask(source, CopyRead::Identity { topic: None }).await?;
        self.0.out.lock().writer = Some(writer);
        self.0.has_begun.store(true, Ordering::Relaxed);
        let form = if access.is_some() { FORM_WITH_ACCESS } else { FORM };
        let header = Header::new(origin, from, form);
        self.0.write(move || text_of(&header, None), |_| {}).await?;
        match access {
            Some(access) => self.0.write(move || text_of_access(&access), |_| {}).await,
            None => Ok(()),
        }
    }

    /// Writes the last record, and gives back what it was written to.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn finish(&self) -> io::Result<Counts> {
        let mut counts = self.0.out.lock().counts;
        counts.records += 1;
        let written = self.0.write(move || text_of(&Head::End(counts), None), |_| {}).await;
        let shared = self.0.clone();
        let flushed = spawn_blocking(move || {
            let mut out = shared.out.lock();
            out.writer.take().map_or(Ok(()), |mut writer| writer.flush())
        });
        if let Some(failure) = self.failure() {
            return Err(failure);
        }
        written.map_err(io::Error::other)?;
        flushed.await??;
        Ok(counts)
    }

    /// Returns why nothing more can be written, once.
    #[must_use]
    pub fn failure(&self) -> Option<io::Error> {
        self.0.out.lock().failure.take()
    }
}

impl Shared {
    /// Writes a record, beside whatever else is to be done: compressing takes its time.
    async fn write(
        self: &Arc<Self>,
        text: impl FnOnce() -> serde_json::Result<Vec<u8>> + Send + 'static,
        count: impl FnOnce(&mut Counts) + Send + 'static,
    ) -> Result<(), SideError> {
        let shared = self.clone();
        let write = move || {
            let packed = text().map_err(io::Error::from).and_then(|text| pack(&text));
            let mut out = shared.out.lock();
            let record = out.counts.records;
            let Some(writer) = &mut out.writer else { return Err("the file is closed") };
            let written = packed.and_then(|packed| {
                writer.write_all(&head(record, &packed))?;
                writer.write_all(&packed)
            });
            match written {
                Ok(()) => {
                    out.counts.records += 1;
                    count(&mut out.counts);
                    Ok(())
                }
                Err(failure) => {
                    // A part of it may be written: nothing can come behind it.
                    out.writer = None;
                    out.failure = Some(failure);
                    Err("the file cannot be written")
                }
            }
        };
        match spawn_blocking(write).await {
            Ok(written) => written.map_err(|why| SideError::Refused(why.into())),
            Err(ended) => Err(SideError::Refused(ended.into())),
        }
    }

    async fn answer(
        self: &Arc<Self>,
        asked: CopyRead,
        told: Told,
        count: impl FnOnce(&mut Counts) + Send + 'static,
    ) -> Result<(), SideError> {
        self.write(move || text_of(&Head::Asked(asked), Some(told)), count).await
    }
}

/// A source that is listened to.
#[derive(Debug)]
struct Heard {
    side: Arc<dyn CopySide>,
    shared: Arc<Shared>,
}

/// Returns the question to which this is the answer in the file, if it goes there as it comes.
fn kept_as(asked: &CopyRead, told: &Told) -> Option<CopyRead> {
    match (asked, told) {
        (
            CopyRead::Identity { .. }
            | CopyRead::TopicNames { .. }
            | CopyRead::BucketNames { .. }
            | CopyRead::RefusesNew
            | CopyRead::Retention
            // When they are taken over.
            | CopyRead::Topic { .. }
            | CopyRead::Group { .. }
            | CopyRead::Bucket { .. },
            _,
        ) => None,
        // Where there is no page, nothing is.
        (_, Told::Messages(page)) if page.is_empty() => None,
        (CopyRead::SomeKeys { bucket, keys }, Told::SomeKeys(found)) => {
            let keys = keys.iter().take(found.len()).cloned().collect();
            Some(CopyRead::SomeKeys { bucket: bucket.clone(), keys })
        }
        (asked, _) => Some(asked.clone()),
    }
}

#[async_trait]
impl CopySide for Heard {
    async fn read(&self, asked: &CopyRead) -> Result<Told, SideError> {
        let told = self.side.read(asked).await?;
        if self.shared.has_begun.load(Ordering::Relaxed)
            && let Some(asked) = kept_as(asked, &told)
        {
            self.shared.answer(asked, told.clone(), |_| {}).await?;
        }
        Ok(told)
    }

    async fn write(&self, write: Write) -> Result<(), SideError> {
        self.side.write(write).await
    }

    fn behind(&self) -> Option<&dyn CopySide> {
        Some(&*self.side)
    }
}

/// The target, which has what it needs to be gone on with after a fault of the source.
#[derive(Debug)]
struct Kept(Arc<Shared>);

#[async_trait]
impl CopySide for Kept {
    async fn read(&self, asked: &CopyRead) -> Result<Told, SideError> {
        Ok(match asked {
            CopyRead::Identity { .. } => Told::Identity(vec!["export".to_owned()]),
            CopyRead::TopicNames { .. } => Told::TopicNames(Vec::new()),
            CopyRead::BucketNames { .. } => Told::BucketNames(Vec::new()),
            CopyRead::RefusesNew => Told::Flag(false),
            CopyRead::Retention => Told::Seconds(None),
            CopyRead::Topic { topic } => match self.0.topics.lock().get(topic) {
                Some((topic, _)) => Told::Topic(topic.clone()),
                None => return Err(SideError::Missing),
            },
            // One that was broken off begins again.
            CopyRead::Bucket { .. } => return Err(SideError::Missing),
            // What is not shown for its key is not shown by the source.
            CopyRead::Latest { .. } => Told::Messages(Vec::new()),
            CopyRead::Messages { .. }
            | CopyRead::Deletions { .. }
            | CopyRead::Groups { .. }
            | CopyRead::Group { .. }
            | CopyRead::Pending { .. }
            | CopyRead::Dead { .. }
            | CopyRead::Unique { .. }
            | CopyRead::Waiting { .. }
            | CopyRead::Recurring { .. }
            | CopyRead::Keys { .. }
            | CopyRead::SomeKeys { .. }
            | CopyRead::Ends { .. }
            | CopyRead::Changes { .. } => return Err(SideError::Refused("a file tells nothing yet".into())),
        })
    }

    async fn write(&self, write: Write) -> Result<(), SideError> {
        let shared = &self.0;
        match write {
            Write::Begin(topic) => {
                let name = topic.topic.topic_name.clone();
                let begun =
                    Box::new(CopiedTopic { last: MessageId::MIN, freeze: Some(Freeze::Importing), ..*topic });
                shared.topics.lock().insert(name.clone(), (begun, 0));
                shared.write(move || text_of(&Head::Begin(name), None), |_| {}).await
            }
            Write::Messages { topic, messages, .. } => {
                if let (Some((begun, count)), Some(last)) =
                    (shared.topics.lock().get_mut(&topic), messages.last())
                {
                    begun.last = last.id;
                    *count += messages.len() as u64;
                }
                Ok(())
            }
            Write::Group { topic, group } => {
                let asked = CopyRead::Group { topic, group: group.group.clone() };
                shared.answer(asked, Told::Group(group), |_| {}).await
            }
            Write::Finish { topic, .. } => {
                let name = topic.topic.topic_name.clone();
                let messages = shared.topics.lock().remove(&name).map_or(0, |(_, count)| count);
                let count = move |counts: &mut Counts| {
                    counts.topics += 1;
                    counts.messages += messages;
                };
                shared.answer(CopyRead::Topic { topic: name }, Told::Topic(topic), count).await
            }
            Write::BeginBucket(bucket) => {
                let name = bucket.state.bucket.clone();
                shared.write(move || text_of(&Head::BeginBucket(name), None), |_| {}).await
            }
            Write::FinishBucket(bucket) => {
                let (name, keys) = (bucket.state.bucket.clone(), bucket.state.keys);
                let count = move |counts: &mut Counts| {
                    counts.buckets += 1;
                    counts.keys += keys;
                };
                shared.answer(CopyRead::Bucket { bucket: name }, Told::Bucket(bucket), count).await
            }
            Write::Delete { topic } => {
                shared.topics.lock().remove(&topic);
                Ok(())
            }
            // What they take over has been heard.
            Write::Pending { .. }
            | Write::Dead { .. }
            | Write::Unique { .. }
            | Write::Waiting { .. }
            | Write::Keys { .. }
            | Write::Ends { .. }
            | Write::Changes { .. }
            | Write::Forget { .. }
            | Write::DeleteBucket { .. } => Ok(()),
            Write::Mark { .. }
            | Write::RefuseNew { .. }
            | Write::Freeze { .. }
            | Write::FreezeBucket { .. } => Err(SideError::Refused("a file has no state to change".into())),
        }
    }

    fn tells_what_it_has(&self) -> bool {
        false
    }

    fn behind(&self) -> Option<&dyn CopySide> {
        None
    }
}
