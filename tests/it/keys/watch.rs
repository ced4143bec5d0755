//! Watching keys over HTTP: the snapshot, what comes behind it, and resuming.

mod anew;

use std::time::Duration;

use serde_json::{Value, json};
use tidemill::access::{Caller, Leave};
use tidemill::storage::Storage;
use tokio::time::Instant;

use super::{bucket, delete, get, on_both_backends, post, put, revision};
use crate::support::eventually;
use crate::support::ground::SOON;
use crate::support::relay::TestRelay;
use crate::support::watcher::{Form, Frame, View, Watcher};

on_both_backends![
    a_snapshot_comes_and_then_every_change,
    values_come_in_their_three_forms,
    a_part_of_a_bucket_is_watched,
    a_watcher_resumes_behind_an_id,
    a_bucket_is_awaited,
    a_bookmark_comes_where_nothing_does,
    a_bookmark_is_never_inside_of_a_step,
    a_large_snapshot_has_every_key_once,
    a_slow_watcher_costs_nobody_anything,
    an_expiry_is_told_once_and_soon,
    a_draining_relay_ends_the_watch,
    who_may_not_watch_any_more_is_told,
    what_is_wrong_is_told,
];

const PATH: &str = "/api/v1/keys/b";

async fn watch(relay: &TestRelay, path: &str, form: Form) -> Watcher {
    Watcher::open(relay.address, path, form, "").await.expect("a watch")
}

/// Puts so many keys in one step.
async fn put_all(relay: &TestRelay, bucket: &str, keys: impl Iterator<Item = String>) -> Vec<String> {
    let puts: Vec<_> = keys.map(|key| json!({ "op": "put", "key": key, "value": 0 })).collect();
    let answer = post(relay, bucket, &[], &json!({ "changes": puts }).to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let changed = answer.json()["changed"].as_array().expect("a list").clone();
    changed.iter().map(|one| one["revision"].as_str().expect("an id").to_owned()).collect()
}

fn told(frame: &Frame) -> (&str, &str, &str, Option<&str>) {
    (&frame.kind, frame.name(), frame.revision(), frame.id.as_deref())
}

async fn a_snapshot_comes_and_then_every_change(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let b = revision(&put(&relay, "b/b", &[], r#"{"n": 1}"#).await);
    let a = revision(&put(&relay, "b/a", &[], "1").await);
    put(&relay, "b/gone", &[], "1").await;
    delete(&relay, "b/gone", &[]).await;
    let mut watchers = Vec::new();
    for form in Form::ALL {
        let mut watcher = watch(&relay, PATH, form).await;
        let frames = watcher.up_to("synced").await;
        let [first, second, synced] = &frames[..] else { panic!("{frames:?}") };
        // A place is told once the snapshot is whole.
        assert_eq!(told(first), ("put", "a", &*a, None));
        assert_eq!(told(second), ("put", "b", &*b, None));
        assert_eq!((&first.data["value"], &second.data["value"]), (&json!(1), &json!({ "n": 1 })));
        assert_eq!(synced.id.as_deref(), Some(synced.revision()));
        assert!(synced.revision() > &*a, "the deletion is behind it: {synced:?}");
        watchers.push(watcher);
    }
    let c = revision(&put(&relay, "b/c", &[], "3").await);
    let step = put_all(&relay, "b", ["x", "y", "z"].map(str::to_owned).into_iter()).await;
    let deleted = revision(&delete(&relay, "b/a", &[]).await);
    assert_eq!(delete(&relay, "b/none", &[]).await.status, 404, "of which nobody is told");
    let more = post(&relay, "b/n/increment", &[], r#"{"by": 7}"#).await;
    for mut watcher in watchers {
        assert_eq!(told(&watcher.expect("put").await), ("put", "c", &*c, Some(&*c)));
        // The place is behind the step, never inside.
        assert_eq!(told(&watcher.expect("put").await), ("put", "x", &*step[0], None));
        assert_eq!(told(&watcher.expect("put").await), ("put", "y", &*step[1], None));
        assert_eq!(told(&watcher.expect("put").await), ("put", "z", &*step[2], Some(&*step[2])));
        let frame = watcher.expect("deleted").await;
        assert_eq!(told(&frame), ("deleted", "a", &*deleted, Some(&*deleted)));
        assert_eq!(frame.data.as_object().map(serde_json::Map::len), Some(2), "{frame:?}");
        let frame = watcher.expect("put").await;
        assert_eq!((frame.name(), &frame.data["value"]), ("n", &more.json()["value"]));
    }
    relay.stop().await;
}

async fn values_come_in_their_three_forms(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let text = [("content-type", "text/plain; charset=utf-8")];
    let bytes = [("content-type", "image/png")];
    let put_both = async |at: &str| {
        relay.send("PUT", &format!("{PATH}/{at}-text"), &text, "a\nb é".as_bytes()).await;
        relay.send("PUT", &format!("{PATH}/{at}-bytes"), &bytes, b"\x89PNG\r\n").await;
        put(&relay, &format!("b/{at}-json"), &[], "{\n  \"a\": 1\n}").await;
    };
    put_both("before").await;
    let mut watchers = Vec::new();
    for form in Form::ALL {
        let mut watcher = watch(&relay, PATH, form).await;
        let mut frames = watcher.up_to("synced").await;
        frames.pop();
        watchers.push((watcher, frames));
    }
    put_both("later").await;
    for (mut watcher, mut frames) in watchers {
        for _ in 0..3 {
            frames.push(watcher.expect("put").await);
        }
        for frame in &frames {
            let of = |name: &str| frame.data.get(name).cloned();
            let members = (of("value"), of("value_text"), of("value_base64"), of("content_type"));
            let expected = match frame.name().split_once('-').expect("two parts").1 {
                "text" => (None, Some(json!("a\nb é")), None, Some(json!("text/plain; charset=utf-8"))),
                "bytes" => (None, None, Some(json!("iVBORw0K")), Some(json!("image/png"))),
                _ => (Some(json!({ "a": 1 })), None, None, None),
            };
            assert_eq!(members, expected, "{frame:?}");
        }
    }
    relay.stop().await;
}

async fn a_part_of_a_bucket_is_watched(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put_all(&relay, "b", ["job.1", "job.2", "job", "other"].map(str::to_owned).into_iter()).await;
    for form in Form::ALL {
        let mut jobs = watch(&relay, &format!("{PATH}?prefix=job."), form).await;
        let mut one = watch(&relay, &format!("{PATH}?key=job.1"), form).await;
        let names = |frames: &[Frame]| -> Vec<_> {
            frames[..frames.len() - 1].iter().map(|frame| frame.name().to_owned()).collect()
        };
        assert_eq!(names(&jobs.up_to("synced").await), ["job.1", "job.2"]);
        assert_eq!(names(&one.up_to("synced").await), ["job.1"]);
        put(&relay, "b/other", &[], "2").await;
        let step = put_all(&relay, "b", ["job.1", "job.2", "other"].map(str::to_owned).into_iter()).await;
        let last = revision(&put(&relay, "b/job.1", &[], "3").await);
        assert_eq!(told(&jobs.expect("put").await), ("put", "job.1", &*step[0], None));
        assert_eq!(told(&jobs.expect("put").await), ("put", "job.2", &*step[1], None));
        // The step ends with what it does not watch.
        let bookmark = jobs.expect("bookmark").await;
        assert_eq!((bookmark.revision(), bookmark.id.as_deref()), (&*step[2], Some(&*step[2])));
        assert_eq!(told(&jobs.expect("put").await), ("put", "job.1", &*last, Some(&*last)));
        assert_eq!(told(&one.expect("put").await), ("put", "job.1", &*step[0], None));
        assert_eq!(one.expect("bookmark").await.id.as_deref(), Some(&*step[2]));
        assert_eq!(told(&one.expect("put").await), ("put", "job.1", &*last, Some(&*last)));
    }
    // Of a key that is not there nothing comes until it is.
    let mut none = watch(&relay, &format!("{PATH}?key=new"), Form::Events).await;
    none.expect("synced").await;
    let new = revision(&put(&relay, "b/new", &[], "1").await);
    assert_eq!(told(&none.expect("put").await), ("put", "new", &*new, Some(&*new)));
    relay.stop().await;
}

async fn a_watcher_resumes_behind_an_id(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, "b/a", &[], "1").await;
    let mut watcher = watch(&relay, PATH, Form::Events).await;
    let synced = watcher.up_to("synced").await.pop().and_then(|frame| frame.id).expect("an id");
    drop(watcher);
    let step = put_all(&relay, "b", ["x", "y"].map(str::to_owned).into_iter()).await;
    let deleted = revision(&delete(&relay, "b/a", &[]).await);
    let mut newest = deleted.clone();
    for form in Form::ALL {
        let mut ways =
            vec![Watcher::resume(relay.address, PATH, form, &synced).await.expect("by the header")];
        for name in ["last_event_id", "lastEventId", "Last-Event-ID"] {
            ways.push(watch(&relay, &format!("{PATH}?{name}={synced}"), form).await);
        }
        // The header is what a browser adds to a URL that its page has written once.
        let both = format!("{PATH}?last_event_id=0-1");
        ways.push(Watcher::resume(relay.address, &both, form, &synced).await.expect("by both"));
        for mut watcher in ways {
            assert_eq!(told(&watcher.expect("put").await), ("put", "x", &*step[0], None));
            assert_eq!(told(&watcher.expect("put").await), ("put", "y", &*step[1], Some(&*step[1])));
            let frame = watcher.expect("deleted").await;
            assert_eq!(told(&frame), ("deleted", "a", &*deleted, Some(&*deleted)));
        }
        // Who knows everything is told what comes, and nothing of what there is.
        let mut watcher = Watcher::resume(relay.address, PATH, form, &newest).await.expect("a watch");
        let next = revision(&put(&relay, "b/next", &[], "1").await);
        assert_eq!(told(&watcher.expect("put").await), ("put", "next", &*next, Some(&*next)));
        newest = revision(&delete(&relay, "b/next", &[]).await);
    }
    relay.stop().await;
}

async fn a_bucket_is_awaited(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    for form in Form::ALL {
        let mut watcher = watch(&relay, PATH, form).await;
        let synced = watcher.expect("synced").await;
        assert_eq!(get(&relay, "b/a").await.status, 404, "to watch makes nothing");
        let a = revision(&put(&relay, "b/a", &[], "1").await);
        assert_eq!(told(&watcher.expect("put").await), ("put", "a", &*a, Some(&*a)));
        // From the place before the first change on nothing is missed either.
        let place = synced.id.expect("an id");
        let mut again = Watcher::resume(relay.address, PATH, form, &place).await.expect("a watch");
        assert_eq!(told(&again.expect("put").await), ("put", "a", &*a, Some(&*a)));
        assert_eq!(relay.send("DELETE", "/api/v1/buckets/b", &[], b"").await.status, 204);
    }
    relay.stop().await;
}

async fn a_bookmark_comes_where_nothing_does(storage: Storage) {
    let every = Duration::from_millis(200);
    let relay = TestRelay::start_with(storage, |options| options.http.ping_every = every).await;
    put(&relay, "b/a", &[], "1").await;
    for form in Form::ALL {
        let mut watcher = watch(&relay, &format!("{PATH}?prefix=a"), form).await;
        watcher.up_to("synced").await;
        // Nothing of this is its own, and still it need not be passed again.
        let other = revision(&put(&relay, "b/other", &[], "1").await);
        let started = Instant::now();
        loop {
            let bookmark = watcher.expect("bookmark").await;
            assert_eq!(bookmark.id.as_deref(), Some(bookmark.revision()));
            if bookmark.revision() == other {
                break;
            }
            assert!(started.elapsed() < SOON, "{bookmark:?}");
        }
    }
    relay.stop().await;
}

async fn a_bookmark_is_never_inside_of_a_step(storage: Storage) {
    let relay = TestRelay::start_with(storage, |options| {
        options.http.ping_every = Duration::from_millis(1);
        // Who is behind reads steps in many pieces.
        options.http.subscriber_bytes_max = 64 * 1024;
    })
    .await;
    let path = format!("{PATH}?prefix=none");
    for form in Form::ALL {
        let synced = watch(&relay, &path, form).await.up_to("synced").await.pop().expect("the last");
        let mut ends = vec![synced.revision().to_owned()];
        let value = "v".repeat(10_000);
        for _ in 0..20 {
            let put = |at| json!({ "op": "put", "key": format!("k{at}"), "value": value });
            let changes = json!({ "changes": (0..100).map(put).collect::<Vec<_>>() });
            let answer = post(&relay, "b", &[], &changes.to_string()).await;
            ends.push(answer.json()["changed"][99]["revision"].as_str().expect("an id").to_owned());
        }
        let mut watcher = Watcher::resume(relay.address, &path, form, &ends[0]).await.expect("a watch");
        let mut place = String::new();
        while Some(&place) != ends.last() {
            place = watcher.expect("bookmark").await.id.expect("a place");
            assert!(ends.contains(&place), "{place} is none of {ends:?}");
        }
    }
    relay.stop().await;
}

async fn a_large_snapshot_has_every_key_once(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    for round in 0..30 {
        put_all(&relay, "b", (0..100).map(|at| format!("k{:04}", round * 100 + at))).await;
    }
    for form in Form::ALL {
        let mut watcher = watch(&relay, PATH, form).await;
        let started = Instant::now();
        // While it comes, keys change.
        let changes = async {
            for at in 0..40 {
                put_all(&relay, "b", (0..50).map(|key| format!("k{:04}", key * 60 + at))).await;
            }
            put(&relay, "b/last", &[], "1").await;
        };
        let reading = async {
            let (mut view, mut revisions) = (View::default(), std::collections::HashSet::new());
            loop {
                let frame = watcher.next().await.expect("it goes on");
                if frame.kind == "put" {
                    assert!(revisions.insert(frame.revision().to_owned()), "twice: {frame:?}");
                }
                view.take(&frame);
                if frame.kind == "put" && frame.name() == "last" && frame.id.is_some() {
                    return view;
                }
            }
        };
        let ((), view) = tokio::join!(changes, reading);
        eprintln!("{form:?}: {:?}", started.elapsed());
        assert_eq!(view.there.len(), 3_001);
        let page = get(&relay, "b?limit=1000&prefix=k1").await.json();
        for key in page.as_array().expect("a list") {
            let (name, revision) = (key["key"].as_str(), key["revision"].as_str());
            assert_eq!(view.there.get(name.expect("a name")).map(String::as_str), revision);
        }
        delete(&relay, "b/last", &[]).await;
    }
    relay.stop().await;
}

async fn a_slow_watcher_costs_nobody_anything(storage: Storage) {
    const CHANGES: usize = 300;
    let relay = TestRelay::start(storage).await;
    let value = format!("\"{}\"", "v".repeat(60_000));
    let mut slow = watch(&relay, PATH, Form::Events).await;
    slow.expect("synced").await;
    let mut quick = watch(&relay, PATH, Form::Lines).await;
    quick.expect("synced").await;
    let mut revisions = Vec::new();
    for at in 0..CHANGES {
        let put = revision(&put(&relay, &format!("b/k{}", at % 5), &[], &value).await);
        // It has it at once, whoever else does not read.
        assert_eq!(quick.expect("put").await.revision(), put);
        revisions.push(put);
    }
    for revision in &revisions {
        let frame = slow.expect("put").await;
        assert_eq!(frame.id.as_ref(), Some(revision), "it gets everything, in order");
        assert_eq!(frame.data["value"].as_str().map(str::len), Some(60_000));
    }
    relay.stop().await;
}

async fn an_expiry_is_told_once_and_soon(storage: Storage) {
    const KEYS: usize = 300;
    let (one, two) = (TestRelay::start(storage.clone()).await, TestRelay::start(storage).await);
    let mut watchers = Vec::new();
    for relay in [&one, &two] {
        for form in Form::ALL {
            let mut watcher = watch(relay, PATH, form).await;
            watcher.expect("synced").await;
            watchers.push(watcher);
        }
    }
    bucket(&one, "b", r#"{"ttl": "1500ms"}"#).await;
    let begun = Instant::now();
    let load = async {
        for round in 0..KEYS / 100 {
            let relay = if round % 2 == 0 { &one } else { &two };
            put_all(relay, "b", (0..100).map(|at| format!("due-{}", round * 100 + at))).await;
        }
        let put_by = begun.elapsed();
        // Everybody writes on while they expire.
        let mut at = 0;
        while begun.elapsed() < Duration::from_millis(3_500) {
            let relay = if at % 2 == 0 { &one } else { &two };
            put(relay, &format!("b/busy-{}?ttl=1h", at % 20), &[], "1").await;
            at += 1;
        }
        put(&one, "b/last?ttl=1h", &[], "1").await;
        put_by
    };
    let reading = futures_util::future::join_all(watchers.into_iter().map(async |mut watcher| {
        let (mut expired, mut late) = (Vec::new(), Duration::ZERO);
        loop {
            let frame = watcher.next().await.expect("it goes on");
            match (frame.kind.as_str(), frame.name()) {
                ("expired", name) => {
                    expired.push(name.to_owned());
                    late = begun.elapsed();
                }
                ("put", "last") if frame.id.is_some() => return (expired, late),
                _ => {}
            }
        }
    }));
    let (put_by, seen) = tokio::join!(load, reading);
    for (mut expired, late) in seen {
        assert_eq!(expired.len(), KEYS, "none twice");
        expired.sort_unstable();
        expired.dedup();
        assert_eq!(expired.len(), KEYS, "each of them");
        let late = late.saturating_sub(put_by + Duration::from_millis(1_500));
        eprintln!("the last expiry was told {late:?} after it was due");
        // A second, and what a busy machine adds.
        assert!(late < Duration::from_secs(3), "{late:?}");
    }
    one.stop().await;
    two.stop().await;
}

async fn a_draining_relay_ends_the_watch(storage: Storage) {
    let drain = Duration::from_secs(1);
    let relay = TestRelay::start_with(storage, |options| {
        options.drain = drain;
        options.drain_spread = drain;
    })
    .await;
    let a = revision(&put(&relay, "b/a", &[], "1").await);
    let mut watchers = Vec::new();
    for form in Form::ALL {
        let mut watcher = watch(&relay, PATH, form).await;
        watcher.up_to("synced").await;
        watchers.push(watcher);
    }
    let started = Instant::now();
    relay.begin_stop();
    for mut watcher in watchers {
        let end = watcher.expect("end").await;
        assert_eq!((end.id.as_deref(), end.revision()), (None, &*a), "a browser keeps its place");
        assert!(end.data["reason"].is_string(), "{end:?}");
        watcher.ended().await;
    }
    assert!(started.elapsed() < drain * 3, "{:?}", started.elapsed());
    relay.stop().await;
}

async fn who_may_not_watch_any_more_is_told(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let a = revision(&put(&relay, "b/a", &[], "1").await);
    let mut watchers = Vec::new();
    for form in Form::ALL {
        let mut watcher = watch(&relay, PATH, form).await;
        watcher.up_to("synced").await;
        watchers.push(watcher);
    }
    assert_eq!(relay.sessions.end(&Caller::anyone()), 2);
    for watcher in &mut watchers {
        let end = watcher.expect("end").await;
        assert_eq!((&end.data["reason"], end.revision()), (&json!(Leave::Ended.reason()), &*a));
    }
    // Their connections are still there, and hold nothing.
    eventually(Duration::from_secs(2), async || relay.sessions.count() == 0).await;
    drop(watchers);
    relay.stop().await;
}

async fn what_is_wrong_is_told(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let asked = async |path: &str, headers: &[(&str, &str)]| {
        let headers = [&[("accept", "text/event-stream")], headers].concat();
        relay.send("GET", &format!("/api/v1/keys/{path}"), &headers, b"").await.problem()
    };
    for (path, field) in [
        ("b?prefix=a&key=b", "key"),
        ("b?prefix=a%20b", "prefix"),
        ("b?key=", "key"),
        ("b?key=a%2Fb", "key"),
        ("b?last_event_id=x", "last_event_id"),
        ("b?lastEventId=1-2-3", "lastEventId"),
        ("b?since=1-0", "since"),
        (".b", "bucket"),
    ] {
        let problem = asked(path, &[]).await;
        assert_eq!((problem.status, problem.field.as_deref()), (400, Some(field)), "{path}: {problem:?}");
    }
    let problem = asked("b", &[("last-event-id", "soon")]).await;
    assert_eq!((problem.status, problem.field.as_deref()), (400, Some("Last-Event-ID")), "{problem:?}");
    let none: Value = relay.get("/api/v1/buckets").await.json();
    assert_eq!(none, json!([]), "nothing was made");
    // What is for a stream is refused where there is none, and the other way round.
    for (path, field) in
        [("b?key=a", "key"), ("b?presence=r", "presence"), ("b?last_event_id=1-0", "last_event_id")]
    {
        let problem = relay.get(&format!("/api/v1/keys/{path}")).await.problem();
        assert_eq!((problem.status, problem.field.as_deref()), (400, Some(field)), "{path}: {problem:?}");
    }
    for (path, field) in [("b?limit=1", "limit"), ("b?after=a", "after"), ("b?values=true", "values")] {
        assert_eq!(asked(path, &[]).await.field.as_deref(), Some(field), "{path}");
    }
    // A head alone is no watch.
    let head = relay.send("HEAD", PATH, &[("accept", "text/event-stream")], b"").await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    relay.stop().await;
}
