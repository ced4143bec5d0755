//! What a closed relay answers who does not say who calls: what is listed here, and nothing else. A path that is new
//! fails these tests until it has its line.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::closed::{self, ROOT, send, token, user};
use crate::support::relay::{Answer, TestRelay, memory};

/// The operations that are for everybody.
const FOR_EVERYBODY: [(&str, &str); 10] = [
    ("get", "/health"),
    ("get", "/ready"),
    ("get", "/openapi.json"),
    ("post", "/auth/login"),
    ("post", "/auth/cookie"),
    ("post", "/auth/token/refresh"),
    ("post", "/auth/token/revoke"),
    ("post", "/auth/device/code"),
    ("post", "/auth/device/token"),
    ("get", "/auth/oidc/providers"),
];

/// The paths that stand in no document: with what they answer who says nothing.
const UNDESCRIBED: [(&str, &str, u16); 15] = [
    ("GET", "/", 200),
    ("GET", "/docs/", 200),
    ("GET", "/problems", 200),
    ("GET", "/asyncapi.json", 200),
    ("GET", "/auth/device", 200),
    ("GET", "/console", 308),
    ("GET", "/console/", 200),
    ("GET", "/console/{file}", 200),
    // Pages of log-ins, about a provider that there is not.
    ("GET", "/auth/oidc/{provider}/login", 404),
    ("GET", "/auth/oidc/{provider}/callback", 400),
    ("GET", "/ws", 401),
    ("PUT", "/api/v1/topics/stats", 401),
    ("DELETE", "/api/v1/topics/stats", 401),
    ("PATCH", "/auth/users/stats", 401),
    ("DELETE", "/auth/users/stats", 401),
];

/// What others serve at such paths, and this relay does not.
const ELSEWHERE: [&str; 22] = [
    "/admin",
    "/debug",
    "/debug/pprof",
    "/debug/vars",
    "/metrics/",
    "/Metrics",
    "/api",
    "/api/v1",
    "/api/v1/",
    "/api/v1/admin",
    "/api/v1/config",
    "/api/v1/nodes",
    "/config",
    "/env",
    "/.env",
    "/.git/config",
    "/actuator",
    "/server-status",
    "/status",
    "/trace",
    "/health/",
    "/%2e%2e/metrics",
];

/// Names that nobody may learn here.
const NAMES: [&str; 5] = ["payroll-7q", "walter-7q", "crew-7q", "till-7q", "secret-payload-7q"];

/// Returns a relay that has something to hide.
async fn relay() -> TestRelay {
    let relay = closed::start(memory()).await;
    user(&relay, "walter-7q", &["read"]).await;
    let put = async |path: &str, body: Value| {
        assert!(send(&relay, Some(ROOT), "PUT", path, &body).await.status < 300, "{path}");
    };
    put("/api/v1/roles/crew-7q", json!({ "rules": ["allow read payroll-7q"] })).await;
    let body = json!({ "name": "till-7q", "rules": ["allow publish,read *"] });
    let made = send(&relay, Some(ROOT), "POST", "/api/v1/tokens", &body).await.json();
    let who = format!("Bearer {}", made["token"].as_str().expect("a text"));
    let body = json!({ "topic": "payroll-7q", "payload": "secret-payload-7q" });
    assert_eq!(send(&relay, Some(&who), "POST", "/api/v1/messages", &body).await.status, 201);
    relay
}

/// Checks that an answer tells none of the names but those that were asked for.
#[track_caller]
fn tells_nothing(answer: &Answer, asked: &str, shown: &str) {
    let told = format!("{:?}{}", answer.headers, String::from_utf8_lossy(&answer.body));
    for name in NAMES.iter().filter(|name| !asked.contains(**name)) {
        assert!(!told.contains(name), "{shown} tells of `{name}`: {told}");
    }
}

/// Returns a path that leads to what is hidden.
fn target(path: &str) -> String {
    let target = path.replace("{topic}", "payroll-7q").replace("{message_id}", "1-1");
    let target =
        target.replace("{name}", "walter-7q").replace("{user_id}", "walter-7q").replace("{role}", "crew-7q");
    let target = target.replace("{token_id}", "0123456789abcdef").replace("{provider}", "one");
    let target = target.replace("{group}", "crew-7q").replace("{schedule_id}", "1-1");
    let target =
        target.replace("{bucket}", "ledger-7q").replace("{key}", "walter-7q").replace("{lock}", "crew-7q");
    let target = target.replace("{lease}", &"0".repeat(32)).replace("{series}", "crew-7q");
    let target = target.replace("{session}", "0123456789abcdef-1").replace("{file}", "app.js");
    let target = target.replace("{room}", "crew-7q").replace("{member}", "walter-7q");
    if path == "/api/v1/stream" { format!("{target}?topics=payroll-7q") } else { target }
}

/// Returns a body that would do something: the one that the document has.
fn example(operation: &Value) -> (String, String) {
    let Some((kind, content)) =
        operation["requestBody"]["content"].as_object().and_then(|all| all.iter().next())
    else {
        return (String::new(), String::new());
    };
    let form = |example: &Value| {
        let fields = example.as_object().into_iter().flatten();
        let fields = fields.map(|(name, value)| {
            (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        });
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
    };
    let body = match &content["example"] {
        Value::String(text) => text.clone(),
        example if kind == "application/x-www-form-urlencoded" => form(example),
        example => example.to_string(),
    };
    (kind.clone(), body)
}

#[tokio::test]
async fn of_what_is_described_only_what_is_for_everybody_answers() {
    let relay = relay().await;
    let document = relay.get("/openapi.json").await.json();
    let mut answering = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let (kind, body) = example(operation);
            let headers = if kind.is_empty() { vec![] } else { vec![("content-type", &*kind)] };
            let answer = relay.send(&method.to_uppercase(), &target(path), &headers, body.as_bytes()).await;
            let shown = format!("{method} {path}");
            tells_nothing(&answer, &target(path), &shown);
            if FOR_EVERYBODY.contains(&(method, path)) {
                assert_eq!(operation["x-permission"], "nothing", "{shown}");
                answering.insert((method.clone(), path.clone()));
                continue;
            }
            assert_ne!(operation["x-permission"], "nothing", "{shown} is for everybody, and not on the list");
            assert_eq!(answer.status, 401, "{shown}: {answer:?}");
            assert_eq!(answer.problem().code.as_str(), "unauthenticated");
            assert!(answer.header("www-authenticate").is_some(), "{shown}");
        }
    }
    for (method, path) in FOR_EVERYBODY {
        assert!(answering.contains(&((*method).to_owned(), (*path).to_owned())), "{method} {path} is gone");
    }
    relay.stop().await;
}

/// Returns the paths that sources give to a router without describing them.
fn routed() -> BTreeSet<String> {
    fn walk(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("it is text");
                for call in [".route(\"", ".undescribed(\"", ".route_service(\"", ".nest(\""] {
                    let paths = text.split(call).skip(1).filter_map(|rest| rest.split('"').next());
                    found.extend(paths.map(str::to_owned));
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    // It is named by a constant.
    found.insert("/ws".to_owned());
    found
}

#[tokio::test]
async fn what_is_not_described_answers_as_it_is_listed() {
    let relay = relay().await;
    let listed: BTreeSet<_> = UNDESCRIBED.iter().map(|(_, path, _)| *path).collect();
    // The metrics have a path of their own at an address of their own, too; the documents come as a whole.
    for path in routed().iter().filter(|path| !["/metrics", "/docs/"].contains(&&***path)) {
        assert!(listed.contains(path.as_str()), "{path} is served, and not on the list");
    }
    let upgrade = [
        ("upgrade", "websocket"),
        ("connection", "upgrade, close"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for (method, path, expected) in UNDESCRIBED {
        let mut headers = vec![];
        if path == "/ws" {
            headers.extend(upgrade);
        }
        if matches!(method, "PUT" | "PATCH") {
            headers.push(closed::JSON);
        }
        let answer = relay.send(method, &target(path), &headers, b"").await;
        tells_nothing(&answer, &target(path), path);
        assert_eq!(answer.status, expected, "{method} {path}: {answer:?}");
    }
    for path in ELSEWHERE {
        let answer = relay.get(path).await;
        tells_nothing(&answer, path, path);
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
    }
    relay.stop().await;
}

/// Returns the series that the metrics have: their names and labels.
async fn series(relay: &TestRelay) -> BTreeSet<String> {
    let (_, admin) = token(relay, ROOT, &["allow admin *"]).await;
    let metrics = send(relay, Some(&admin), "GET", "/metrics", &Value::Null).await;
    let lines = metrics.text().lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
}

#[tokio::test]
async fn what_strangers_ask_for_makes_no_metric() {
    let relay = relay().await;
    let flood = async |round: u32| {
        for at in 0..40 {
            let name = format!("flood-{round}-{at}");
            for (method, path) in [
                ("GET", format!("/{name}")),
                ("GET", format!("/api/v1/topics/{name}/messages")),
                ("GET", format!("/api/v1/topics/{name}?{name}=1")),
                ("POST", format!("/api/v1/topics/{name}/messages")),
                ("GET", format!("/api/v1/users/{name}")),
                ("GET", format!("/auth/oidc/{name}/login")),
                (&*format!("FLOOD{round}X{at}"), "/api/v1/topics".to_owned()),
                ("DELETE", format!("/api/v1/tokens/{name}")),
            ] {
                let agent = [
                    ("user-agent", &*name),
                    ("authorization", &*name),
                    ("x-request-id", &*name),
                    ("origin", &*name),
                ];
                let headers = if method == "GET" { &agent[..] } else { &agent[..3] };
                let answer = relay.send(method, &path, headers, b"").await;
                assert!((400..500).contains(&answer.status), "{method} {path}: {answer:?}");
            }
        }
        series(&relay).await
    };
    // It has been asked for once, and so is counted.
    series(&relay).await;
    let first = flood(1).await;
    let second = flood(2).await;
    let new: Vec<_> = second.difference(&first).collect();
    assert!(new.is_empty(), "{new:?}");
    let told: Vec<_> = second.iter().filter(|name| name.to_lowercase().contains("flood")).collect();
    assert!(told.is_empty(), "{told:?}");
    for name in NAMES {
        assert!(!second.iter().any(|series| series.contains(name)), "{name}");
    }
    relay.stop().await;
}
