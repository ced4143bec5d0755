//! Over HTTP: what is added, read and forgotten, and what is wrong with a point.

use serde_json::{Value, json};
use tidemill::features::Feature;
use tidemill::proto::Code;
use tidemill::storage::Storage;

use crate::access::closed::{self, ROOT, token};
use crate::keys::on_both_backends;
use crate::support::relay::{Answer, TestRelay, is_wrong, memory};

async fn add(relay: &TestRelay, series: &str, body: &Value) -> Answer {
    relay.post(&format!("/api/v1/series/{series}"), &body.to_string()).await
}

async fn read(relay: &TestRelay, path: &str) -> Value {
    let answer = relay.get(&format!("/api/v1/series/{path}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Returns a time so many minutes ago, in RFC 3339, at the begin of its minute.
fn ago(storage: &Storage, minutes: u64) -> String {
    let ms = storage.upkeep.now().as_millis() / 60_000 * 60_000 - minutes * 60_000;
    tidemill::proto::Timestamp::from_millis(ms).to_string()
}

async fn points_are_added_and_read_by_the_minute(storage: Storage) {
    let relay = TestRelay::start(storage.clone()).await;
    let (older, newer) = (ago(&storage, 90), ago(&storage, 10));
    let first = add(&relay, "latency", &json!({ "value": 12.5, "at": newer })).await;
    assert_eq!(first.status, 200, "{first:?}");
    assert_eq!(first.json(), json!({ "at": newer, "count": 1, "sum": 12.5, "min": 12.5, "max": 12.5 }));
    let again = add(&relay, "latency", &json!({ "value": -2, "count": 3, "at": newer })).await.json();
    assert_eq!(again, json!({ "at": newer, "count": 4, "sum": 6.5, "min": -2, "max": 12.5 }));
    assert_eq!(add(&relay, "latency", &json!({ "value": 1e3, "at": older })).await.status, 200);
    let hour = read(&relay, "latency?last=60m").await;
    assert_eq!(
        hour,
        json!({
            "series": "latency",
            "minutes": [{ "at": newer, "count": 4, "sum": 6.5, "min": -2, "max": 12.5 }],
            "total": { "count": 4, "sum": 6.5, "min": -2, "max": 12.5 },
        })
    );
    assert_eq!(read(&relay, "latency").await, hour, "an hour, if nothing is said");
    let day = read(&relay, "latency?last=24h").await;
    assert_eq!(
        (day["minutes"][0]["at"].as_str(), day["minutes"][1]["at"].as_str()),
        (Some(&*older), Some(&*newer))
    );
    assert_eq!(day["total"], json!({ "count": 5, "sum": 1006.5, "min": -2, "max": 1000 }));
    let none = json!({ "series": "none", "minutes": [], "total": { "count": 0, "sum": 0 } });
    assert_eq!(read(&relay, "none").await, none, "a series that there is not has no minutes");
    for number in ["31.245270191439438", "121.48791951161945", "0.30000000000000004", "-1.5e-300", "1e+200"] {
        let one = relay.post("/api/v1/series/exact", format!(r#"{{"value":{number}}}"#)).await;
        let told = format!(r#""min":{number},"max":{number}"#);
        let read = relay.get("/api/v1/series/exact?last=5m").await;
        assert!(one.text().contains(&told) && read.text().contains(&told), "{number}: {one:?} {read:?}");
        assert_eq!(relay.send("DELETE", "/api/v1/series/exact", &[], b"").await.status, 204);
    }
    let now = add(&relay, "latency", &json!({ "value": 7 })).await.json();
    assert_eq!((&now["count"], &now["sum"]), (&json!(1), &json!(7)));
    assert_eq!(read(&relay, "latency?last=30").await["total"]["count"], 1);
    for _ in 0..2 {
        let gone = relay.send("DELETE", "/api/v1/series/latency", &[], b"").await;
        assert_eq!(gone.status, 204, "{gone:?}");
    }
    assert_eq!(read(&relay, "latency?last=1d").await["minutes"], json!([]));
    let metrics = relay.get("/metrics").await;
    let line = r#"tidemill_series_points_total{result="added"} 9"#;
    assert!(metrics.text().lines().any(|of| of == line), "no {line} in {}", metrics.text());
    relay.stop().await;
}

async fn of_several_points_each_is_for_itself(storage: Storage) {
    let relay = TestRelay::start(storage.clone()).await;
    let (at, long_ago) = (ago(&storage, 5), ago(&storage, 1_500));
    let points = json!({ "points": [
        { "name": "a", "value": 1, "at": at },
        { "name": "b", "value": 2, "at": at, "count": 2 },
        { "name": "a", "value": 3, "at": at },
        { "name": "no name", "value": 1 },
        { "value": 1 },
        { "name": "c" },
        { "name": "c", "value": "1" },
        { "name": "c", "value": 1, "at": long_ago },
        { "name": "a", "value": 5, "at": long_ago },
        { "name": "c", "value": 1, "counts": 1 },
        7,
    ] });
    let answer = relay.post("/api/v1/series", &points.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let results = answer.json()["results"].as_array().expect("results").clone();
    let minute = |count: u32, sum: u32, min: u32, max: u32| json!({ "at": at, "count": count, "sum": sum, "min": min, "max": max });
    assert_eq!(results[0], json!({ "name": "a", "minute": minute(1, 1, 1, 1) }));
    assert_eq!(results[1], json!({ "name": "b", "minute": minute(2, 4, 2, 2) }));
    assert_eq!(results[2], json!({ "name": "a", "minute": minute(2, 4, 1, 3) }), "in their order");
    for (place, name, field) in [
        (3, "no name", "name"),
        (4, "", "name"),
        (5, "c", "value"),
        (6, "c", "value"),
        (7, "c", "at"),
        (8, "a", "at"),
        (9, "", "counts"),
        (10, "", "points"),
    ] {
        let one = &results[place];
        assert_eq!((&one["name"], &one["error"]["field"]), (&json!(name), &json!(field)), "{one}");
        assert!(one["error"]["code"] == "invalid_field" && one.get("minute").is_none(), "{one}");
    }
    assert_eq!(results.len(), 11);
    assert_eq!(read(&relay, "c?last=24h").await["total"]["count"], 0);
    for (body, rule) in [
        (json!({ "points": [] }), "has 0 points"),
        (json!({ "points": vec![json!({}); 1_001] }), "has 1001 points"),
        (json!({ "points": {} }), "must be an array"),
        (json!({}), "is missing"),
    ] {
        is_wrong(&relay.post("/api/v1/series", &body.to_string()).await, "points", rule);
    }
    // As many as there may be: half of one series, and each of the others of its own.
    let many: Vec<_> = (0..1_000)
        .map(|number| {
            let name = if number % 2 == 0 { "many".to_owned() } else { format!("m{number}") };
            json!({ "name": name, "value": 1, "at": at })
        })
        .collect();
    let many = relay.post("/api/v1/series", &json!({ "points": many }).to_string()).await.json();
    let results = many["results"].as_array().expect("results");
    assert!(results.len() == 1_000 && results.iter().all(|one| one.get("minute").is_some()), "{many}");
    assert_eq!(results[998], json!({ "name": "many", "minute": minute(500, 500, 1, 1) }));
    relay.stop().await;
}

async fn series_are_listed_in_pages(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let names: Vec<_> = (0..250).map(|at| format!("web.{at:03}")).collect();
    let all = names.iter().map(String::as_str).chain(["a"]);
    let points: Vec<_> = all.map(|name| json!({ "name": name, "value": 1 })).collect();
    let added = relay.post("/api/v1/series", &json!({ "points": points }).to_string()).await;
    assert_eq!(added.status, 200, "{added:?}");
    let mut path = "/api/v1/series?prefix=web.&limit=100".to_owned();
    let (mut pages, mut seen) = (Vec::new(), Vec::new());
    loop {
        let page = relay.get(&path).await;
        assert_eq!(page.status, 200, "{page:?}");
        let list: Vec<Value> = serde_json::from_slice(&page.body).expect("a list");
        pages.push(list.len());
        seen.extend(list.iter().map(|one| one["series"].as_str().expect("a name").to_owned()));
        let Some(next) = page.next_page() else { break };
        next.clone_into(&mut path);
    }
    assert_eq!((pages, seen), (vec![100, 100, 50], names));
    let first = relay.get("/api/v1/series").await.json();
    assert_eq!((&first[0], first.as_array().map(Vec::len)), (&json!({ "series": "a" }), Some(100)));
    let last = relay.get("/api/v1/series?after=web.248").await;
    assert_eq!((last.json(), last.header("link")), (json!([{ "series": "web.249" }]), None));
    for (query, field) in [
        ("prefix=a*", "prefix"),
        ("prefix=.a", "prefix"),
        ("after=a/b", "after"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("pattern=a", "pattern"),
    ] {
        let problem = relay.get(&format!("/api/v1/series?{query}")).await.problem();
        assert_eq!((problem.status, problem.field.as_deref()), (400, Some(field)), "{query}: {problem:?}");
    }
    relay.stop().await;
}

async fn what_is_wrong_is_named_and_nothing_is_added(storage: Storage) {
    let relay = TestRelay::start(storage.clone()).await;
    for (body, field) in [
        (json!({}), "value"),
        (json!({ "value": null }), "value"),
        (json!({ "value": "1" }), "value"),
        (json!({ "value": [1] }), "value"),
        (json!({ "value": true }), "value"),
        (json!({ "value": 1.1e200 }), "value"),
        (json!({ "value": -1.1e200 }), "value"),
        (json!({ "value": 1, "count": 0 }), "count"),
        (json!({ "value": 1, "count": 1_000_001 }), "count"),
        (json!({ "value": 1, "count": 1.5 }), "count"),
        (json!({ "value": 1, "count": "1" }), "count"),
        (json!({ "value": 1, "at": 1 }), "at"),
        (json!({ "value": 1, "at": "soon" }), "at"),
        (json!({ "value": 1, "at": "-5m" }), "at"),
        (json!({ "value": 1, "at": "2020-01-01T00:00:00Z" }), "at"),
        (json!({ "value": 1, "at": "9999-01-01T00:00:00Z" }), "at"),
        (json!({ "value": 1, "values": 1 }), "values"),
    ] {
        is_wrong(&add(&relay, "wrong", &body).await, field, "");
    }
    let huge = relay.post("/api/v1/series/wrong", r#"{"value":1e400}"#).await.problem();
    assert_eq!((huge.status, huge.field.as_deref()), (400, Some("value")), "{huge:?}");
    let nan = relay.post("/api/v1/series/wrong", r#"{"value":NaN}"#).await.problem();
    assert_eq!((nan.status, nan.code), (400, Code::InvalidJson), "{nan:?}");
    let name = add(&relay, "a*b", &json!({ "value": 1 })).await.problem();
    assert_eq!((name.status, name.field.as_deref()), (400, Some("series")), "{name:?}");
    for last in ["soon", "0", "25h", "999ms", "-5m", ""] {
        let problem = relay.get(&format!("/api/v1/series/wrong?last={last}")).await.problem();
        assert_eq!((problem.status, problem.field.as_deref()), (400, Some("last")), "{last}: {problem:?}");
    }
    for (method, path) in [("POST", "series/wrong"), ("DELETE", "series/wrong"), ("POST", "series")] {
        let headers = [("content-type", "application/json"), ("if-none-match", "*")];
        let body = br#"{"value": 1}"#;
        let problem = relay.send(method, &format!("/api/v1/{path}"), &headers, body).await.problem();
        assert_eq!((problem.status, problem.field.as_deref()), (400, Some("If-None-Match")), "{path}");
    }
    assert_eq!(read(&relay, "wrong?last=24h").await["total"]["count"], 0, "nothing was added");
    relay.stop().await;
}

on_both_backends![
    points_are_added_and_read_by_the_minute,
    of_several_points_each_is_for_itself,
    series_are_listed_in_pages,
    what_is_wrong_is_named_and_nothing_is_added,
];

#[tokio::test]
async fn who_has_the_right_to_a_series_may_use_that_and_no_other() {
    let relay = closed::start(memory()).await;
    let (_, worker) = token(&relay, ROOT, &["allow publish series/web.*", "allow read series/*"]).await;
    let (_, reader) = token(&relay, ROOT, &["allow publish,read,manage *"]).await;
    let (_, keeper) = token(&relay, ROOT, &["allow manage series/web.*"]).await;
    let send = async |who: &str, method: &str, path: &str, body: &str| {
        let headers = [("content-type", "application/json"), ("authorization", who)];
        let headers = if body.is_empty() { &headers[1..] } else { &headers[..] };
        relay.send(method, &format!("/api/v1/series{path}"), headers, body.as_bytes()).await.status
    };
    let one = r#"{"value":1}"#;
    for (method, path, body, [of_worker, of_keeper]) in [
        ("POST", "/web.a", one, [200, 403]),
        ("POST", "/db", one, [403, 403]),
        ("GET", "/web.a", "", [200, 403]),
        ("GET", "/db", "", [200, 403]),
        ("DELETE", "/web.a", "", [403, 204]),
        ("DELETE", "/db", "", [403, 403]),
    ] {
        assert_eq!(send(&worker, method, path, body).await, of_worker, "{method} {path}");
        assert_eq!(send(&keeper, method, path, body).await, of_keeper, "{method} {path}");
        assert_eq!(send(&reader, method, path, body).await, 403, "rules of topics cover no series: {path}");
    }
    assert_eq!(relay.post("/api/v1/series/web.a", one).await.status, 401);
    let both =
        json!({ "points": [{ "name": "web.b", "value": 1 }, { "name": "db", "value": 1 }] }).to_string();
    let headers = [("content-type", "application/json"), ("authorization", &*worker)];
    let answer = relay.send("POST", "/api/v1/series", &headers, both.as_bytes()).await.json();
    assert_eq!(answer["results"][0]["minute"]["count"], 1, "{answer}");
    assert_eq!(answer["results"][1]["error"]["code"], "forbidden", "{answer}");
    assert_eq!(send(&reader, "POST", "", &both).await, 403, "there is nothing that it may");
    // Of series that it may not read nobody is told.
    assert_eq!(send(&reader, "GET", "", "").await, 403);
    assert_eq!(send(&keeper, "GET", "", "").await, 403);
    let (_, giver) = token(&relay, ROOT, &["allow publish series/*"]).await;
    for path in ["/db", "/web.c"] {
        assert_eq!(send(&giver, "POST", path, one).await, 200);
    }
    let (_, of_web) = token(&relay, ROOT, &["allow read series/web.*", "deny read series/web.b"]).await;
    for (who, listed) in [(&worker, &["db", "web.b", "web.c"][..]), (&of_web, &["web.c"])] {
        let list = relay.send("GET", "/api/v1/series", &[("authorization", who)], b"").await;
        let listed: Vec<_> = listed.iter().map(|series| json!({ "series": series })).collect();
        assert_eq!(list.json(), json!(listed), "{who}");
    }
    relay.stop().await;
}

#[tokio::test]
async fn a_relay_that_has_no_series_has_no_such_path() {
    let relay = TestRelay::without(memory(), Feature::Series).await;
    assert_eq!(add(&relay, "a", &json!({ "value": 1 })).await.status, 404);
    assert_eq!(relay.get("/api/v1/series/a").await.status, 404);
    relay.stop().await;
}
