//! What the log tells of who did what, and of who was not let in.

use serde_json::Value;

use crate::support::process::{Relay, run};
use crate::support::relay::try_send;

const ADMIN: (&str, &str) = ("TIDEMILL_ADMIN_PASSWORD", "correct horse");

/// Returns the events of the audit in a log, in their order.
fn events(log: &str) -> Vec<Value> {
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["target"] == "tidemill::audit").collect()
}

/// Returns the one event with this message.
#[track_caller]
fn one<'a>(events: &'a [Value], message: &str) -> &'a Value {
    let of_it: Vec<_> = events.iter().filter(|event| event["message"] == message).collect();
    assert_eq!(of_it.len(), 1, "{message}: {events:?}");
    of_it[0]
}

#[test]
fn log_ins_refusals_and_changes_are_told_with_who_and_from_where() {
    let variables = [ADMIN, ("TRUSTED_PROXIES", "127.0.0.1"), ("TIDEMILL_LOG_FORMAT", "json")];
    let relay = Relay::start(&variables, &[]);
    let curl = |who: &str, method: &str, path: &str, body: &str| {
        let url = format!("{}{path}", relay.url);
        let mut command = std::process::Command::new("curl");
        command.args(["-s", "-X", method, "-H", "x-forwarded-for: 192.0.2.7", "-H", "x-request-id: id-7"]);
        command.args(["-H", "content-type: application/json", "-H", &format!("authorization: {who}")]);
        if !body.is_empty() {
            command.args(["-d", body]);
        }
        let output = command.arg(url).output().expect("there is a curl");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    // `admin:correct horse`, `admin:wrong`, and a password in the place of a name.
    let admin = "Basic YWRtaW46Y29ycmVjdCBob3JzZQ==";
    curl("Basic YWRtaW46d3Jvbmc=", "GET", "/api/v1/users", "");
    curl("Basic aHVudGVyMjpodW50ZXIy", "GET", "/api/v1/users", "");
    let made = curl(admin, "POST", "/api/v1/tokens", r#"{"name":"n","rules":["allow manage a.*"]}"#);
    let made: Value = serde_json::from_str(&made).expect("a token");
    let token = format!("Bearer {}", made["token"].as_str().expect("a text"));
    curl(admin, "PUT", "/api/v1/users/ann", r#"{"password":"battery staple","roles":["read","write"]}"#);
    curl(admin, "PUT", "/api/v1/roles/crew", r#"{"rules":["allow read a","allow publish b"]}"#);
    curl(&token, "POST", "/api/v1/topics", r#"{"topic_name":"a.b"}"#);
    curl(&token, "POST", "/api/v1/topics/a.b/trim", r#"{"keep":0}"#);
    curl(&token, "DELETE", "/api/v1/topics/a.b", "");
    curl(&token, "DELETE", "/api/v1/topics/b", "");
    curl("Bearer tm_nonsense", "GET", "/api/v1/topics?secret=hunter3", "");
    curl(admin, "DELETE", "/api/v1/users/ann", "");
    let (code, log) = relay.stop();
    assert_eq!(code, Some(0));

    let events = events(&log);
    let first = one(&events, "first administrator made");
    assert_eq!((&first["user"], &first["by"]), (&"admin".into(), &"the settings".into()));
    for event in events.iter().filter(|event| event["message"] != "first administrator made") {
        assert_eq!(
            (&event["address"], &event["request_id"]),
            (&"192.0.2.7".into(), &"id-7".into()),
            "{event}"
        );
    }
    let refused: Vec<_> = events.iter().filter(|event| event["message"] == "log-in refused").collect();
    assert_eq!(refused.len(), 2, "{events:?}");
    assert_eq!((&refused[0]["user"], &refused[0]["code"]), (&"admin".into(), &"unauthenticated".into()));
    assert!(refused[1].get("user").is_none_or(Value::is_null), "it may be a password: {}", refused[1]);
    assert!(events.iter().any(|event| event["message"] == "logged in" && event["by"] == "user \"admin\""));
    for (message, field, value) in [
        ("token made", "name", "n"),
        ("token made", "rules", "allow manage a.*"),
        ("user written", "user", "ann"),
        ("user written", "roles", "read, write"),
        ("role written", "rules", "allow read a; allow publish b"),
        ("user deleted", "user", "ann"),
        ("role written", "role", "crew"),
    ] {
        let event = one(&events, message);
        assert_eq!((&event[field], &event["by"]), (&value.into(), &"user \"admin\"".into()), "{event}");
    }
    let changes: Vec<_> = events.iter().filter(|event| event["message"] == "topic changed").collect();
    assert_eq!(
        changes.iter().map(|event| &event["change"]).collect::<Vec<_>>(),
        ["made", "trimmed", "deleted"]
    );
    let by = format!("token {} (\"n\")", made["token_id"].as_str().expect("a text"));
    assert!(changes.iter().all(|event| event["topic"] == "a.b" && event["by"] == *by), "{changes:?}");
    let forbidden = events.iter().find(|event| event["code"] == "forbidden").expect("it is told");
    assert_eq!(
        (&forbidden["message"], &forbidden["by"], &forbidden["method"], &forbidden["path"]),
        (&"refused".into(), &by.into(), &"DELETE".into(), &"/api/v1/topics/b".into())
    );
    assert!(events.iter().any(|event| event["message"] == "refused" && event["code"] == "unauthenticated"));
    for secret in [
        "hunter2",
        "hunter3",
        "correct horse",
        "battery",
        "nonsense",
        made["token"].as_str().expect("a text"),
    ] {
        assert!(!log.contains(secret), "{secret} is told");
    }
}

#[test]
fn many_refusals_fill_no_log_and_are_counted() {
    let relay = Relay::start(
        &[ADMIN, ("TIDEMILL_LOG_FORMAT", "json"), ("TIDEMILL_LIMIT_ANONYMOUS_REQUESTS", "0")],
        &[],
    );
    let address = relay.url.trim_start_matches("http://").parse().expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let begin = tokio::time::Instant::now();
    runtime.block_on(async {
        for _ in 0..500 {
            let answer = try_send(address, "GET", "/api/v1/topics", &[], b"").await.expect("an answer");
            assert_eq!(answer.status, 401);
        }
    });
    let seconds = usize::try_from(begin.elapsed().as_secs()).expect("few");
    let made = run(
        &[("TIDEMILL_URL", &relay.url)],
        &["token", "new", "ops", "--rule", "allow admin *", "--user", "admin", "-o", "json"],
        "correct horse\n",
    );
    let token: Value = serde_json::from_str(made.lines()[0]).expect("a token");
    let bearer = format!("Bearer {}", token["token"].as_str().expect("a text"));
    let answer = runtime.block_on(async {
        let headers = [("authorization", &*bearer)];
        try_send(address, "GET", "/metrics", &headers, b"").await.expect("an answer")
    });
    for line in [
        "tidemill_auth_refused_total{code=\"unauthenticated\"} 500",
        "tidemill_auth_log_ins_total{outcome=\"accepted\"} 1",
        "tidemill_auth_log_ins_total{outcome=\"refused\"} 0",
    ] {
        assert!(answer.text().lines().any(|told| told == line), "{line} in {}", answer.text());
    }
    let (_, log) = relay.stop();
    let events = events(&log);
    let refused: Vec<_> = events.iter().filter(|event| event["message"] == "refused").collect();
    assert!((1..=2 + seconds).contains(&refused.len()), "{} lines in {seconds} s", refused.len());
}
