//! What no list names: a copy that is broken off leaves nothing so, and one from where other programs publish finds it.

use std::time::Duration;

use tidemill::copying::{Action, freeze, frozen};
use tidemill::proto::{BucketName, TopicName};
use tokio::time::timeout;

use super::{PLAN, Plan, copy, kept, named, put, sides};
use crate::support::eventually;
use crate::support::ground::{Ground, SOON, append_numbers, topic};
use crate::support::resp::Reply;
use crate::support::server::Kind;

fn bucket(name: &str) -> BucketName {
    BucketName::parse(name).expect("a name")
}

async fn count(ground: &Ground, index: &str) -> Reply {
    ground.server().command(&["ZCARD", index]).await
}

#[tokio::test]
async fn whenever_a_copy_is_broken_off_lists_name_what_it_has_made() {
    let Some((from, to)) = sides().await else { return };
    let names: Vec<TopicName> = (0..40).map(|number| topic(&format!("one-{number}"))).collect();
    for (number, name) in names.iter().enumerate() {
        append_numbers(&from.storage, name, 1).await;
        put(&from.storage, &bucket(&format!("flows-{number}")), "a", None).await.unwrap();
    }
    let mut breaks = 0;
    loop {
        let part = copy(&from, &to, PLAN);
        let most = if breaks < 40 { Duration::from_millis(4 + breaks) } else { SOON };
        let done = timeout(most, part.run()).await;
        // What was on its way comes there yet.
        eventually(SOON, async || to.storage.copies.unlisted().await.unwrap().names.is_empty()).await;
        if let Ok(done) = done {
            done.unwrap();
            break;
        }
        // So that there is always something to make.
        for (number, name) in names.iter().enumerate().filter(|_| breaks < 40) {
            drop(to.storage.topics.delete(name).await);
            drop(to.storage.buckets.delete_bucket(&bucket(&format!("flows-{number}"))).await);
        }
        breaks += 1;
        assert!(breaks < 50, "it does not come to an end");
    }
    assert!(breaks > 0, "nothing was broken off");
}

#[tokio::test]
async fn what_is_there_already_is_listed_by_the_same_copy() {
    let Some((from, to)) = sides().await else { return };
    append_numbers(&from.storage, &topic("one"), 3).await;
    put(&from.storage, &bucket("flows"), "a", Some(Duration::from_hours(1))).await.unwrap();
    copy(&from, &to, PLAN).run().await.unwrap();
    let indexes = ["tidemill:topics", "tidemill:buckets", "tidemill:expiring"];
    let keys = async || {
        let mut found = Vec::new();
        for index in indexes {
            let Reply::Array(keys) = to.server().command(&["KEYS", &format!("{index}*")]).await else {
                panic!("no keys")
            };
            found.extend(keys.iter().map(Reply::text));
        }
        found.sort();
        found
    };
    let before = keys().await;
    assert_eq!(before.len(), 3, "{before:?}");
    for key in &before {
        to.server().command(&["DEL", key]).await;
    }
    assert_eq!(to.storage.copies.unlisted().await.unwrap().names.len(), 2);
    copy(&from, &to, PLAN).run().await.unwrap();
    assert_eq!(keys().await, before);
    assert_eq!(to.storage.copies.unlisted().await.unwrap().names, []);
}

#[tokio::test]
async fn topics_of_other_programs_that_nobody_has_swept_are_copied_and_made_read_only() {
    let Some(from) = Ground::on(Kind::Valkey).await else { return };
    let to = Ground::memory().await.expect("it is there");
    let (own, foreign) = (topic("own"), topic("foreign"));
    append_numbers(&from.storage, &own, 1).await;
    put(&from.storage, &bucket("flows"), "a", None).await.unwrap();
    let server = from.server();
    server.command(&["XADD", "stream:topic:foreign", "*", "payload", "1"]).await;
    server.command(&["ZREM", "tidemill:buckets", "flows"]).await;
    // A look alone changes nothing.
    let planned = copy(&from, &to, PLAN).plan().await.unwrap();
    assert_eq!((planned.topics.len(), planned.buckets.len()), (2, 1), "{planned:?}");
    let planned = copy(&from, &to, Plan { topics: named("for*"), ..PLAN }).plan().await.unwrap();
    assert_eq!(planned.topics.len(), 1, "{planned:?}");
    assert_eq!(count(&from, "tidemill:topics").await, Reply::Integer(1));
    assert_eq!(frozen(&from.storage, &[]).await.unwrap().topics, [0, 2]);

    let following = copy(&from, &to, Plan { follow: true, ..PLAN });
    let switch = async {
        eventually(SOON, async || following.progress().reached().caught_up).await;
        // One that comes meanwhile is found in the end.
        server.command(&["XADD", "stream:topic:later", "*", "payload", "1"]).await;
        freeze(&from.storage, &[], true).await.unwrap()
    };
    let both = async { tokio::join!(following.run(), switch) };
    let (done, frozen) = timeout(SOON * 3, both).await.expect("it ends");
    done.unwrap();
    assert_eq!((frozen.topics, frozen.buckets), (3, 1));
    for name in [own, foreign, topic("later")] {
        assert_eq!(kept(&to.storage, &name).await.len(), 1, "{name}");
    }
    let refused = server.command(&["XADD", "stream:topic:later", "*", "payload", "1"]).await;
    assert!(matches!(refused, Reply::Error(_)), "{refused:?}");
    assert!(to.storage.buckets.bucket(&bucket("flows")).await.is_ok());
}

#[tokio::test]
async fn a_topic_of_another_program_is_no_copy_of_another_one_of_its_name() {
    let Some((from, to)) = sides().await else { return };
    from.server().command(&["XADD", "stream:topic:orders", "1-0", "payload", "1"]).await;
    to.server().command(&["XADD", "stream:topic:{orders}", "2-0", "payload", "2"]).await;
    let would = super::actions(&copy(&from, &to, PLAN)).await;
    assert_eq!(would, [("orders".to_owned(), Action::Overwrite, 1)]);
}
