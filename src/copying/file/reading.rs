//! An export as a source: it is gone through once and checked, and then asked as any other side.
//!
//! In memory it has where each record lies, and the page that is asked for.

use std::collections::BTreeMap;
use std::env;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use async_trait::async_trait;
use tidemill_proto::copy::{COPY_VERSION, CopyRead};
use tidemill_proto::{BucketName, KeyName, MessageId, TopicName};
use tokio::task::spawn_blocking;

use super::super::access::Documents;
use super::super::side::{Answer, CopySide, PAGE_BYTES, SideError, Told, Write};
use super::FileError;
use super::checking::checked;
use super::frames::{self, HEAD_BYTES, Place};
use super::index::{Index, Of, Pages};
use super::records::{Counts, FORM, FORM_WITH_ACCESS, Head, Header, access_of, told_of};
use crate::storage::{CopiedKey, CopiedKeys, IMPORTED_MAX, StoredMessage};

/// Bytes that are read at once while it is gone through.
const READ_BYTES: usize = 1024 * 1024;

/// An export that is whole.
#[derive(Clone, Debug)]
pub struct ExportedFile(Arc<Exported>);

#[derive(Debug)]
struct Exported {
    file: File,
    header: Header,
    counts: Counts,
    index: Index,
    /// Who may do what, where it was asked for.
    access: Option<Documents>,
}

impl ExportedFile {
    /// Goes through a file, and checks that it is whole and that each answer can be one. It takes as long as reading it
    /// takes.
    ///
    /// # Errors
    /// It is not whole, or is none.
    pub fn open(mut file: File) -> Result<Self, FileError> {
        file.seek(SeekFrom::Start(0))?;
        let (header, counts, index) = scan(&mut BufReader::with_capacity(READ_BYTES, &file))?;
        let access = index.access.map(|place| read_access(&file, place)).transpose()?;
        Ok(Self(Arc::new(Exported { file, header, counts, index, access })))
    }

    /// Takes an export from where it can be read only once, into a file without a name, and checks it.
    ///
    /// # Errors
    /// As above, or the file cannot be made.
    pub fn take(from: &mut impl Read) -> Result<Self, FileError> {
        let folder = env::temp_dir();
        let not_kept = |cause| FileError::NotKept { folder: folder.clone(), cause };
        let mut file = tempfile::tempfile_in(&folder).map_err(not_kept)?;
        let mut bytes = vec![0; READ_BYTES];
        loop {
            match from.read(&mut bytes) {
                Ok(0) => return Self::open(file),
                Ok(count) => file.write_all(&bytes[..count]).map_err(not_kept)?,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(cause.into()),
            }
        }
    }

    /// Returns what it says of itself.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.0.header
    }

    /// Returns users, tokens and roles, if they are in it.
    #[must_use]
    pub fn access(&self) -> Option<&Documents> {
        self.0.access.as_ref()
    }

    /// Returns what is in it.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.counts
    }
}

/// Reads a file from its first byte to its last.
fn scan(file: &mut impl Read) -> Result<(Header, Counts, Index), FileError> {
    let mut place = Place { record: 0, at: 0 };
    let mut header: Option<Header> = None;
    let mut index = Index::default();
    loop {
        let frame = frames::read(file, place)?;
        let Some(frame) = frame else {
            return Err(FileError::CutOff { records: place.record, at: place.at });
        };
        let line = frames::first_line(&frame, place)?;
        let next = Place { record: place.record + 1, at: place.at + (HEAD_BYTES + frame.len()) as u64 };
        let Some(header) = &header else {
            header = Some(read_header(&line)?);
            place = next;
            continue;
        };
        match serde_json::from_slice(&line).map_err(|cause| place.odd(cause.to_string()))? {
            Head::End(counts) => {
                if file.read(&mut [0])? > 0 {
                    return Err(FileError::Behind { at: next.at });
                }
                index.close().map_err(|(place, why)| place.odd(why))?;
                let is_all = counts.records == next.record
                    && counts.topics == index.topics.len() as u64
                    && counts.buckets == index.buckets.len() as u64;
                if !is_all {
                    return Err(place.odd("it counts other records, topics or buckets than there are"));
                }
                return Ok((header.clone(), counts, index));
            }
            Head::Asked(asked) => {
                checked(&asked, &frames::rest(&frame, place)?).map_err(|why| place.odd(why))?;
                index.add(Head::Asked(asked), place);
            }
            head => index.add(head, place),
        }
        place = next;
    }
}

fn read_header(line: &[u8]) -> Result<Header, FileError> {
    /// What every form has.
    #[derive(serde::Deserialize)]
    struct Forms {
        tidemill_export: u32,
        copy_version: u32,
    }
    let Forms { tidemill_export, copy_version } =
        serde_json::from_slice(line).map_err(|_| FileError::NotAnExport)?;
    if !(FORM..=FORM_WITH_ACCESS).contains(&tidemill_export) || copy_version != COPY_VERSION {
        return Err(FileError::OtherForm(format!(
            "it has the form {tidemill_export}.{copy_version}, and this version of Tidemill reads {FORM}.{COPY_VERSION} and {FORM_WITH_ACCESS}.{COPY_VERSION}"
        )));
    }
    serde_json::from_slice(line).map_err(|cause| Place { record: 0, at: 0 }.odd(cause.to_string()))
}

/// Reads who may do what.
fn read_access(file: &File, place: Place) -> Result<Documents, FileError> {
    let frame = frames::read(&mut Onward { file, at: place.at }, place)?;
    let frame = frame.ok_or(FileError::CutOff { records: place.record, at: place.at })?;
    access_of(&frames::rest(&frame, place)?).map_err(|why| place.odd(why))
}

/// Why a question has no answer.
enum NoAnswer {
    Missing,
    File(FileError),
}

impl From<FileError> for NoAnswer {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl From<NoAnswer> for SideError {
    fn from(why: NoAnswer) -> Self {
        match why {
            NoAnswer::Missing => Self::Missing,
            NoAnswer::File(error) => Self::Refused(error.into()),
        }
    }
}

/// The file from a place on.
struct Onward<'a> {
    file: &'a File,
    at: u64,
}

impl Read for Onward<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(bytes, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Exported {
    fn answer(&self, asked: &CopyRead) -> Result<Told, NoAnswer> {
        let Self { header, index, .. } = self;
        let topic = |topic| index.topics.get(topic).ok_or(NoAnswer::Missing);
        let bucket = |bucket: &BucketName| index.buckets.get(bucket).ok_or(NoAnswer::Missing);
        Ok(match asked {
            CopyRead::Identity { .. } => Told::Identity(vec![format!("export/{}", header.id)]),
            CopyRead::TopicNames { prefix, after } => {
                let behind = after.as_ref().map_or(Unbounded, Excluded);
                let names = index.topics.range::<TopicName, _>((behind, Unbounded));
                let names = names.map(|(name, _)| name).filter(|name| name.as_str().starts_with(prefix));
                Told::TopicNames(names.take(IMPORTED_MAX).cloned().collect())
            }
            CopyRead::BucketNames { after } => {
                let behind = after.as_ref().map_or(Unbounded, Excluded);
                let names = index.buckets.range::<BucketName, _>((behind, Unbounded)).map(|(name, _)| name);
                Told::BucketNames(names.take(IMPORTED_MAX).cloned().collect())
            }
            CopyRead::RefusesNew => Told::Flag(false),
            CopyRead::Retention => Told::Seconds(None),
            CopyRead::Topic { topic: name } => self.load(topic(name)?.whole)?,
            CopyRead::Bucket { bucket: name } => self.load(bucket(name)?.whole)?,
            CopyRead::Messages { topic: name, after } => {
                Told::Messages(self.messages(&topic(name)?.log, *after)?)
            }
            CopyRead::Changes { bucket: name, after } => {
                Told::Messages(self.messages(&bucket(name)?.log, *after)?)
            }
            CopyRead::Latest { topic: name, after } => {
                Told::Messages(self.latest(&topic(name)?.latest, *after)?)
            }
            CopyRead::Keys { bucket: name, after } => Told::Keys(self.keys(bucket(name)?, after.as_ref())?),
            CopyRead::SomeKeys { bucket: name, keys } => Told::SomeKeys(self.some_keys(bucket(name)?, keys)?),
            CopyRead::Ends { bucket: name, .. } => self.load(bucket(name)?.other(asked))?,
            CopyRead::Deletions { topic: name }
            | CopyRead::Groups { topic: name }
            | CopyRead::Group { topic: name, .. }
            | CopyRead::Pending { topic: name, .. }
            | CopyRead::Dead { topic: name, .. }
            | CopyRead::Unique { topic: name, .. }
            | CopyRead::Waiting { topic: name, .. }
            | CopyRead::Recurring { topic: name } => self.load(topic(name)?.other(asked))?,
        })
    }

    /// Returns what a record tells.
    fn load(&self, place: Option<Place>) -> Result<Told, NoAnswer> {
        let place = place.ok_or(NoAnswer::Missing)?;
        let frame = frames::read(&mut Onward { file: &self.file, at: place.at }, place)?;
        let frame = frame.ok_or(FileError::CutOff { records: place.record, at: place.at })?;
        Ok(told_of(&frames::rest(&frame, place)?).map_err(|why| place.odd(why))?)
    }

    fn load_as<A: Answer>(&self, place: Place) -> Result<A, NoAnswer> {
        let told = self.load(Some(place))?;
        Ok(A::of(told).ok_or_else(|| place.odd("it tells something else than was asked"))?)
    }

    /// Returns the first messages behind an id that a page has.
    fn messages(&self, pages: &Pages, after: MessageId) -> Result<Vec<StoredMessage>, NoAnswer> {
        let before = pages.range(..=after).next_back();
        let behind = pages.range((Excluded(after), Unbounded)).next();
        for (_, place) in before.into_iter().chain(behind) {
            let mut page: Vec<StoredMessage> = self.load_as(*place)?;
            page.retain(|message| message.id > after);
            if !page.is_empty() {
                return Ok(page);
            }
        }
        Ok(Vec::new())
    }

    /// The same of all times that pages were read, as one.
    fn latest(&self, times: &[Pages], after: MessageId) -> Result<Vec<StoredMessage>, NoAnswer> {
        let mut all: BTreeMap<MessageId, StoredMessage> = BTreeMap::new();
        // Behind the end of one page, another time may have more.
        let mut end: Option<MessageId> = None;
        for pages in times {
            let page = self.messages(pages, after)?;
            let Some(last) = page.last().map(|message| message.id) else { continue };
            end = Some(end.map_or(last, |end| end.min(last)));
            all.extend(page.into_iter().map(|message| (message.id, message)));
        }
        let page = all.into_values();
        Ok(page.take_while(|message| end.is_none_or(|end| message.id <= end)).collect())
    }

    /// Returns a page of keys: as they were read, with those in their places that were changed since.
    fn keys(&self, of: &Of, after: Option<&KeyName>) -> Result<CopiedKeys, NoAnswer> {
        let start = of.keys.range(..=after.cloned()).next_back();
        let (_, place) = start.ok_or(NoAnswer::Missing)?;
        let CopiedKeys { mut keys, mut next } = self.load_as(*place)?;
        let behind = after.map_or(Unbounded, Excluded);
        let up_to = next.as_ref().map_or(Unbounded, Included);
        let changed = of.changed.range::<KeyName, _>((behind, up_to)).take(IMPORTED_MAX);
        let changed: Vec<(&KeyName, (Place, usize))> = changed.map(|(key, at)| (key, *at)).collect();
        if changed.len() == IMPORTED_MAX {
            next = changed.last().map(|(key, _)| (*key).clone());
        }
        let is_here = |key: &KeyName| {
            after.is_none_or(|after| key > after) && next.as_ref().is_none_or(|next| key <= next)
        };
        keys.retain(|one| is_here(&one.entry.key) && !of.changed.contains_key(&one.entry.key));
        keys.extend(self.changed(changed.into_iter().map(|(_, at)| at).collect())?.into_iter().flatten());
        keys.sort_unstable_by(|one, other| one.entry.key.cmp(&other.entry.key));
        let mut bytes = 0;
        let fits = |one: &CopiedKey| {
            let is_first = bytes == 0;
            bytes += bytes_of(one);
            is_first || bytes <= 2 * PAGE_BYTES
        };
        let count = keys.iter().map(fits).take_while(|fits| *fits).count().min(IMPORTED_MAX);
        if count < keys.len() {
            keys.truncate(count);
            next = keys.last().map(|one| one.entry.key.clone());
        }
        Ok(CopiedKeys { keys, next })
    }

    /// Returns keys that were changed since they were read, by where they are told, in any order.
    fn changed(&self, mut places: Vec<(Place, usize)>) -> Result<Vec<Option<CopiedKey>>, NoAnswer> {
        places.sort_unstable_by_key(|(place, at)| (place.at, *at));
        let mut all = Vec::with_capacity(places.len());
        for some in places.chunk_by(|(one, _), (other, _)| one == other) {
            let Some((place, _)) = some.first() else { continue };
            let mut told: Vec<Option<CopiedKey>> = self.load_as(*place)?;
            let pick = |(_, at): &(Place, usize)| told.get_mut(*at).and_then(Option::take);
            all.extend(some.iter().map(pick));
        }
        Ok(all)
    }

    /// Returns the first of some keys, as they are in the end: those that one record tells.
    fn some_keys(&self, of: &Of, keys: &[KeyName]) -> Result<Vec<Option<CopiedKey>>, NoAnswer> {
        let page_of = |key: &KeyName| of.keys.range(..Some(key.clone())).next_back().map(|(_, place)| *place);
        let place_of = |key: &KeyName| match of.changed.get(key) {
            Some((place, at)) => (Some(*place), Some(*at)),
            None => (page_of(key), None),
        };
        let Some(first) = keys.first() else { return Ok(Vec::new()) };
        let (place, at) = place_of(first);
        let is_same = |key: &&KeyName| {
            let (other, other_at) = place_of(key);
            (other, other_at.is_some()) == (place, at.is_some())
        };
        let same: Vec<&KeyName> = keys.iter().take_while(is_same).collect();
        let Some(place) = place else { return Ok(vec![None; same.len()]) };
        if at.is_some() {
            let mut told: Vec<Option<CopiedKey>> = self.load_as(place)?;
            let pick = |key: &KeyName| place_of(key).1.and_then(|at| told.get_mut(at)?.take());
            return Ok(same.into_iter().map(pick).collect());
        }
        let page: CopiedKeys = self.load_as(place)?;
        let by_key = |key: &KeyName| page.keys.binary_search_by(|one| one.entry.key.cmp(key)).ok();
        Ok(same.into_iter().map(|key| by_key(key).map(|at| page.keys[at].clone())).collect())
    }
}

/// Bytes of the values of a key.
fn bytes_of(key: &CopiedKey) -> usize {
    let all = key.past.iter().chain([&key.entry]);
    all.map(|entry| 1 + entry.value.as_ref().map_or(0, |value| value.bytes.len())).sum()
}

#[async_trait]
impl CopySide for ExportedFile {
    async fn read(&self, asked: &CopyRead) -> Result<Told, SideError> {
        let (exported, asked) = (self.0.clone(), asked.clone());
        match spawn_blocking(move || exported.answer(&asked)).await {
            Ok(answer) => Ok(answer?),
            Err(ended) => Err(SideError::Refused(ended.into())),
        }
    }

    async fn write(&self, _: Write) -> Result<(), SideError> {
        Err(SideError::Refused("an export is not changed".into()))
    }

    fn behind(&self) -> Option<&dyn CopySide> {
        None
    }
}
