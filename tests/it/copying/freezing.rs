//! Making a storage read-only: all or nothing, and told as it is.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use tidemill::copying::{CopySide, FreezeError, SideError, Told, Write, freeze, freeze_or_undo, frozen};
use tidemill::proto::BucketName;
use tidemill::proto::copy::CopyRead;
use tidemill::storage::{RunEnding, Storage};

use super::put;
use crate::support::ground::{Ground, append_numbers, topic};

/// A side one of whose servers is away, which has what begins with an `e`: from a number of changes on, for as long as is said.
#[derive(Debug)]
struct HalfAway {
    storage: Storage,
    after: usize,
    written: AtomicUsize,
    comes_back: AtomicBool,
}

impl HalfAway {
    fn new(storage: &Storage, after: usize, comes_back: bool) -> Self {
        let storage = storage.clone();
        Self { storage, after, written: AtomicUsize::new(0), comes_back: comes_back.into() }
    }
}

#[async_trait]
impl CopySide for HalfAway {
    async fn read(&self, asked: &CopyRead) -> Result<Told, SideError> {
        self.storage.read(asked).await
    }

    async fn write(&self, write: Write) -> Result<(), SideError> {
        let is_there = matches!(&write, Write::Freeze { topic, .. } if topic.as_str().starts_with('e'));
        let count = self.written.fetch_add(1, Ordering::Relaxed);
        if is_there
            && count >= self.after
            && (count == self.after || !self.comes_back.load(Ordering::Relaxed))
        {
            return Err(SideError::Passing("it is away".into()));
        }
        CopySide::write(&self.storage, write).await
    }

    fn behind(&self) -> Option<&dyn CopySide> {
        Some(&self.storage)
    }
}

async fn filled() -> Ground {
    let ground = Ground::memory().await.expect("it is there");
    for name in ["a", "b", "e", "z"] {
        append_numbers(&ground.storage, &topic(name), 1).await;
    }
    put(&ground.storage, &BucketName::parse("flows").expect("a name"), "k", None).await.unwrap();
    ground
}

#[tokio::test(start_paused = true)]
async fn what_was_made_read_only_before_a_server_failed_takes_messages_again() {
    let ground = filled().await;
    let storage = &ground.storage;
    // What was read-only before stays so.
    freeze(storage, &super::named("b"), true).await.unwrap();
    // That no more are made, and one topic, come before.
    let side = HalfAway::new(storage, 2, true);
    let error = freeze_or_undo(&side, &[], true).await.expect_err("a server is away");
    assert!(matches!(error, FreezeError::Undone(SideError::Passing(_))), "{error:?}");
    let now = frozen(storage, &[]).await.unwrap();
    assert_eq!((now.refuses_new, now.topics, now.buckets), (false, [1, 3], [0, 1]));
    // The other way round, too.
    freeze(storage, &[], true).await.unwrap();
    let error = freeze_or_undo(&HalfAway::new(storage, 3, true), &[], false).await.expect_err("it is away");
    assert!(matches!(error, FreezeError::Undone(_)), "{error:?}");
    let now = frozen(storage, &[]).await.unwrap();
    assert_eq!((now.refuses_new, now.topics, now.buckets), (true, [4, 0], [1, 0]));
}

#[tokio::test(start_paused = true)]
async fn what_may_stay_read_only_is_told() {
    let ground = filled().await;
    let side = HalfAway::new(&ground.storage, 0, false);
    let error = freeze_or_undo(&side, &[], true).await.expect_err("a server is away");
    assert!(
        matches!(error, FreezeError::Left { topics: 1, buckets: 0, new: false, .. }),
        "what is at the other servers is undone: {error:?}"
    );
    assert!(error.to_string().starts_with("1 topics and 0 buckets may stay changed, as undoing"), "{error}");
    assert_eq!(frozen(&ground.storage, &[]).await.unwrap().topics, [0, 4]);
}

#[tokio::test]
async fn nothing_is_done_where_not_all_is_there_that_was_named() {
    let ground = filled().await;
    let storage = &ground.storage;
    for is_frozen in [true, false] {
        freeze(storage, &super::named("b"), true).await.unwrap();
        let both =
            [super::named("nosuch"), super::named("a"), super::named("b"), super::named("x.*")].concat();
        let done = freeze_or_undo(storage, &both, is_frozen).await.unwrap();
        assert_eq!(
            (done.topics, done.missing, done.unmatched),
            (0, vec![topic("nosuch")], super::named("x.*"))
        );
        let now = frozen(storage, &[]).await.unwrap();
        assert_eq!(now.topics, [1, 3], "{is_frozen}");
    }
}

#[tokio::test]
async fn topics_that_have_ended_are_counted_by_neither() {
    let ground = filled().await;
    let storage = &ground.storage;
    storage.runs.end_run(&topic("a"), RunEnding::Close).await.unwrap();
    let done = freeze_or_undo(storage, &[], true).await.unwrap();
    let told = frozen(storage, &[]).await.unwrap();
    assert_eq!((done.topics, done.buckets), (3, 1));
    assert_eq!((told.topics, told.buckets), ([3, 0], [1, 0]));
    let again = freeze_or_undo(storage, &[], true).await.unwrap();
    assert_eq!((again.topics, again.buckets), (done.topics, done.buckets), "it can be done again");
    assert_eq!((done.unchanged, again.unchanged), ([0, 0], [3, 1]));
    let names: BTreeSet<_> = storage.topics.names("", None, 10).await.unwrap().into_iter().collect();
    assert_eq!(names.len(), 4);
}
