//! Who is present in rooms, from outside: over HTTP, as connections, over several nodes.

mod commands;
mod connections;
mod killed;
mod rights;

use std::time::Duration;

use serde_json::{Value, json};

use crate::streams::on_both_backends;
use crate::support::ground::{Ground, SOON};
use crate::support::relay::{Answer, TestRelay};
use crate::support::watcher::{Form, Frame, View, Watcher};
use crate::support::{always, eventually};

const ROOM: &str = "/api/v1/presence/lobby";
const JSON: (&str, &str) = ("content-type", "application/json");

on_both_backends! {
    a_member_joins_stays_changes_and_leaves,
    a_member_that_says_nothing_leaves_when_its_time_is_over,
    members_are_listed_in_pages_and_counted,
    rooms_are_listed_while_somebody_is_in_them,
    who_watches_a_room_resumes,
    a_room_is_no_bucket_of_others,
    what_is_wrong_with_a_member_is_told
}

async fn join(relay: &TestRelay, member: &str, data: &str) -> Answer {
    relay.send("PUT", &format!("{ROOM}/{member}"), &[JSON], data.as_bytes()).await
}

async fn leave(relay: &TestRelay, member: &str) -> u16 {
    relay.send("DELETE", &format!("{ROOM}/{member}"), &[], b"").await.status
}

async fn watch(relay: &TestRelay, form: Form) -> Watcher {
    Watcher::open(relay.address, ROOM, form, "").await.expect("a watch")
}

/// Returns who is there.
async fn members(relay: &TestRelay) -> Vec<String> {
    let room = relay.get(ROOM).await.json();
    let members = room["members"].as_array().unwrap_or_else(|| panic!("no members: {room}"));
    assert_eq!(room["count"], members.len(), "{room}");
    members.iter().map(|member| member["member"].as_str().expect("a name").to_owned()).collect()
}

#[track_caller]
fn told(frame: &Frame) -> (&str, &str, &Value) {
    (&frame.kind, frame.name(), &frame.data["data"])
}

async fn a_member_joins_stays_changes_and_leaves(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    assert_eq!(members(&relay).await, Vec::<String>::new(), "in a room that nobody knows there is nobody");
    let mut watchers = Vec::new();
    for form in Form::ALL {
        let mut watcher = watch(&relay, form).await;
        watcher.expect("synced").await;
        watchers.push(watcher);
    }
    let joined = join(&relay, "ann", r#"{"role": "pilot"}"#).await;
    assert_eq!(joined.status, 201, "{joined:?}");
    let ann = joined.json();
    assert_eq!((&ann["member"], &ann["data"]), (&json!("ann"), &json!({ "role": "pilot" })));
    assert!(ann["since"].is_string() && ann["expires_at"].as_str() > ann["since"].as_str(), "{ann}");
    // Who says the same again stays, and nobody is told.
    let stays = join(&relay, "ann", r#"{"role": "pilot"}"#).await;
    assert_eq!((stays.status, &stays.json()["since"]), (200, &ann["since"]));
    assert_eq!(join(&relay, "bob", "").await.status, 201);
    let changed = join(&relay, "ann", r#"{"role": "guest"}"#).await;
    assert_eq!((changed.status, &changed.json()["since"]), (200, &ann["since"]), "it is there since it came");
    assert_eq!(members(&relay).await, ["ann", "bob"]);
    assert_eq!((leave(&relay, "ann").await, leave(&relay, "ann").await), (204, 204));
    assert_eq!(leave(&relay, "nobody").await, 204);
    assert_eq!(members(&relay).await, ["bob"]);
    for mut watcher in watchers {
        let first = watcher.expect("joined").await;
        assert_eq!(told(&first), ("joined", "ann", &json!({ "role": "pilot" })));
        assert_eq!((&first.data["since"], first.id.as_deref()), (&ann["since"], Some(first.revision())));
        assert_eq!(told(&watcher.expect("joined").await), ("joined", "bob", &Value::Null));
        let changed = watcher.expect("joined").await;
        assert_eq!(told(&changed), ("joined", "ann", &json!({ "role": "guest" })));
        assert_eq!(changed.data["since"], ann["since"]);
        let left = watcher.expect("left").await;
        assert_eq!((left.name(), &left.data["reason"]), ("ann", &json!("left")));
        assert!(left.id.is_some());
    }
    let metrics = relay.get("/metrics").await;
    for line in [
        r#"tidemill_presence_joins_total{result="joined"} 2"#,
        r#"tidemill_presence_joins_total{result="stayed"} 2"#,
        "tidemill_presence_leaves_total 1",
    ] {
        assert!(metrics.text().lines().any(|of| of == line), "no {line} in {}", metrics.text());
    }
    relay.stop().await;
}

async fn a_member_that_says_nothing_leaves_when_its_time_is_over(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    let mut watcher = watch(&relay, Form::Events).await;
    watcher.expect("synced").await;
    assert_eq!(join(&relay, "ann?ttl=1", "1").await.status, 201);
    assert_eq!(join(&relay, "bob?ttl=1", "1").await.status, 201);
    for name in ["ann", "bob"] {
        assert_eq!(watcher.expect("joined").await.name(), name);
    }
    // Who says that it is there stays; the other one does not.
    let staying = always(Duration::from_millis(2_500), async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        join(&relay, "ann?ttl=1", "1").await.status == 200
    });
    let leaving = async {
        let left = watcher.expect("left").await;
        assert_eq!((left.name(), &left.data["reason"]), ("bob", &json!("expired")));
    };
    tokio::join!(staying, leaving);
    let left = watcher.expect("left").await;
    assert_eq!((left.name(), &left.data["reason"]), ("ann", &json!("expired")));
    assert_eq!(members(&relay).await, Vec::<String>::new());
    relay.stop().await;
}

async fn members_are_listed_in_pages_and_counted(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    for number in 0..25 {
        assert_eq!(join(&relay, &format!("m{number:02}"), "{}").await.status, 201);
    }
    let mut path = format!("{ROOM}?limit=10");
    let (mut pages, mut names) = (Vec::new(), Vec::new());
    loop {
        let answer = relay.get(&path).await;
        let page = answer.json();
        let of_page = page["members"].as_array().expect("members").clone();
        assert_eq!((&page["room"], &page["count"]), (&json!("lobby"), &json!(25)));
        pages.push(of_page.len());
        names.extend(of_page.iter().map(|member| member["member"].as_str().expect("a name").to_owned()));
        let Some(next) = answer.next_page() else { break };
        next.clone_into(&mut path);
    }
    assert_eq!(pages, [10, 10, 5]);
    assert_eq!(names, (0..25).map(|number| format!("m{number:02}")).collect::<Vec<_>>());
    relay.stop().await;
}

async fn who_watches_a_room_resumes(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    join(&relay, "ann", "1").await;
    join(&relay, "bob", "1").await;
    for form in Form::ALL {
        let mut watcher = watch(&relay, form).await;
        let mut view = View::default();
        watcher.up_to("synced").await.iter().for_each(|frame| view.take(frame));
        assert_eq!(view.there.keys().collect::<Vec<_>>(), ["ann", "bob"]);
        drop(watcher);
        leave(&relay, "bob").await;
        join(&relay, "cyd", "1").await;
        let place = view.id.expect("an id");
        let mut again = Watcher::resume(relay.address, ROOM, form, &place).await.expect("a watch");
        assert_eq!(again.expect("left").await.name(), "bob");
        assert_eq!(again.expect("joined").await.name(), "cyd");
        // A place that nobody gave is none.
        let place = "99999999999999-0";
        let mut lost = Watcher::resume(relay.address, ROOM, form, place).await.expect("a watch");
        lost.expect("reset").await;
        assert_eq!(lost.up_to("synced").await.len(), 3);
        leave(&relay, "cyd").await;
        join(&relay, "bob", "1").await;
    }
    relay.stop().await;
}

async fn a_room_is_no_bucket_of_others(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    join(&relay, "ann", "1").await;
    assert_eq!(relay.get("/api/v1/buckets").await.json(), json!([]));
    assert_eq!(relay.get("/api/v1/keys/lobby/ann").await.status, 404);
    relay.send("PUT", "/api/v1/keys/lobby/bob", &[JSON], b"1").await;
    assert_eq!(members(&relay).await, ["ann"]);
    relay.stop().await;
}

async fn what_is_wrong_with_a_member_is_told(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    let large = format!("\"{}\"", "x".repeat(4 * 1024));
    for (path, body, status, field) in [
        ("ann?ttl=0", "1", 400, Some("ttl")),
        ("ann?ttl=25h", "1", 400, Some("ttl")),
        ("ann?ttl=soon", "1", 400, Some("ttl")),
        ("ann?since=1", "1", 400, Some("since")),
        ("ann", "{", 400, None),
        ("ann", &*large, 413, None),
        ("a%20b", "1", 400, Some("member")),
    ] {
        let answer = join(&relay, path, body).await;
        let problem = answer.problem();
        assert_eq!(problem.status, status, "{path}: {problem:?}");
        if field.is_some() {
            assert_eq!(problem.field.as_deref(), field, "{path}: {problem:?}");
        }
    }
    for (query, field) in
        [("limit=0", "limit"), ("after=%20", "after"), ("last_event_id=x", "last_event_id"), ("x=1", "x")]
    {
        let headers: &[_] = if field == "last_event_id" { &[("accept", "text/event-stream")] } else { &[] };
        let problem = relay.send("GET", &format!("{ROOM}?{query}"), headers, b"").await.problem();
        assert_eq!((problem.status, problem.field.as_deref()), (400, Some(field)), "{query}: {problem:?}");
    }
    assert_eq!(members(&relay).await, Vec::<String>::new(), "nothing of it was kept");
    for method in ["PUT", "DELETE"] {
        let fence = [("tidemill-fence", "l=1-1")];
        let problem = relay.send(method, &format!("{ROOM}/ann"), &fence, b"").await.problem();
        assert_eq!((problem.status, problem.field.as_deref()), (400, Some("Tidemill-Fence")), "{problem:?}");
        let absent = [("if-none-match", "*")];
        let problem = relay.send(method, &format!("{ROOM}/ann"), &absent, b"").await.problem();
        assert_eq!((problem.status, problem.field.as_deref()), (400, Some("If-None-Match")), "{problem:?}");
    }
    let room = relay.get("/api/v1/presence/a%20b").await.problem();
    assert_eq!((room.status, room.field.as_deref()), (400, Some("room")), "{room:?}");
    eventually(SOON, async || join(&relay, "ann", "1").await.status == 201).await;
    relay.stop().await;
}

async fn rooms_are_listed_while_somebody_is_in_them(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    let list = async |query: &str| relay.get(&format!("/api/v1/presence{query}")).await;
    assert_eq!(list("").await.json(), json!([]));
    for place in ["lobby/ann", "lobby/bob", "lobby.2/ann", "attic/ann?ttl=1"] {
        assert_eq!(relay.send("PUT", &format!("/api/v1/presence/{place}"), &[], b"").await.status, 201);
    }
    let [attic, lobby, second] = [("attic", 1), ("lobby", 2), ("lobby.2", 1)]
        .map(|(room, count)| json!({ "room": room, "count": count }));
    assert_eq!(list("").await.json(), json!([attic, lobby, second]));
    let page = list("?limit=2").await;
    assert_eq!(page.json(), json!([attic, lobby]));
    assert_eq!(page.header("link"), Some("</api/v1/presence?limit=2&after=lobby>; rel=\"next\""));
    let page = list("?limit=2&after=lobby").await;
    assert_eq!((page.json(), page.header("link")), (json!([second]), None));
    // Who has left is nowhere.
    assert_eq!(relay.send("DELETE", "/api/v1/presence/lobby.2/ann", &[], b"").await.status, 204);
    eventually(Duration::from_secs(10), async || list("").await.json() == json!([lobby])).await;
    for (query, field) in [("?after=a/b", "after"), ("?limit=0", "limit"), ("?room=a", "room")] {
        assert_eq!(list(query).await.problem().field.as_deref(), Some(field), "{query}");
    }
    relay.stop().await;
}
