//! What has a watcher begin anew: changes that are gone, another bucket, a server that has lost everything, a storage that
//! fails meanwhile.

use tidemill::storage::Storage;
use tokio::time::Instant;

use super::{PATH, put_all, told, watch};
use crate::keys::{delete, get, on_both_backends, put, revision};
use crate::support::dice::seeds;
#[cfg(feature = "valkey")]
use crate::support::eventually;
use crate::support::faulty::{Faulty, Rates};
use crate::support::ground::SOON;
use crate::support::length;
use crate::support::raw::RawConnection;
use crate::support::relay::{TestRelay, memory};
use crate::support::watcher::{Form, Frame, View, Watcher};

on_both_backends![
    who_is_behind_the_log_begins_anew,
    who_has_the_place_of_another_bucket_begins_anew,
    a_bucket_that_is_deleted_and_made_again_is_another,
];

/// Changes more than the log keeps.
async fn overflow(relay: &TestRelay, bucket: &str) {
    for round in 0..130 {
        put_all(relay, bucket, (0..100).map(|at| format!("k{}", (round * 7 + at) % 150))).await;
    }
}

async fn who_is_behind_the_log_begins_anew(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, "b/old", &[], "1").await;
    let early = revision(&put(&relay, "b/stays", &[], "1").await);
    delete(&relay, "b/old", &[]).await;
    overflow(&relay, "b").await;
    for form in Form::ALL {
        let mut watcher = Watcher::resume(relay.address, PATH, form, &early).await.expect("a watch");
        let mut view = View::default();
        view.there.insert("old".to_owned(), "1-0".to_owned());
        view.id = Some(early.clone());
        let reset = watcher.expect("reset").await;
        view.take(&reset);
        assert_eq!(view.id, None, "there is no place until the snapshot is whole");
        for frame in watcher.up_to("synced").await {
            view.take(&frame);
        }
        assert_eq!(view.there.len(), 151, "what is gone is gone: {:?}", view.there.keys());
        assert_eq!(view.there.get("stays"), Some(&early));
        assert_eq!(view.there.get("old"), None);
        // The new place holds.
        let place = view.id.expect("an id");
        let mut again = Watcher::resume(relay.address, PATH, form, &place).await.expect("a watch");
        let next = revision(&put(&relay, "b/k1", &[], "1").await);
        assert_eq!(told(&again.expect("put").await), ("put", "k1", &*next, Some(&*next)));
        assert_eq!(told(&watcher.expect("put").await), ("put", "k1", &*next, Some(&*next)));
    }
    relay.stop().await;
}

async fn who_has_the_place_of_another_bucket_begins_anew(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let a = revision(&put(&relay, "b/a", &[], "1").await);
    for form in Form::ALL {
        // An id that nobody has given yet, and one where there is no bucket.
        for (path, id, there) in
            [(PATH, "99999999999999-0", &["a"][..]), ("/api/v1/keys/none", "1700000000000-0", &[])]
        {
            let mut watcher = Watcher::resume(relay.address, path, form, id).await.expect("a watch");
            watcher.expect("reset").await;
            let frames = watcher.up_to("synced").await;
            let names: Vec<_> = frames[..frames.len() - 1].iter().map(Frame::name).collect();
            assert_eq!(names, there, "{path} behind {id}");
        }
    }
    assert_eq!(revision(&get(&relay, "b/a").await), a);
    relay.stop().await;
}

async fn a_bucket_that_is_deleted_and_made_again_is_another(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, "b/a", &[], "1").await;
    let place = revision(&put(&relay, "b/b", &[], "1").await);
    let (mut there, mut views) = (Vec::new(), Vec::new());
    for form in Form::ALL {
        let mut watcher = watch(&relay, PATH, form).await;
        let mut view = View::default();
        watcher.up_to("synced").await.iter().for_each(|frame| view.take(frame));
        assert_eq!(view.there.len(), 2);
        there.push(watcher);
        views.push(view);
    }
    assert_eq!(relay.send("DELETE", "/api/v1/buckets/b", &[], b"").await.status, 204);
    let c = revision(&put(&relay, "b/c", &[], "1").await);
    for (form, (mut watcher, mut view)) in Form::ALL.into_iter().zip(there.into_iter().zip(views)) {
        // Who was there, and who comes back.
        for _ in 0..2 {
            view.take(&watcher.expect("reset").await);
            watcher.up_to("synced").await.iter().for_each(|frame| view.take(frame));
            if view.there.is_empty() {
                // It was told of the deletion before there was another one.
                view.take(&watcher.expect("put").await);
            }
            assert_eq!(view.there.iter().collect::<Vec<_>>(), [(&"c".to_owned(), &c)]);
            watcher = Watcher::resume(relay.address, PATH, form, &place).await.expect("a watch");
            view.attached();
        }
    }
    relay.stop().await;
}

/// Where the server has lost everything, under those who watch and for those who come back.
#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lost_everything_has_watchers_begin_anew() {
    use crate::support::ground::Ground;
    use crate::support::server::Kind;

    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    let relay = TestRelay::start(ground.storage.clone()).await;
    put(&relay, "b/a", &[], "1").await;
    let place = revision(&put(&relay, "b/b", &[], "1").await);
    for form in Form::ALL {
        let mut watcher = watch(&relay, PATH, form).await;
        let mut view = View::default();
        watcher.up_to("synced").await.iter().for_each(|frame| view.take(frame));
        ground.server().command(&["FLUSHALL"]).await;
        eventually(SOON, async || put(&relay, "b/c", &[], "1").await.status == 201).await;
        for _ in 0..2 {
            view.take(&watcher.expect("reset").await);
            watcher.up_to("synced").await.iter().for_each(|frame| view.take(frame));
            if view.there.is_empty() {
                view.take(&watcher.expect("put").await);
            }
            assert_eq!(view.there.keys().collect::<Vec<_>>(), ["c"]);
            watcher = Watcher::resume(relay.address, PATH, form, &place).await.expect("a watch");
            view.attached();
        }
        delete(&relay, "b/c", &[]).await;
    }
    relay.stop().await;
}

/// A page that the storage did not give is asked for again, and not the first one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storage_that_fails_costs_a_snapshot_time_alone() {
    const KEYS: usize = 2_000;
    for seed in seeds(length::pick(3, 100)) {
        let faulty = Faulty::new(memory(), Rates { late: 0, ..Rates::MOST }, seed);
        let plain = TestRelay::start(faulty.inner().clone()).await;
        for from in (0..KEYS).step_by(100) {
            put_all(&plain, "b", (from..from + 100).map(|at| format!("k{at}"))).await;
        }
        plain.stop().await;
        let relay = TestRelay::start(faulty.storage()).await;
        for form in Form::ALL {
            let started = Instant::now();
            let mut watcher = loop {
                let connection = RawConnection::connect(relay.address).await.expect("the relay listens");
                match Watcher::try_open_on(connection, PATH, form, "").await.expect("an answer") {
                    Ok(watcher) => break watcher,
                    Err(status) => assert!(matches!(status, 503 | 504), "{status}"),
                }
                assert!(started.elapsed() < SOON, "it is never taken");
            };
            let frames = watcher.up_to("synced").await;
            let mut names: Vec<_> = frames[..frames.len() - 1].iter().map(Frame::name).collect();
            assert_eq!(names.len(), KEYS, "each once");
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), KEYS, "each of them");
        }
        faulty.calm().await;
        relay.stop().await;
    }
}
