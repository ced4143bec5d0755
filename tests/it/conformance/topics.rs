//! Topics: creating, listing, describing, deleting, counting, and the backend's own state.

use tidemill::proto::health::HealthStatus;
use tidemill::proto::page::Order;
use tidemill::proto::topics::{TopicUpdate, TopicsStats};
use tidemill::proto::{MessageId, TopicName, TopicSelector};
use tidemill::storage::{
    Condition, LISTED_NAMES_MAX, NewMessage, Selection, Storage, StorageError, StorageLimits, Trim,
};
use tokio::task::JoinSet;

use crate::support::ground::{
    Ground, LIMITS, SOON, append, append_numbers, ids, json, length, message, read_all, topic,
};

fn described(text: &str, retention_seconds: Option<u64>) -> TopicUpdate {
    TopicUpdate { description: Some(text.to_owned()), retention_seconds, ..TopicUpdate::default() }
}

pub(super) async fn a_created_topic_is_described(ground: &Ground) {
    let name = ground.topic();
    let before = ground.clock.now();
    let text = "Zażółć \"quoted\"\r\nline \u{1f600}";
    let created = ground.storage.topics.create(&name, described(text, Some(60)), None).await.unwrap();
    let after = ground.clock.now();
    assert_eq!((&created.topic_id, &created.topic_name), (&name, &name));
    assert!(created.created_at.is_some_and(|at| before <= at && at <= after));
    assert_eq!((created.description.as_deref(), created.retention_seconds), (Some(text), Some(60)));
    let state = ground.storage.topics.describe(&name).await.unwrap();
    assert_eq!((state.length, state.first_id, state.last_id), (0, None, None));
    assert_eq!((state.bytes.is_some(), state.given), (true, Some(0)));
    assert_eq!(state.topic, created);
    assert_eq!(ground.storage.topics.list(Selection::default(), None, 10).await.unwrap().topics, [created]);
}

pub(super) async fn a_topic_keeps_who_made_it(ground: &Ground) {
    let storage = &ground.storage;
    let (created, published) = (ground.topic(), ground.topic());
    let topic = storage.topics.create(&created, described("hers", None), Some("ann@example")).await.unwrap();
    assert_eq!(topic.owner_id.as_deref(), Some("ann@example"));
    for owner in [Some("ann"), Some("bob"), None] {
        let message = NewMessage { owner: owner.map(Into::into), ..message(&published, json("1")) };
        append(storage, message).await.unwrap();
    }
    let updated = storage.topics.update(&created, TopicUpdate::default().into()).await.unwrap();
    assert_eq!(updated.owner_id.as_deref(), Some("ann@example"), "an update does not change it");
    for (name, owner) in [(&created, "ann@example"), (&published, "ann")] {
        assert_eq!(storage.topics.describe(name).await.unwrap().topic.owner_id.as_deref(), Some(owner));
        storage.topics.delete(name).await.unwrap();
        append(storage, message(name, json("1"))).await.unwrap();
        assert_eq!(storage.topics.describe(name).await.unwrap().topic.owner_id, None, "another topic");
    }
}

pub(super) async fn a_topic_is_created_once(ground: &Ground) {
    let (created, published) = (ground.topic(), ground.topic());
    ground.storage.topics.create(&created, described("first", None), None).await.unwrap();
    append_numbers(&ground.storage, &published, 2).await;
    for name in [&created, &published] {
        let refused = ground.storage.topics.create(name, described("second", None), None).await;
        assert!(matches!(refused, Err(StorageError::TopicExists)), "{refused:?}");
    }
    let state = ground.storage.topics.describe(&created).await.unwrap();
    assert_eq!(state.topic.description.as_deref(), Some("first"));
    assert_eq!(length(&ground.storage, &published).await, 2);
}

pub(super) async fn of_concurrent_creates_one_succeeds(ground: &Ground) {
    let name = ground.topic();
    let mut tasks = JoinSet::new();
    for number in 0..32 {
        let (storage, name) = (ground.storage.clone(), name.clone());
        tasks.spawn(
            async move { storage.topics.create(&name, described(&number.to_string(), None), None).await },
        );
    }
    let (won, lost): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 31));
    assert!(lost.iter().all(|result| matches!(result, Err(StorageError::TopicExists))));
    let state = ground.storage.topics.describe(&name).await.unwrap();
    assert_eq!(Some(state.topic), won.into_iter().next().and_then(Result::ok));
}

async fn names(storage: &Storage, after: Option<&TopicName>, limit: usize) -> (Vec<String>, Option<String>) {
    selected(storage, None, after, limit).await
}

/// Returns the names of a page of the list, and after which name the next one begins.
async fn selected(
    storage: &Storage,
    text: Option<&str>,
    after: Option<&TopicName>,
    limit: usize,
) -> (Vec<String>, Option<String>) {
    let selector = text.map(|text| TopicSelector::parse(text).expect("a name or a pattern"));
    let list = storage.topics.list(Selection::of(selector.as_ref()), after, limit).await.unwrap();
    let names = list.topics.into_iter().map(|topic| topic.topic_name.to_string()).collect();
    (names, list.next.map(|next| next.to_string()))
}

pub(super) async fn topics_are_listed_by_name_in_pages(ground: &Ground) {
    let storage = &ground.storage;
    assert_eq!(names(storage, None, 10).await, (vec![], None));
    let sorted = ["-", "0", "10", "9", "A", "B", "_", "a", "a-b", "a.b", "a0", "a:b", "aa", "b"];
    for name in sorted.iter().rev() {
        append_numbers(storage, &topic(name), 1).await;
    }
    assert_eq!(names(storage, None, 100).await, (sorted.map(str::to_owned).to_vec(), None));
    assert_eq!(names(storage, None, sorted.len()).await.1, None, "a page that ends the list says so");
    for limit in [1, 3, 7] {
        let mut seen = Vec::new();
        let mut after: Option<TopicName> = None;
        loop {
            let (page, next) = names(storage, after.as_ref(), limit).await;
            assert!(page.len() <= limit);
            seen.extend(page);
            let Some(next) = next else { break };
            after = Some(topic(&next));
        }
        assert_eq!(seen, sorted);
    }
    assert_eq!(names(storage, Some(&topic("a.a")), 2).await.0, ["a.b", "a0"], "a name that is no topic");
    assert_eq!(names(storage, Some(&topic("b")), 2).await, (vec![], None));
}

pub(super) async fn names_are_told_by_their_begin_in_pages(ground: &Ground) {
    let storage = &ground.storage;
    let named = async |prefix: &str, after: Option<&str>, limit| {
        let after = after.map(topic);
        let names = storage.topics.names(prefix, after.as_ref(), limit).await.unwrap();
        names.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(named("", None, 10).await, [""; 0]);
    let sorted = ["-", "0", "A", "Z", "_", "a", "a-b", "a.b", "a.b.c", "a:b", "aZ", "a_b", "aa", "az", "b"];
    for name in sorted.iter().rev() {
        append_numbers(storage, &topic(name), 1).await;
    }
    for prefix in ["", "-", "A", "a", "a.", "a.b", "az", "b", "c", "B", "a.b.c.d", "a ", "*", "\u{e9}"] {
        let all: Vec<&str> = sorted.iter().copied().filter(|name| name.starts_with(prefix)).collect();
        assert_eq!(named(prefix, None, 100).await, all, "{prefix:?}");
        assert_eq!(named(prefix, None, all.len()).await, all, "{prefix:?}");
        for limit in [1, 2, 7] {
            let mut seen: Vec<String> = Vec::new();
            loop {
                let page = named(prefix, seen.last().map(String::as_str), limit).await;
                let is_end = page.len() < limit;
                assert!(page.len() <= limit);
                seen.extend(page);
                if is_end {
                    break;
                }
            }
            assert_eq!(seen, all, "{prefix:?} by {limit}");
        }
    }
    assert_eq!(named("a", Some("a.a"), 2).await, ["a.b", "a.b.c"], "a name that is no topic");
    assert_eq!(named("a", Some("A"), 2).await, ["a", "a-b"], "a name in front of the prefix");
    assert_eq!(named("a", Some("b"), 2).await, [""; 0], "a name behind the prefix");
    assert_eq!(named("a", None, 0).await, [""; 0]);
    storage.topics.delete(&topic("a.b")).await.unwrap();
    assert_eq!(named("a.", None, 10).await, ["a.b.c"]);
}

pub(super) async fn a_list_is_narrowed_to_what_is_selected(ground: &Ground) {
    let storage = &ground.storage;
    let made = ["a", "a.b", "a.b.c", "a:b", "aa.b", "b", "b.a", "b.a.b", "c"];
    for name in made {
        append_numbers(storage, &topic(name), 1).await;
    }
    for (text, expected) in [
        ("*", &made[..]),
        ("a*", &["a", "a.b", "a.b.c", "a:b", "aa.b"]),
        ("a.*", &["a.b", "a.b.c"]),
        ("*.b", &["a.b", "aa.b", "b.a.b"]),
        ("b.*b", &["b.a.b"]),
        ("b*a*", &["b.a", "b.a.b"]),
        ("c*", &["c"]),
        ("d*", &[]),
        ("*.d", &[]),
        ("a.b", &["a.b"]),
        ("d", &[]),
    ] {
        let whole = selected(storage, Some(text), None, 100).await;
        assert_eq!(whole, (expected.iter().map(|name| (*name).to_owned()).collect(), None), "{text}");
        for limit in [1, 2, 3] {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let (page, next) = selected(storage, Some(text), after.as_ref(), limit).await;
                assert!(page.len() == limit || next.is_none(), "{text}: only the last page is shorter");
                seen.extend(page);
                let Some(next) = next else { break };
                after = Some(topic(&next));
            }
            assert_eq!(seen, expected, "{text}, {limit} at a time");
        }
    }
    let after = |text| Some(topic(text));
    assert_eq!(selected(storage, Some("*.b"), after("a.b").as_ref(), 1).await.0, ["aa.b"]);
    assert_eq!(selected(storage, Some("b*"), after("a").as_ref(), 1).await.0, ["b"], "before the prefix");
    assert_eq!(selected(storage, Some("a*"), after("b").as_ref(), 1).await, (vec![], None), "behind it");
    assert_eq!(selected(storage, Some("b"), after("b").as_ref(), 1).await, (vec![], None));
    assert_eq!(selected(storage, Some("b"), after("a").as_ref(), 1).await, (vec!["b".to_owned()], None));
}

pub(super) async fn a_page_of_which_little_is_selected_ends(ground: &Ground) {
    let storage = &ground.storage;
    let names: Vec<_> = (0..LISTED_NAMES_MAX).map(|number| topic(&format!("n{number:05}"))).collect();
    for names in names.chunks(1_000) {
        let batch = names.iter().map(|name| message(name, json("1"))).collect();
        let appended = storage.messages.append(batch).await;
        assert!(appended.iter().all(Result::is_ok), "{:?}", appended.iter().find(|result| result.is_err()));
    }
    for name in ["o1", "o2"] {
        append_numbers(storage, &topic(name), 1).await;
    }
    let (none, next) = selected(storage, Some("*o*"), None, 10).await;
    assert!(none.is_empty(), "{none:?}");
    let next = next.expect("there are names that were not looked at");
    assert_eq!(next, names.last().expect("there are names").as_str(), "as many as are told are looked at");
    assert_eq!(
        selected(storage, Some("*o*"), Some(&topic(&next)), 10).await,
        (vec!["o1".to_owned(), "o2".to_owned()], None)
    );
    let all = selected(storage, Some("o*"), None, 10).await;
    assert_eq!(all.0, ["o1", "o2"], "names before the prefix are not looked at");
}

pub(super) async fn a_description_tells_what_the_topic_holds(ground: &Ground) {
    let name = ground.topic();
    let appended = append_numbers(&ground.storage, &name, 123).await;
    let state = ground.storage.topics.describe(&name).await.unwrap();
    assert_eq!(state.length, 123);
    assert_eq!((state.first_id, state.last_id), (Some(appended[0]), Some(appended[122])));
    assert_eq!((state.topic.description, state.topic.retention_seconds), (None, None));
    let large =
        ground.storage.messages.append(vec![message(&name, json(format!("{:?}", "x".repeat(50_000))))]).await;
    large[0].as_ref().expect("it is kept");
    let after = ground.storage.topics.describe(&name).await.unwrap();
    let grown = after.bytes.zip(state.bytes).map(|(after, before)| after - before);
    assert!(grown.is_some_and(|grown| (40_000..100_000).contains(&grown)), "{grown:?}");
    // What is removed was given still.
    ground.storage.messages.trim(&name, Trim::Keep(2)).await.unwrap();
    let left = ground.storage.topics.describe(&name).await.unwrap();
    assert_eq!((left.length, state.given, left.given), (2, Some(123), Some(124)));
}

pub(super) async fn an_update_replaces_the_description(ground: &Ground) {
    let name = ground.topic();
    let created = ground.storage.topics.create(&name, described("first", Some(60)), None).await.unwrap();
    for update in [
        described("second", None),
        TopicUpdate { description: None, retention_seconds: Some(5), ..TopicUpdate::default() },
        TopicUpdate::default(),
    ] {
        let updated = ground.storage.topics.update(&name, update.clone().into()).await.unwrap();
        assert_eq!(
            (&updated.description, updated.retention_seconds),
            (&update.description, update.retention_seconds)
        );
        assert_eq!(updated.created_at, created.created_at);
        assert_eq!(ground.storage.topics.describe(&name).await.unwrap().topic, updated);
    }
    let missing = ground.topic();
    let refused = ground.storage.topics.update(&missing, described("x", None).into()).await;
    assert!(matches!(refused, Err(StorageError::NoTopic)), "{refused:?}");
    assert_eq!(ground.storage.topics.list(Selection::default(), None, 10).await.unwrap().topics.len(), 1);
}

pub(super) async fn a_deleted_topic_is_gone_with_its_messages(ground: &Ground) {
    let storage = &ground.storage;
    let name = ground.topic();
    storage.topics.create(&name, described("old", Some(60)), None).await.unwrap();
    let old = append_numbers(storage, &name, 150).await;
    storage.topics.delete(&name).await.unwrap();
    let careful = NewMessage { create_topic: false, ..message(&name, json("1")) };
    assert!(matches!(append(storage, careful).await, Err(StorageError::NoTopic)));
    assert!(matches!(storage.topics.describe(&name).await, Err(StorageError::NoTopic)));
    assert!(matches!(storage.topics.delete(&name).await, Err(StorageError::NoTopic)));
    assert!(matches!(storage.messages.get(&name, old[0]).await, Err(StorageError::NoTopic)));
    assert!(storage.topics.list(Selection::default(), None, 10).await.unwrap().topics.is_empty());

    let new = append_numbers(storage, &name, 3).await;
    let state = storage.topics.describe(&name).await.unwrap();
    assert_eq!((state.topic.description, state.topic.retention_seconds), (None, None));
    assert_eq!((state.length, state.first_id), (3, Some(new[0])));
    assert_eq!(ids(&read_all(storage, &name, Order::Desc, 100).await), [new[2], new[1], new[0]]);
    assert_eq!(names(storage, None, 10).await, (vec![name.to_string()], None));
}

pub(super) async fn a_topic_made_again_gives_new_ids(ground: &Ground) {
    let storage = &ground.storage;
    let name = ground.topic();
    let mut given: Vec<MessageId> = Vec::new();
    // Several lives of the topic fit into a millisecond.
    for life in 0..20 {
        if life % 2 == 0 {
            storage.topics.create(&name, TopicUpdate::default(), None).await.unwrap();
        }
        let appended = append_numbers(storage, &name, 2).await;
        for old in &given {
            assert!(appended[0] > *old, "life {life}: {} after {old}", appended[0]);
            assert_eq!(storage.messages.get(&name, *old).await.unwrap(), None, "life {life}");
        }
        given.extend(appended);
        storage.topics.delete(&name).await.unwrap();
    }
}

pub(super) async fn topics_and_messages_are_counted(ground: &Ground) {
    let storage = &ground.storage;
    let counted = async |total_topics, total_messages| {
        assert_eq!(storage.topics.stats().await.unwrap(), TopicsStats { total_topics, total_messages });
    };
    counted(0, 0).await;
    let (one, two, three) = (ground.topic(), ground.topic(), ground.topic());
    append_numbers(storage, &one, 5).await;
    append_numbers(storage, &two, 7).await;
    storage.topics.create(&three, TopicUpdate::default(), None).await.unwrap();
    counted(3, 12).await;
    storage.messages.trim(&two, tidemill::storage::Trim::Keep(1)).await.unwrap();
    counted(3, 6).await;
    storage.topics.delete(&one).await.unwrap();
    counted(2, 1).await;
}

pub(super) async fn topics_past_the_limit_are_refused(ground: &Ground) {
    let storage = ground.under(StorageLimits { topics_max: 2, ..LIMITS }).await;
    let (one, two, three) = (ground.topic(), ground.topic(), ground.topic());
    storage.topics.create(&one, TopicUpdate::default(), None).await.unwrap();
    append_numbers(&storage, &two, 1).await;
    let refused = storage.topics.create(&three, TopicUpdate::default(), None).await;
    assert!(matches!(refused, Err(StorageError::TopicsLimit)), "{refused:?}");
    let batch = vec![message(&three, json("1")), message(&two, json("2"))];
    let results = storage.messages.append(batch).await;
    assert!(matches!(results[0], Err(StorageError::TopicsLimit)), "{results:?}");
    assert!(results[1].is_ok(), "topics that exist go on: {results:?}");
    let existing = storage.topics.create(&one, TopicUpdate::default(), None).await;
    assert!(matches!(existing, Err(StorageError::TopicExists)), "{existing:?}");
    storage.topics.delete(&one).await.unwrap();
    append_numbers(&storage, &three, 1).await;
}

pub(super) async fn a_backend_tells_how_it_is(ground: &Ground) {
    assert!(ground.storage.upkeep.is_ready());
    let Condition { status, backend: health } = ground.storage.upkeep.health().await;
    assert_eq!(status, HealthStatus::Healthy);
    assert!(health.connected, "{health:?}");
    assert!(["memory", "valkey"].contains(&health.kind.as_str()), "{health:?}");
    assert!(health.memory_used_bytes.is_some(), "{health:?}");
    assert_eq!(ground.storage.upkeep.sweep().await.unwrap().removed, 0);
    let never = ground.storage.messages.get(&ground.topic(), MessageId::MAX).await;
    assert!(matches!(never, Err(StorageError::NoTopic)), "asking made no topic: {never:?}");
}

pub(super) async fn a_backend_is_looked_at_and_closed(ground: &Ground) {
    assert!(ground.backend.ready(SOON).await);
    ground.backend.examine(false).await.expect("only a strict examination refuses");
    for _ in 0..2 {
        tokio::time::timeout(SOON, ground.backend.close()).await.expect("it ends");
    }
}
