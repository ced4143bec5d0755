//! What is not whole of a copy that was given up, what was moved to where it is placed, and what several servers are asked
//! of which one is away.

use tidemill::clock::Clock;
use tidemill::copying::{Copy, CopySide as _, FreezeError, Plan, Write, freeze_or_undo};
use tidemill::proto::copy::CopyRead;
use tidemill::proto::{BucketName, MessageId};
use tidemill::storage::valkey::check::{self, Outcome};
use tidemill::storage::valkey::{Placed, Target, Valkey, ValkeyOptions};
use tidemill::storage::{Backend, Storage};

use super::{PLAN, copy, named, put};
use crate::support::eventually;
use crate::support::ground::{Ground, LIMITS, SOON, append_numbers, node, topic};
use crate::support::server::{Kind, Server};

fn bucket() -> BucketName {
    BucketName::parse("flows").expect("a name")
}

fn options(port: u16) -> ValkeyOptions {
    ValkeyOptions::new(Target::parse(&format!("valkey://127.0.0.1:{port}")).expect("the URL is right"))
}

async fn taken_over(ground: &Ground) -> u64 {
    ground.storage.upkeep.health().await.backend.taken_over
}

/// Begins to take over a topic and a bucket, and gives that up.
async fn given_up(to: &Ground) {
    let from = Ground::memory().await.expect("it is there");
    append_numbers(&from.storage, &topic("one"), 2).await;
    append_numbers(&from.storage, &topic("two"), 2).await;
    put(&from.storage, &bucket(), "a", None).await.unwrap();
    let follow = copy(&from, to, Plan { follow: true, ..PLAN });
    let progress = follow.progress();
    tokio::select! {
        ended = follow.run() => panic!("it goes on until the source is read-only: {ended:?}"),
        () = eventually(SOON, async || progress.reached().caught_up) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_copy_that_was_given_up_has_left_is_counted_until_it_is_deleted() {
    let grounds = [Ground::memory().await, Ground::on(Kind::Valkey).await, Ground::with_braces().await];
    for ground in grounds.iter().flatten() {
        // It is asked once a second.
        let becomes = async |count| eventually(SOON, async || taken_over(ground).await == count).await;
        becomes(0).await;
        given_up(ground).await;
        becomes(3).await;
        ground.storage.topics.delete(&topic("one")).await.unwrap();
        becomes(2).await;
        ground.storage.buckets.delete_bucket(&bucket()).await.unwrap();
        // What is whole counts no more.
        let source = ground.storage.copies.copied(&topic("two")).await.unwrap();
        ground.storage.copies.finish_import(&source, &[]).await.unwrap();
        becomes(0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_names_what_is_not_whole_and_a_sweep_mends_what_is_known_of_it() {
    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    given_up(&ground).await;
    let options = options(ground.server().port());
    let report = Box::pin(check::run(&options)).await;
    let line = report.lines.iter().find(|line| line.name == "copies").expect("it is told");
    assert_eq!(
        (line.outcome, line.detail.as_str()),
        (
            Outcome::Warn,
            "3 topics and buckets are a part of a copy, and take no changes until they are whole: `one`, `two`, bucket `flows`"
        )
    );
    // Other programs delete, too, and servers lose what came last.
    let server = ground.server();
    server.command(&["DEL", "stream:topic:one"]).await;
    server.command(&["ZREM", "tidemill:importing", "two"]).await;
    let mends = async || {
        ground.storage.upkeep.sweep().await.unwrap();
        let names = server.command(&["ZRANGE", "tidemill:importing", "0", "-1"]).await;
        matches!(names.array(), [name] if name.text() == "two")
    };
    eventually(SOON, mends).await;
}

/// Opens a server beside which another one has the topics `eu.*`.
async fn placed(first: u16, second: u16) -> (Storage, std::sync::Arc<Valkey>) {
    let target = Target::parse(&format!("valkey://127.0.0.1:{second}")).expect("the URL is right");
    let beside = Placed { topics: named("eu.*"), target, password_file: None, sentinel_tls: false };
    let options = ValkeyOptions { placed: vec![beside], ..options(first) };
    let valkey = Valkey::connect(node(), options, LIMITS, Clock::system());
    assert!(valkey.ready(SOON).await);
    (Storage::new(valkey.clone()), valkey)
}

#[tokio::test(flavor = "multi_thread")]
async fn where_one_of_several_servers_is_away_nothing_is_made_read_only_at_the_others() {
    let Some(first) = Server::start(Kind::Valkey, &[]).await else { return };
    let mut second = Server::start(Kind::Valkey, &[]).await.expect("the first one started");
    let (storage, valkey) = placed(first.port(), second.port()).await;
    for name in ["a", "eu.a"] {
        append_numbers(&storage, &topic(name), 1).await;
    }
    second.kill9();
    let error = freeze_or_undo(&storage, &[], true).await.expect_err("a server is away");
    assert!(matches!(error, FreezeError::Nothing(_)), "{error:?}");
    assert_eq!(first.command(&["EXISTS", "tidemill:no-new-topics"]).await.integer(), 0);
    assert_eq!(storage.copies.copied(&topic("a")).await.unwrap().freeze, None);
    append_numbers(&storage, &topic("a"), 1).await;
    valkey.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_where_topics_were_moved_from_can_be_deleted_once_it_is_whole_elsewhere() {
    let Some(first) = Server::start(Kind::Valkey, &[]).await else { return };
    let second = Server::start(Kind::Valkey, &[]).await.expect("the first one started");
    let alone = async |port| {
        let valkey = Valkey::connect(node(), options(port), LIMITS, Clock::system());
        assert!(valkey.ready(SOON).await);
        Storage::new(valkey)
    };
    let (from, to) = (alone(first.port()).await, alone(second.port()).await);
    append_numbers(&from, &topic("eu.a"), 3).await;
    let (_storage, valkey) = placed(first.port(), second.port()).await;
    let told = async || {
        let warnings = valkey.examine(false).await.unwrap();
        warnings.into_iter().find(|told| told.contains("VALKEY_PLACEMENT")).expect("it is told")
    };
    let move_it = "nobody sees them here; move them with `tidemill copy`";
    assert!(told().await.contains(move_it), "{}", told().await);
    // Half of it is none.
    let source: Box<tidemill::storage::CopiedTopic> =
        match from.read(&CopyRead::Topic { topic: topic("eu.a") }).await.unwrap() {
            tidemill::copying::Told::Topic(source) => source,
            other => panic!("{other:?}"),
        };
    tidemill::copying::write(&to, Write::Begin(source)).await.unwrap();
    assert!(told().await.contains(move_it), "{}", told().await);
    let moved = Copy::new(
        std::sync::Arc::new(from.clone()),
        std::sync::Arc::new(to.clone()),
        Plan { topics: named("eu.*"), ..PLAN },
    );
    moved.run().await.unwrap();
    assert!(told().await.contains("whole there, so what is left here can be deleted"), "{}", told().await);
    // What has come here since is nowhere else.
    let late = append_numbers(&from, &topic("eu.a"), 1).await;
    assert!(late[0] > MessageId::MIN);
    assert!(told().await.contains(move_it), "{}", told().await);
    valkey.close().await;
}
