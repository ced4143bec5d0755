//! A file as a side: what comes out of it is what went into it, whatever happens at the source meanwhile, and a file that
//! is not as it was written is refused.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Cursor, Read as _, Seek as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tidemill::copying::{
    Action, Copy, CopySide, Counts, Export, ExportedFile, FileError, Origin, Plan, SideError, Told, Write,
};
use tidemill::proto::copy::CopyRead;
use tidemill::proto::topics::TopicUpdate;
use tidemill::proto::work::{ConsumerName, GroupName};
use tidemill::proto::{BucketName, MessageId, Timestamp, TopicName};
use tidemill::storage::{
    Body, Claim, CopiedKey, Existing, GapCheck, GroupStart, KeyChange, KeyChanges, KeyCondition, KeyEdit,
    LatestRange, Storage, group_defaults,
};
use tokio::time::timeout;

use super::{PLAN, kept, key, keys_of, named, put, sides};
use crate::support::ground::{Ground, append, append_all, append_numbers, message, topic};

/// Exports what a plan says, and returns the file.
async fn export_of(from: Arc<dyn CopySide>, plan: Plan) -> (File, Counts) {
    let (export, mut file) = (Export::default(), tempfile::tempfile().expect("a file"));
    let copy = Copy::new(export.source(from.clone()), export.target(), plan);
    let outline = copy.plan().await.unwrap();
    let writer = Box::new(file.try_clone().expect("a file"));
    let origin = Origin { id: 7, program: "1.2.3", written_at: Timestamp::from_millis(5) };
    export.begin(&*from, writer, &origin, None).await.unwrap();
    copy.run_as(&outline).await.unwrap();
    let counts = export.finish().await.unwrap();
    assert_eq!(copy.progress().reached().keys, counts.keys, "those that came twice are one");
    file.rewind().expect("a file");
    (file, counts)
}

pub(super) async fn exported(from: &Ground) -> File {
    export_of(Arc::new(from.storage.clone()), PLAN).await.0
}

fn import(file: &File, to: &Ground, plan: Plan) -> Copy {
    let file = ExportedFile::open(file.try_clone().expect("a file")).unwrap();
    Copy::new(Arc::new(file), Arc::new(to.storage.clone()), plan)
}

pub(super) fn bytes_of(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).expect("a file");
    bytes
}

pub(super) fn opened(bytes: &[u8]) -> Result<ExportedFile, FileError> {
    ExportedFile::take(&mut Cursor::new(bytes))
}

fn bucket() -> BucketName {
    BucketName::parse("flows").expect("a name")
}

/// A source at which something happens: once a question was answered, or while it is asked.
struct Busy<F> {
    storage: Storage,
    happens: F,
    /// Questions so far.
    asked: AtomicU64,
    /// Which of them fail.
    failing: fn(u64) -> bool,
}

impl<F> std::fmt::Debug for Busy<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Busy")
    }
}

#[async_trait]
impl<F, D> CopySide for Busy<F>
where
    F: Fn(Storage, CopyRead) -> D + Send + Sync,
    D: Future<Output = ()> + Send,
{
    async fn read(&self, asked: &CopyRead) -> Result<Told, SideError> {
        if (self.failing)(self.asked.fetch_add(1, Ordering::Relaxed)) {
            return Err(SideError::Passing("away".into()));
        }
        let told = CopySide::read(&self.storage, asked).await?;
        (self.happens)(self.storage.clone(), asked.clone()).await;
        Ok(told)
    }

    async fn write(&self, write: Write) -> Result<(), SideError> {
        CopySide::write(&self.storage, write).await
    }

    fn behind(&self) -> Option<&dyn CopySide> {
        Some(&self.storage)
    }
}

fn busy<F, D>(from: &Ground, happens: F) -> Busy<F>
where
    F: Fn(Storage, CopyRead) -> D + Send + Sync,
    D: Future<Output = ()> + Send,
{
    Busy { storage: from.storage.clone(), happens, asked: AtomicU64::new(0), failing: |_| false }
}

#[tokio::test]
async fn an_export_is_a_source_like_any_other() {
    let Some((from, to)) = sides().await else { return };
    let (one, two) = (topic("one"), topic("two.a"));
    let sent = append_numbers(&from.storage, &one, 2_500).await;
    append_numbers(&from.storage, &two, 3).await;
    put(&from.storage, &bucket(), "a", None).await.unwrap();
    let (file, counts) = export_of(Arc::new(from.storage.clone()), PLAN).await;
    let Counts { topics, messages, buckets, keys, records } = counts;
    assert_eq!((topics, messages, buckets, keys), (2, 2_503, 1, 1));
    let read = ExportedFile::open(file.try_clone().unwrap()).unwrap();
    assert_eq!((read.counts(), read.header().written_at), (counts, Timestamp::from_millis(5)));
    assert!(records > 10 && !read.header().from.is_empty(), "{read:?}");

    // Nothing of it is at the source of the export: it can come back there.
    let planned = import(&file, &from, PLAN).plan().await.unwrap();
    assert!(planned.topics.iter().all(|one| one.action == Action::Keep), "{planned:?}");
    let some = import(&file, &to, Plan { topics: named("two.*"), ..PLAN });
    some.run().await.unwrap();
    assert!(to.storage.topics.describe(&one).await.is_err());
    import(&file, &to, PLAN).run().await.unwrap();
    assert_eq!(kept(&to.storage, &one).await, sent);
    assert_eq!(keys_of(&to.storage, &bucket()).await, keys_of(&from.storage, &bucket()).await);
    let again = import(&file, &to, PLAN);
    again.run().await.unwrap();
    assert_eq!(again.progress().reached().messages, 0);

    // Some of the topics alone.
    let (some, counts) =
        export_of(Arc::new(from.storage.clone()), Plan { topics: named("two.*"), ..PLAN }).await;
    assert_eq!((counts.topics, counts.messages, counts.buckets), (1, 3, 0));
    let memory = Ground::memory().await.expect("it is there");
    import(&some, &memory, PLAN).run().await.unwrap();
    assert_eq!(kept(&memory.storage, &two).await.len(), 3);
}

#[tokio::test]
async fn an_import_that_is_broken_off_is_gone_on_with() {
    let Some((from, to)) = sides().await else { return };
    let one = topic("one");
    let sent = append_numbers(&from.storage, &one, 12_000).await;
    for number in 0..4_000 {
        put(&from.storage, &bucket(), &format!("k{}", number % 3_000), None).await.unwrap();
    }
    let file = exported(&from).await;
    let mut breaks = 0;
    loop {
        let part = import(&file, &to, PLAN);
        if let Ok(done) = timeout(Duration::from_millis(80 + breaks * 10), part.run()).await {
            done.unwrap();
            break;
        }
        breaks += 1;
        assert!(breaks < 100, "it does not come to an end");
    }
    assert!(breaks > 0, "nothing was broken off");
    assert_eq!(kept(&to.storage, &one).await, sent);
    assert_eq!(keys_of(&to.storage, &bucket()).await, keys_of(&from.storage, &bucket()).await);
}

#[tokio::test]
async fn faults_of_the_source_are_not_in_the_file() {
    let from = Ground::memory().await.expect("it is there");
    let to = Ground::memory().await.expect("it is there");
    let (one, two) = (topic("one"), topic("two"));
    append_numbers(&from.storage, &one, 5_500).await;
    append_numbers(&from.storage, &two, 2_500).await;
    for number in 0..2_500 {
        put(&from.storage, &bucket(), &format!("k{number}"), None).await.unwrap();
    }
    let failing = |asked: u64| asked % 3 == 2 && asked < 40;
    let side = Busy { failing, ..busy(&from, |_, _| async {}) };
    let (file, counts) = export_of(Arc::new(side), PLAN).await;
    assert_eq!((counts.messages, counts.keys), (8_000, 2_500));
    import(&file, &to, PLAN).run().await.unwrap();
    for topic in [&one, &two] {
        assert_eq!(kept(&to.storage, topic).await, kept(&from.storage, topic).await);
    }
    assert_eq!(keys_of(&to.storage, &bucket()).await, keys_of(&from.storage, &bucket()).await);
}

pub(super) async fn delete_key(storage: &Storage, name: &str) {
    let change = KeyChange { key: key(name), condition: KeyCondition::Anything, edit: KeyEdit::Delete };
    let changes = KeyChanges {
        bucket: bucket(),
        changes: vec![change],
        idempotency: None,
        fence: None,
        create_bucket: false,
        timestamp: storage.upkeep.now(),
    };
    storage.buckets.change_keys(changes).await.map(drop).unwrap();
}

#[tokio::test]
async fn keys_that_are_changed_while_they_are_exported_are_as_they_were_in_the_end() {
    let Some((from, to)) = sides().await else { return };
    for number in 0..2_500 {
        put(&from.storage, &bucket(), &format!("k{number:04}"), None).await.unwrap();
    }
    let side = busy(&from, async |storage: Storage, asked| {
        let CopyRead::Keys { after, .. } = asked else { return };
        let page = if after.is_none() { "a" } else { "b" };
        // Of pages that were read, of this one, and of some to come; and new ones before, between and behind.
        for name in ["k0003", "k1500", "k2400", "a", "k0003x", "z"] {
            put(&storage, &bucket(), &format!("{name}{page}"), None).await.unwrap();
            put(&storage, &bucket(), name, Some(Duration::from_hours(1))).await.unwrap();
        }
        for name in ["k0004", "k2300"] {
            delete_key(&storage, name).await;
        }
    });
    let (file, counts) = export_of(Arc::new(side), PLAN).await;
    let source = keys_of(&from.storage, &bucket()).await;
    assert_eq!(counts.keys, source.len() as u64);
    import(&file, &to, PLAN).run().await.unwrap();
    let target: Vec<CopiedKey> = keys_of(&to.storage, &bucket()).await;
    assert_eq!(target, source);
    let flows = bucket();
    let [there, here] = [&from, &to].map(|ground| ground.storage.bucket_copies.copied_bucket(&flows));
    let (there, here) = (there.await.unwrap(), here.await.unwrap());
    assert_eq!((here.last, here.given, here.first), (there.last, there.given, there.first));
}

async fn claim(storage: &Storage, max: usize) {
    let consumer = ConsumerName::parse("me").expect("a name");
    let (topic, group) = (topic("one"), GroupName::parse("workers").expect("a name"));
    let claim = Claim { topic, group, consumer, max, bytes_max: usize::MAX >> 1, claim_id: None };
    let claimed = storage.work.claim(vec![claim]).await.remove(0).unwrap();
    assert_eq!(claimed.deliveries.len(), max);
}

#[tokio::test]
async fn what_a_group_gives_out_while_it_is_exported_comes_again() {
    let from = Ground::memory().await.expect("it is there");
    let to = Ground::memory().await.expect("it is there");
    let (one, workers) = (topic("one"), GroupName::parse("workers").expect("a name"));
    let sent = append_numbers(&from.storage, &one, 30).await;
    let settings = group_defaults(&one, &workers);
    let (start, existing) = (GroupStart::Earliest, Existing::Replace);
    assert!(from.storage.work.put_group(&one, &workers, &settings, start, existing).await.unwrap());
    claim(&from.storage, 10).await;
    let side = busy(&from, async |storage: Storage, asked| {
        if let CopyRead::Pending { after: None, .. } = asked {
            claim(&storage, 10).await;
        }
    });
    let (file, _) = export_of(Arc::new(side), PLAN).await;
    import(&file, &to, PLAN).run().await.unwrap();
    let copied = to.storage.copies.copied_group(&one, &workers).await.unwrap();
    assert_eq!(copied.last_delivered, sent[9]);
    let pending = to.storage.copies.copied_pending(&one, &workers, None, 100).await.unwrap();
    let pending: Vec<MessageId> = pending.into_iter().map(|one| one.id).collect();
    assert_eq!(pending, sent[..10]);
}

#[tokio::test]
async fn the_latest_of_a_key_is_in_the_file_whatever_comes_meanwhile() {
    let Some((from, to)) = sides().await else { return };
    let states = topic("states");
    let (compact_by, max_messages) = (Some("key".to_owned()), Some(200));
    let about = TopicUpdate { compact_by, max_messages, ..TopicUpdate::default() };
    from.storage.topics.create(&states, about, None).await.unwrap();
    let of_key = |key: &str, payload: &str| {
        let metadata = Some(Bytes::from(format!("{{\"key\":\"{key}\"}}")));
        Body { payload: Bytes::from(payload.to_owned()), content_type: None, metadata, order_key: None }
    };
    for (key, payload) in [("a", "1"), ("b", "1"), ("c", "1"), ("b", "2"), ("d", "1")] {
        append(&from.storage, message(&states, of_key(key, payload))).await.unwrap();
    }
    // Behind which the log goes on without them.
    for _ in 0..30 {
        let others = (0..50).map(|at| message(&states, of_key(&format!("other.{at}"), "0")));
        append_all(&from.storage, others.collect()).await;
    }
    let first = from.storage.copies.copied(&states).await.unwrap().first;
    let latest = async |storage: &Storage| {
        let (gap_check, goes_on) = (GapCheck::None, false);
        let range = LatestRange { after: None, gap_check, goes_on, limit: 100, bytes_max: 1 << 20 };
        storage.messages.latest(&topic("states"), range).await.unwrap().messages
    };
    let before = latest(&from.storage).await;
    assert_eq!(before.len(), 54);
    assert!(before.iter().take(4).all(|message| Some(message.id) < first), "the log has them");
    let side = busy(&from, async |storage: Storage, asked| {
        // Now `a` is none of those any more that the log had not.
        if let CopyRead::Messages { .. } = asked {
            let metadata = Some(Bytes::from_static(b"{\"key\":\"a\"}"));
            let body =
                Body { payload: Bytes::from_static(b"9"), content_type: None, metadata, order_key: None };
            append(&storage, message(&topic("states"), body)).await.unwrap();
        }
    });
    let (file, _) = export_of(Arc::new(side), PLAN).await;
    import(&file, &to, PLAN).run().await.unwrap();
    assert_eq!(latest(&to.storage).await, before);
}

#[tokio::test]
async fn a_file_that_is_not_as_it_was_written_is_refused() {
    let from = Ground::memory().await.expect("it is there");
    append_numbers(&from.storage, &topic("one"), 20).await;
    put(&from.storage, &bucket(), "a", None).await.unwrap();
    let whole = bytes_of(exported(&from).await);
    let records = opened(&whole).unwrap().counts().records;
    let mut damaged = BTreeSet::new();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        match opened(&bytes) {
            Err(FileError::NotAnExport) => assert!(at < 8, "{at}"),
            Err(FileError::Damaged { record, at: begins }) => {
                assert!(begins <= at as u64, "{begins} {at}");
                damaged.insert(record);
            }
            other => panic!("byte {at}: {other:?}"),
        }
    }
    assert_eq!(damaged, (0..records).collect(), "each is named");
    for length in 0..whole.len() {
        let cut = opened(&whole[..length]);
        assert!(matches!(cut, Err(FileError::CutOff { at, .. }) if at <= length as u64), "{length}: {cut:?}");
    }
    let behind = opened(&[&whole[..], b"\n"].concat());
    assert!(matches!(behind, Err(FileError::Behind { at }) if at == whole.len() as u64), "{behind:?}");
    for other in [&b"{\"message_id\":\"1-0\"}\n"[..], &[0; 100]] {
        assert!(matches!(opened(other), Err(FileError::NotAnExport)));
    }
}

/// Returns a record as docs/export.md describes it.
pub(super) fn record(number: u64, text: &str) -> Vec<u8> {
    let frame = zstd::bulk::compress(text.as_bytes(), 1).unwrap();
    let mut head = vec![0x54, 0x2a, 0x4d, 0x18, 20, 0, 0, 0];
    head.extend(u32::try_from(frame.len()).unwrap().to_le_bytes());
    head.extend(number.to_le_bytes());
    head.extend(crc32fast::hash(&frame).to_le_bytes());
    head.extend(crc32fast::hash(&head).to_le_bytes());
    [head, frame].concat()
}

#[tokio::test]
async fn the_form_is_what_is_described_and_another_one_is_refused() {
    let header = |form: u32, copies: u32| {
        format!(
            r#"{{"tidemill_export":{form},"copy_version":{copies},"id":"a","program":"9.9.9","written_at":"2026-01-01T00:00:00Z","from":[]}}{}"#,
            "\n"
        )
    };
    let end = "{\"end\":{\"records\":2,\"topics\":0,\"messages\":0,\"buckets\":0,\"keys\":0}}\n";
    let empty = [record(0, &header(1, 1)), record(1, end)].concat();
    assert_eq!(opened(&empty).unwrap().header().program, "9.9.9");
    for (form, copies) in [(3, 1), (1, 2)] {
        let other = opened(&[record(0, &header(form, copies)), record(1, end)].concat());
        let error = other.expect_err("another form").to_string();
        assert!(error.contains(&format!("the form {form}.{copies}")), "{error}");
    }
    // Records that are whole and not those that were written together.
    let swapped = opened(&[record(0, &header(1, 1)), record(2, end)].concat());
    assert!(matches!(swapped, Err(FileError::Damaged { record: 1, .. })), "{swapped:?}");
    let wrong = opened(&[record(0, &header(1, 1)), record(1, &end.replace('2', "3"))].concat());
    assert!(matches!(wrong, Err(FileError::Odd { record: 1, .. })), "{wrong:?}");

    // Other programs read it: zstd skips what is none of its own.
    let from = Ground::memory().await.expect("it is there");
    append_numbers(&from.storage, &TopicName::parse("one").expect("a name"), 3).await;
    let text = zstd::decode_all(&bytes_of(exported(&from).await)[..]).unwrap();
    let text = String::from_utf8(text).expect("lines of text");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!(lines[0]["tidemill_export"], 1);
    assert_eq!(lines.last().expect("a line")["end"]["messages"], 3);
    let at = lines.iter().position(|line| line["asked"]["messages"]["topic"] == "one").expect("a page");
    assert_eq!(lines[at + 1]["messages"][2]["body"]["payload"], 2);
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_told() {
    /// A disk that is full after so many bytes.
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let from = Ground::memory().await.expect("it is there");
    append_numbers(&from.storage, &topic("one"), 100).await;
    let side: Arc<dyn CopySide> = Arc::new(from.storage.clone());
    let export = Export::default();
    let copy = Copy::new(export.source(side.clone()), export.target(), PLAN);
    let outline = copy.plan().await.unwrap();
    let origin = Origin { id: 7, program: "1.2.3", written_at: Timestamp::from_millis(5) };
    export.begin(&*side, Box::new(Full(400)), &origin, None).await.unwrap();
    copy.run_as(&outline).await.expect_err("the disk is full");
    let failure = export.failure().expect("it says why");
    assert_eq!(failure.kind(), std::io::ErrorKind::StorageFull);
}
