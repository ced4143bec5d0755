//! What the source of a copy has no more: as it was deleted there, or as the source was started again and has lost it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tidemill::copying::{Copy, CopyError, CopySide, Plan, SideError, Told, Write, freeze};
use tidemill::proto::copy::CopyRead;
use tidemill::proto::{BucketName, TopicName};
use tidemill::storage::{Freeze, Storage, StorageError, Unlisted};
use tokio::time::timeout;

use super::{PLAN, copy, kept, keys_of, named, put};
use crate::support::eventually;
use crate::support::ground::{Ground, SOON, append_numbers, topic};

/// A side that is another storage from some moment on, as a server is that is started again.
#[derive(Debug)]
struct Restarted(Mutex<Storage>);

#[async_trait]
impl CopySide for Restarted {
    async fn read(&self, asked: &CopyRead) -> Result<Told, SideError> {
        let now = self.0.lock().clone();
        now.read(asked).await
    }

    async fn write(&self, write: Write) -> Result<(), SideError> {
        let now = self.0.lock().clone();
        CopySide::write(&now, write).await
    }

    fn behind(&self) -> Option<&dyn CopySide> {
        None
    }

    async fn claim(&self, topic: &TopicName, token: u64) -> Result<(), SideError> {
        let now = self.0.lock().clone();
        now.claim(topic, token).await
    }

    async fn unlisted(&self) -> Result<Unlisted, SideError> {
        let now = self.0.lock().clone();
        now.unlisted().await
    }

    async fn list(&self, topic: &TopicName) -> Result<(), SideError> {
        let now = self.0.lock().clone();
        now.list(topic).await
    }
}

/// A target at which a copy asks last whether it is read-only before it begins: then the source loses a topic, which is gone
/// when that is asked again.
#[derive(Debug)]
struct Begins {
    to: Storage,
    from: Storage,
    loses: TopicName,
}

#[async_trait]
impl CopySide for Begins {
    async fn read(&self, asked: &CopyRead) -> Result<Told, SideError> {
        if *asked == CopyRead::RefusesNew {
            drop(self.from.topics.delete(&self.loses).await);
        }
        self.to.read(asked).await
    }

    async fn write(&self, write: Write) -> Result<(), SideError> {
        CopySide::write(&self.to, write).await
    }

    fn behind(&self) -> Option<&dyn CopySide> {
        Some(&self.to)
    }
}

/// A target that is started again, empty, once it has two pages.
#[derive(Debug)]
struct Forgets {
    now: Mutex<Storage>,
    next: Mutex<Option<Storage>>,
    pages: AtomicUsize,
}

#[async_trait]
impl CopySide for Forgets {
    async fn read(&self, asked: &CopyRead) -> Result<Told, SideError> {
        let now = self.now.lock().clone();
        now.read(asked).await
    }

    async fn write(&self, write: Write) -> Result<(), SideError> {
        let is_page = matches!(write, Write::Messages { .. });
        if is_page && self.pages.fetch_add(1, Ordering::Relaxed) == 2 {
            let next = self.next.lock().take();
            *self.now.lock() = next.expect("it is started again once");
            return Err(SideError::Passing("it is away".into()));
        }
        let now = self.now.lock().clone();
        CopySide::write(&now, write).await
    }

    fn behind(&self) -> Option<&dyn CopySide> {
        None
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_again_to_a_target_that_was_started_anew_counts_once() {
    let (from, first, second) = (memory().await, memory().await, memory().await);
    let sent = append_numbers(&from.storage, &topic("one"), 900).await;
    let (now, next) = (Mutex::new(first.storage.clone()), Mutex::new(Some(second.storage.clone())));
    let to = Forgets { now, next, pages: AtomicUsize::new(0) };
    let all = Copy::new(Arc::new(from.storage.clone()), Arc::new(to), PLAN);
    all.run().await.unwrap();
    assert_eq!(kept(&second.storage, &topic("one")).await, sent);
    let reached = all.progress().reached();
    assert_eq!((reached.messages, reached.expected), (900, 900));
}

async fn memory() -> Ground {
    Ground::memory().await.expect("it is there")
}

fn bucket() -> BucketName {
    BucketName::parse("flows").expect("a name")
}

/// What the source is once it was started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comes {
    Empty,
    /// Topics and buckets of the same names are made anew.
    MadeAnew,
    Whole,
}

/// Follows a source that is started again; returns how that ends, and the source, and the target.
async fn followed(comes: Comes, plan: Plan) -> (Result<(), CopyError>, Ground, Ground) {
    let (first, second, to) = (memory().await, memory().await, memory().await);
    let fill = async |ground: &Ground, count| {
        append_numbers(&ground.storage, &topic("one"), count).await;
        put(&ground.storage, &bucket(), "a", None).await.unwrap();
    };
    fill(&first, 20).await;
    match comes {
        Comes::Empty => {}
        Comes::MadeAnew => fill(&second, 3).await,
        Comes::Whole => copy(&first, &second, PLAN).run().await.unwrap(),
    }
    let from = Arc::new(Restarted(Mutex::new(first.storage.clone())));
    let following = Copy::new(from.clone(), Arc::new(to.storage.clone()), plan);
    let restart = async {
        eventually(SOON, async || following.progress().reached().caught_up).await;
        *from.0.lock() = second.storage.clone();
        freeze(&second.storage, &[], true).await.unwrap();
    };
    let both = async { tokio::join!(following.run(), restart).0 };
    (timeout(SOON * 2, both).await.expect("it ends"), second, to)
}

#[tokio::test]
async fn a_source_that_is_started_again_and_has_lost_all_deletes_nothing_at_the_target() {
    for comes in [Comes::Empty, Comes::MadeAnew] {
        let some = named("one");
        for (topics, overwrite) in [(Vec::new(), false), (some, false), (Vec::new(), true)] {
            let is_all = topics.is_empty();
            let plan = Plan { topics, overwrite, follow: true, ..PLAN };
            let (ended, _, to) = followed(comes, plan).await;
            assert!(matches!(&ended, Err(CopyError::Restarted(_))), "{comes:?} {ended:?}");
            let told = ended.unwrap_err().to_string();
            assert!(told.contains("the source was started again") && told.contains('`'), "{told}");
            assert_eq!(kept(&to.storage, &topic("one")).await.len(), 20);
            assert_eq!(keys_of(&to.storage, &bucket()).await.len(), usize::from(is_all));
        }
    }
}

#[tokio::test]
async fn a_source_that_is_started_again_and_has_all_is_gone_on_with() {
    let (ended, from, to) = followed(Comes::Whole, Plan { follow: true, ..PLAN }).await;
    ended.unwrap();
    assert_eq!(kept(&to.storage, &topic("one")).await, kept(&from.storage, &topic("one")).await);
    assert_eq!(keys_of(&to.storage, &bucket()).await, keys_of(&from.storage, &bucket()).await);
}

/// Returns two sides, where a copy of `gone` and of a bucket was broken off.
async fn broken_off() -> (Ground, Ground) {
    let (from, to) = (memory().await, memory().await);
    for name in ["gone", "one"] {
        append_numbers(&from.storage, &topic(name), 5).await;
    }
    put(&from.storage, &bucket(), "a", None).await.unwrap();
    let following = copy(&from, &to, Plan { follow: true, ..PLAN });
    tokio::select! {
        ended = following.run() => panic!("{ended:?}"),
        () = eventually(SOON, async || following.progress().reached().caught_up) => {}
    }
    (from, to)
}

#[tokio::test]
async fn what_was_deleted_at_the_source_while_a_copy_was_broken_off_is_named() {
    let (from, to) = broken_off().await;
    from.storage.topics.delete(&topic("gone")).await.unwrap();
    from.storage.buckets.delete_bucket(&bucket()).await.unwrap();
    let again = copy(&from, &to, PLAN);
    let obstacles = again.plan().await.unwrap().obstacles(&PLAN);
    let told: Vec<String> = obstacles.iter().map(ToString::to_string).collect();
    let left = |what: &str| format!("{what} is at the target as a part of a copy, and not at the source");
    assert_eq!(told, [left("topic `gone`"), left("bucket `flows`")]);
    let ended = again.run().await;
    assert!(matches!(&ended, Err(CopyError::Left(one)) if *one == topic("gone")), "{ended:?}");
    // Named ones are copied whatever else there is.
    copy(&from, &to, Plan { topics: named("one"), ..PLAN }).run().await.unwrap();

    to.storage.topics.delete(&topic("gone")).await.unwrap();
    to.storage.buckets.delete_bucket(&bucket()).await.unwrap();
    copy(&from, &to, PLAN).run().await.unwrap();
}

#[tokio::test]
async fn what_is_deleted_at_the_source_as_a_copy_goes_on_is_named_at_its_end() {
    let (from, to) = broken_off().await;
    let loses = topic("gone");
    let begins = Begins { to: to.storage.clone(), from: from.storage.clone(), loses: loses.clone() };
    let again = Copy::new(Arc::new(from.storage.clone()), Arc::new(begins), PLAN);
    let ended = again.run().await;
    assert!(matches!(&ended, Err(CopyError::Left(one)) if *one == loses), "{ended:?}");
    let left = to.storage.copies.copied(&loses).await.expect("it is there");
    assert_eq!(left.freeze, Some(Freeze::Importing));
    assert_eq!(kept(&to.storage, &topic("one")).await.len(), 5);
}

#[tokio::test]
async fn a_topic_that_is_named_and_deleted_while_it_is_followed_is_deleted_at_the_target() {
    let (from, to) = (memory().await, memory().await);
    let one = topic("one");
    append_numbers(&from.storage, &one, 5).await;
    let following = copy(&from, &to, Plan { topics: named("one"), follow: true, ..PLAN });
    let delete = async {
        eventually(SOON, async || following.progress().reached().caught_up).await;
        from.storage.topics.delete(&one).await.unwrap();
    };
    let both = async { tokio::join!(following.run(), delete).0 };
    timeout(SOON, both).await.expect("it ends").unwrap();
    assert!(matches!(to.storage.topics.describe(&one).await, Err(StorageError::NoTopic)));
}
