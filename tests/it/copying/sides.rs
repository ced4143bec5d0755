//! Which sides a copy takes for one storage, and what stands in its way.

use std::sync::Arc;
use std::time::Duration;

use tidemill::copying::{Action, Copy, CopyError, Plan, freeze, frozen};
use tidemill::proto::{BucketName, TopicName};
use tidemill::storage::valkey::{Placed, Target, Valkey, ValkeyOptions};
use tidemill::storage::{Backend as _, Freeze, Storage, StorageError, Trim};

use super::{PLAN, actions, copy, kept, named, put, sides};
use crate::support::ground::{Ground, LIMITS, SOON, append, append_numbers, json, message, node, topic};
use crate::support::server::{Kind, Server};

/// Opens a storage at an address, with a server beside it that has the topics `eu.*`, if one is given.
async fn open(host: &str, port: u16, beside: Option<u16>) -> Storage {
    let target =
        |host: &str, port: u16| Target::parse(&format!("valkey://{host}:{port}")).expect("the URL is right");
    let mut options = ValkeyOptions::new(target(host, port));
    options.placed = beside
        .map(|port| Placed {
            topics: named("eu.*"),
            target: target("127.0.0.1", port),
            password_file: None,
            sentinel_tls: false,
        })
        .into_iter()
        .collect();
    let valkey = Valkey::connect(node(), options, LIMITS, tidemill::clock::Clock::system());
    assert!(valkey.ready(SOON).await, "the backend does not connect");
    Storage::new(valkey)
}

fn between(from: &Storage, to: &Storage, plan: Plan) -> Copy {
    Copy::new(Arc::new(from.clone()), Arc::new(to.clone()), plan)
}

async fn is_frozen(storage: &Storage, topic: &TopicName) -> bool {
    storage.copies.copied(topic).await.expect("it is there").freeze == Some(Freeze::ReadOnly)
}

#[tokio::test]
async fn a_storage_is_not_copied_to_itself_whatever_it_is_called() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let [one, other] = ["127.0.0.1", "localhost"].map(|host| open(host, server.port(), None));
    let (one, other, memory) = (one.await, other.await, Ground::memory().await.expect("it is there"));
    for (from, to) in [(&one, &other), (&memory.storage, &memory.storage)] {
        let orders = topic("orders");
        append_numbers(from, &orders, 3).await;
        let whole = Plan { follow: true, switch: true, overwrite: true, ..PLAN };
        let some = Plan { topics: named("orders"), ..whole.clone() };
        for plan in [PLAN, whole, some] {
            let planned = between(from, to, plan.clone()).plan().await;
            assert!(matches!(planned, Err(CopyError::Same(None))), "{planned:?}");
            let done = between(from, to, plan).run().await;
            assert!(matches!(done, Err(CopyError::Same(None))), "{done:?}");
            assert!(!from.copies.refuses_new_topics().await.unwrap() && !is_frozen(from, &orders).await);
        }
    }
    // Another database of the same server is another storage.
    let target = Target::parse(&format!("valkey://127.0.0.1:{}/1", server.port())).expect("the URL is right");
    let valkey =
        Valkey::connect(node(), ValkeyOptions::new(target), LIMITS, tidemill::clock::Clock::system());
    assert!(valkey.ready(SOON).await);
    let database = Storage::new(valkey);
    between(&one, &database, PLAN).run().await.unwrap();
    assert_eq!(kept(&database, &topic("orders")).await, kept(&one, &topic("orders")).await);
}

#[tokio::test]
async fn topics_are_moved_from_a_server_to_one_beside_it_and_no_others_with_them() {
    let Some(main) = Server::start(Kind::Valkey, &[]).await else { return };
    let eu = Server::start(Kind::Valkey, &[]).await.expect("the first one started");
    let from = open("127.0.0.1", main.port(), None).await;
    let to = open("localhost", main.port(), Some(eu.port())).await;
    let (moved, stays) = (topic("eu.orders"), topic("us.orders"));
    let sent = append_numbers(&from, &moved, 5).await;
    append_numbers(&from, &stays, 5).await;
    let follow = Plan { follow: true, switch: true, overwrite: true, ..PLAN };
    let all = between(&from, &to, follow.clone()).run().await;
    assert!(matches!(all, Err(CopyError::Shared)), "{all:?}");
    let both = between(&from, &to, Plan { topics: named("*"), ..follow.clone() }).run().await;
    assert!(matches!(&both, Err(CopyError::Same(Some(topic))) if *topic == stays), "{both:?}");
    assert!(!is_frozen(&from, &stays).await && !is_frozen(&from, &moved).await, "nothing was changed");
    assert!(matches!(to.topics.describe(&moved).await, Err(StorageError::NoTopic)));

    between(&from, &to, Plan { topics: named("eu.*"), ..follow }).run().await.unwrap();
    assert_eq!(kept(&to, &moved).await, sent);
    assert!(is_frozen(&from, &moved).await && !is_frozen(&from, &stays).await);
}

#[tokio::test]
async fn what_stands_in_the_way_is_told_before_anything_is_done() {
    let Some((from, to)) = sides().await else { return };
    let (one, two) = (topic("one"), topic("two"));
    append_numbers(&from.storage, &one, 2).await;
    append_numbers(&from.storage, &two, 2).await;
    append_numbers(&to.storage, &two, 1).await;
    let obstacles = async |plan: &Plan| {
        let outline = copy(&from, &to, plan.clone()).plan().await.unwrap();
        outline.obstacles(plan).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let taken = obstacles(&PLAN).await;
    assert!(taken.len() == 1 && taken[0].starts_with("topic `two` is at the target already"), "{taken:?}");
    let overwrite = Plan { overwrite: true, ..PLAN };
    assert!(obstacles(&overwrite).await.is_empty());

    freeze(&to.storage, &[], true).await.unwrap();
    let refused = obstacles(&overwrite).await;
    assert_eq!(refused, ["the target is read-only, and takes nothing over"]);
    assert_eq!(obstacles(&PLAN).await.len(), 2);
    let done = copy(&from, &to, overwrite).run().await;
    assert!(matches!(done, Err(CopyError::TargetReadOnly)), "{done:?}");
    assert_eq!(kept(&to.storage, &two).await.len(), 1, "nothing was overwritten");
    freeze(&to.storage, &[], false).await.unwrap();

    // What is not whole at the source is not copied on from there.
    let source = from.storage.copies.copied(&one).await.unwrap();
    let memory = Ground::memory().await.expect("it is there");
    memory.storage.copies.begin_import(&source).await.unwrap();
    let on = copy(&memory, &to, PLAN);
    assert_eq!(actions(&on).await, [("one".to_owned(), Action::Refuse, 0)]);
    assert!(matches!(on.run().await, Err(CopyError::NotCopied { .. })));
}

#[tokio::test]
async fn a_dry_run_changes_nothing_at_all() {
    let Some((from, to)) = sides().await else { return };
    // Of another program, which gives a topic no epoch.
    let foreign = topic("foreign");
    from.server().command(&["XADD", "stream:topic:foreign", "*", "payload", "1"]).await;
    from.server().command(&["ZADD", "tidemill:topics", "0", "foreign"]).await;
    let before = from.server().command(&["XINFO", "GROUPS", "stream:topic:foreign"]).await.array().len();
    copy(&from, &to, Plan { topics: named("foreign"), ..PLAN }).plan().await.unwrap();
    let after = from.server().command(&["XINFO", "GROUPS", "stream:topic:foreign"]).await.array().len();
    assert_eq!(before, after);
    assert!(matches!(to.storage.topics.describe(&foreign).await, Err(StorageError::NoTopic)));
}

#[tokio::test]
async fn it_can_be_asked_what_is_read_only() {
    let ground = Ground::memory().await.expect("it is there");
    let storage = &ground.storage;
    for name in ["a", "b"] {
        append_numbers(storage, &topic(name), 1).await;
    }
    let state = async |names: &[&str]| {
        let selectors: Vec<_> = names.iter().flat_map(|name| named(name)).collect();
        frozen(storage, &selectors).await.unwrap()
    };
    let open = state(&[]).await;
    assert_eq!((open.refuses_new, open.topics, open.taken_over), (false, [0, 2], 0));
    freeze(storage, &named("a"), true).await.unwrap();
    assert_eq!(state(&[]).await.topics, [1, 1]);
    let some = state(&["a", "none"]).await;
    assert_eq!((some.topics, some.missing), ([1, 0], vec![topic("none")]));
    freeze(storage, &[], true).await.unwrap();
    let all = state(&[]).await;
    assert_eq!((all.refuses_new, all.topics), (true, [2, 0]));
    let health = storage.upkeep.health().await.backend;
    assert!(health.read_only && !health.accepts_writes && health.warnings.len() == 1, "{health:?}");
    freeze(storage, &[], false).await.unwrap();
    assert!(!storage.upkeep.health().await.backend.read_only);
    append(storage, message(&topic("a"), json("1"))).await.unwrap();
}

#[tokio::test]
async fn of_two_copies_to_one_target_at_one_time_one_ends_and_says_why() {
    let Some((from, to)) = sides().await else { return };
    let one = topic("one");
    let sent = append_numbers(&from.storage, &one, 60_000).await;
    let copies = [copy(&from, &to, PLAN), copy(&from, &to, PLAN)];
    let (first, second) = tokio::join!(copies[0].run(), copies[1].run());
    assert!(first.is_ok() || second.is_ok(), "{first:?} {second:?}");
    for ended in [first, second].into_iter().filter_map(Result::err) {
        assert!(matches!(&ended, CopyError::Changed(topic) if *topic == one), "{ended:?}");
        assert!(ended.to_string().contains("as another copy to this target does it"), "{ended}");
    }
    assert_eq!(kept(&to.storage, &one).await, sent);
    copy(&from, &to, PLAN).run().await.unwrap();
}

/// Ids alone do not tell: what the target has taken since may be younger.
#[tokio::test]
async fn what_came_to_the_source_since_is_told_whatever_came_to_the_target_behind_it() {
    let Some((from, to)) = sides().await else { return };
    let (one, bucket) = (topic("one"), BucketName::parse("flows").expect("a name"));
    append_numbers(&from.storage, &one, 3).await;
    put(&from.storage, &bucket, "a", None).await.unwrap();
    copy(&from, &to, PLAN).run().await.unwrap();
    // What the target takes alone, and trims, is nothing new of the source.
    append_numbers(&to.storage, &one, 3).await;
    put(&to.storage, &bucket, "b", None).await.unwrap();
    copy(&from, &to, PLAN).run().await.unwrap();
    to.storage.messages.trim(&one, Trim::Keep(2)).await.unwrap();
    copy(&from, &to, PLAN).run().await.unwrap();

    // Not in one millisecond, in which both would give one id.
    let moment = async || tokio::time::sleep(Duration::from_millis(5)).await;
    append_numbers(&from.storage, &one, 1).await;
    moment().await;
    append_numbers(&to.storage, &one, 1).await;
    to.storage.messages.trim(&one, Trim::Keep(4)).await.unwrap();
    let told = copy(&from, &to, PLAN).run().await;
    assert!(matches!(&told, Err(CopyError::Taken(topic, _)) if *topic == one), "{told:?}");
    from.storage.topics.delete(&one).await.unwrap();
    copy(&from, &to, PLAN).run().await.unwrap();

    put(&from.storage, &bucket, "a", None).await.unwrap();
    moment().await;
    put(&to.storage, &bucket, "b", None).await.unwrap();
    let told = copy(&from, &to, PLAN).run().await;
    assert!(
        matches!(&told, Err(CopyError::Taken(log, _)) if log.bucket().as_ref() == Some(&bucket)),
        "{told:?}"
    );
    copy(&from, &to, Plan { overwrite: true, ..PLAN }).run().await.unwrap();
    copy(&from, &to, PLAN).run().await.unwrap();
}
