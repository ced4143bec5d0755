//! Tokens, users and roles over HTTP; what probes are told, and where metrics are.

use serde_json::{Value, json};
use tidemill::proto::Code;
use tidemill::server::TcpListen;

use super::closed::{self, ROOT, close, send, token, user};
use crate::support::relay::{TestRelay, memory, try_send};

const NOTHING: Value = Value::Null;

#[tokio::test]
async fn a_token_is_made_shown_once_used_listed_and_revoked() {
    let relay = closed::start(memory()).await;
    let body = json!({ "name": "till-7", "rules": ["allow publish,read orders.*"], "expires_in": "1h" });
    let answer = send(&relay, Some(ROOT), "POST", "/api/v1/tokens", &body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let made = answer.json();
    assert_eq!((&made["name"], &made["rules"]), (&json!("till-7"), &json!(["allow publish,read orders.*"])));
    assert!(made["expires_at"].is_string() && made["maker"] == "user root" && made["last_used_at"].is_null());
    let (id, text) = (made["token_id"].as_str().expect("an id"), made["token"].as_str().expect("a text"));
    assert!(text.starts_with(&format!("tm_{id}_")));
    let bearer = format!("Bearer {text}");

    let publish = json!({ "topic": "orders.1", "payload": 1 });
    assert_eq!(send(&relay, Some(&bearer), "POST", "/api/v1/messages", &publish).await.status, 201);
    let elsewhere = json!({ "topic": "other", "payload": 1 });
    let refused = send(&relay, Some(&bearer), "POST", "/api/v1/messages", &elsewhere).await;
    assert_eq!(refused.problem().code, Code::Forbidden);

    let list = send(&relay, Some(ROOT), "GET", "/api/v1/tokens", &NOTHING).await.json();
    assert_eq!(list.as_array().expect("a list").len(), 1);
    assert!(list[0].get("token").is_none() && !list.to_string().contains(text), "never again");
    let used = list[0]["last_used_at"].as_str().expect("it was used");
    assert!(used.ends_with(":00.000Z"), "to the minute: {used}");
    let own = send(&relay, Some(&bearer), "GET", "/api/v1/tokens", &NOTHING).await;
    assert_eq!(own.json(), json!([]), "it has made none");

    let path = format!("/api/v1/tokens/{id}");
    assert_eq!(send(&relay, Some(ROOT), "DELETE", &path, &NOTHING).await.status, 204);
    let gone = send(&relay, Some(&bearer), "POST", "/api/v1/messages", &publish).await;
    assert_eq!(gone.problem().code, Code::Unauthenticated);
    assert!(gone.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")));
    assert_eq!(send(&relay, Some(ROOT), "DELETE", &path, &NOTHING).await.problem().code, Code::NotFound);
    relay.stop().await;
}

#[tokio::test]
async fn users_are_made_changed_and_deleted() {
    let relay = closed::start(memory()).await;
    let put = json!({ "password": "correct horse", "roles": ["write"], "email": "ann@example.com" });
    let answer = send(&relay, Some(ROOT), "PUT", "/api/v1/users/ann", &put).await;
    assert_eq!(answer.status, 201);
    let ann = answer.json();
    assert_eq!(ann["roles"], json!(["write"]));
    assert!(ann["has_password"] == true && ann["is_active"] == true && ann.get("password").is_none());
    assert!(!answer.text().contains("argon2"));
    let changed = send(&relay, Some(ROOT), "PUT", "/api/v1/users/ann", &json!({ "is_active": false })).await;
    assert_eq!((changed.status, changed.json()["email"].clone()), (200, json!("ann@example.com")));
    assert_eq!(
        send(&relay, Some(ROOT), "GET", "/api/v1/users/ann", &NOTHING).await.json()["is_active"],
        false
    );
    let names = send(&relay, Some(ROOT), "GET", "/api/v1/users", &NOTHING).await.json();
    assert_eq!((&names[0]["name"], &names[1]["name"]), (&json!("ann"), &json!("root")));

    // Who is not active does not come in; who is, does, and what is wrong about it is not told.
    let basic = user(&relay, "bob", &["read"]).await;
    assert_eq!(send(&relay, Some(&basic), "GET", "/api/v1/tokens", &NOTHING).await.status, 200);
    let (_, bearer) = token(&relay, &basic, &["allow read *"]).await;
    assert_eq!(send(&relay, Some(&bearer), "GET", "/api/v1/topics", &NOTHING).await.status, 200);
    let details: Vec<_> = {
        let mut details = Vec::new();
        // A wrong password, a user who is not there, one who is not active.
        for text in ["Ym9iOndyb25nIGhvcnNl", "bm9ib2R5OmNvcnJlY3QgaG9yc2U=", "YW5uOmNvcnJlY3QgaG9yc2U="] {
            let basic = format!("Basic {text}");
            let refused = send(&relay, Some(&basic), "GET", "/api/v1/tokens", &NOTHING).await.problem();
            assert_eq!(refused.code, Code::Unauthenticated);
            details.push(refused.detail);
        }
        details
    };
    assert!(details.iter().all(|detail| *detail == details[0]), "{details:?}");
    let elsewhere = send(&relay, Some(&basic), "GET", "/api/v1/topics", &NOTHING).await;
    assert_eq!(elsewhere.problem().code, Code::Unauthenticated, "a password is for making tokens");

    assert_eq!(send(&relay, Some(ROOT), "DELETE", "/api/v1/users/bob", &NOTHING).await.status, 204);
    assert_eq!(send(&relay, Some(&bearer), "GET", "/api/v1/topics", &NOTHING).await.status, 401);
    let last = send(&relay, Some(ROOT), "DELETE", "/api/v1/users/root", &NOTHING).await;
    assert_eq!(last.problem().code, Code::Conflict);
    let (_, admin) = token(&relay, ROOT, &["allow admin *"]).await;
    let metrics = send(&relay, Some(&admin), "GET", "/metrics", &NOTHING).await;
    assert!(metrics.text().contains(r#"route="/api/v1/users/{name}""#) && !metrics.text().contains("ann"));
    relay.stop().await;
}

#[tokio::test]
async fn roles_are_listed_and_written() {
    let relay = closed::start(memory()).await;
    let ready_made = send(&relay, Some(ROOT), "GET", "/api/v1/roles", &NOTHING).await.json();
    let names: Vec<_> =
        ready_made.as_array().expect("a list").iter().map(|role| role["role"].clone()).collect();
    assert_eq!(names, ["admin", "anonymous", "read", "write"]);
    assert_eq!(ready_made[1]["rules"], json!([]), "who does not say who they are may do nothing");
    assert_eq!(send(&relay, None, "GET", "/api/v1/topics", &NOTHING).await.status, 401);
    let rules = json!({ "rules": ["allow read public.*"] });
    let put = send(&relay, Some(ROOT), "PUT", "/api/v1/roles/anonymous", &rules).await;
    assert_eq!((put.status, put.json()["is_ready_made"].clone()), (200, json!(true)));
    assert_eq!(send(&relay, None, "GET", "/api/v1/topics", &NOTHING).await.json(), json!([]));
    assert_eq!(send(&relay, Some(ROOT), "DELETE", "/api/v1/roles/anonymous", &NOTHING).await.status, 204);
    assert_eq!(send(&relay, None, "GET", "/api/v1/topics", &NOTHING).await.status, 401);
    assert_eq!(send(&relay, Some(ROOT), "PUT", "/api/v1/roles/crew", &rules).await.status, 201);
    // A name that users still have does not come to mean something else.
    let crew = async |roles: Value| {
        send(&relay, Some(ROOT), "PUT", "/api/v1/users/cy", &json!({ "roles": roles })).await
    };
    assert_eq!(crew(json!(["crew"])).await.status, 201);
    let gone = async || send(&relay, Some(ROOT), "DELETE", "/api/v1/roles/crew", &NOTHING).await;
    let refused = gone().await.problem();
    assert_eq!(refused.code, Code::Conflict, "{refused:?}");
    assert!(refused.detail.contains("`cy`") && refused.detail.contains("`crew`"), "{refused:?}");
    assert_eq!(crew(json!([])).await.status, 200);
    assert_eq!(gone().await.status, 204);
    assert_eq!(send(&relay, Some(ROOT), "DELETE", "/api/v1/users/cy", &NOTHING).await.status, 204);
    assert_eq!(send(&relay, Some(ROOT), "PUT", "/api/v1/roles/crew", &rules).await.status, 201);
    relay.stop().await;
}

#[tokio::test]
async fn bad_input_is_named() {
    let relay = closed::start(memory()).await;
    for (method, path, body, field, rule) in [
        ("POST", "/api/v1/tokens", json!({ "rules": [] }), "name", "is missing"),
        ("POST", "/api/v1/tokens", json!({ "name": "t" }), "rules", "is missing"),
        (
            "POST",
            "/api/v1/tokens",
            json!({ "name": "t", "rules": "allow read *" }),
            "rules",
            "must be a list of strings",
        ),
        (
            "POST",
            "/api/v1/tokens",
            json!({ "name": "t", "rules": ["allow admin orders.*"] }),
            "rules",
            "at index 0 must have `*`",
        ),
        (
            "POST",
            "/api/v1/tokens",
            json!({ "name": "t", "rules": [], "expires_in": -1 }),
            "expires_in",
            "must be a whole number",
        ),
        ("POST", "/api/v1/tokens", json!({ "name": "t", "rules": [], "x": 1 }), "x", "is unknown here"),
        (
            "PUT",
            "/api/v1/users/ann",
            json!({ "roles": ["crew"] }),
            "roles",
            "names `crew`, which is no role; there are `admin`",
        ),
        ("PUT", "/api/v1/users/ann", json!({ "password": 1 }), "password", "must be a string"),
        ("PUT", "/api/v1/users/ann", json!({ "is_active": "yes" }), "is_active", "must be true or false"),
        ("PUT", "/api/v1/users/a%20b", json!({}), "name", "must be 1 to 128"),
        ("PUT", "/api/v1/roles/crew", json!({}), "rules", "is missing"),
        (
            "POST",
            "/api/v1/access/explain",
            json!({ "verb": "fly", "topic": "t" }),
            "verb",
            "must be `publish`",
        ),
        ("POST", "/api/v1/access/explain", json!({ "verb": "read" }), "topic", "is missing"),
        ("POST", "/api/v1/access/explain", json!({ "verb": "read", "topic": "a b" }), "topic", ""),
        (
            "POST",
            "/api/v1/access/explain",
            json!({ "verb": "read", "topic": "t", "principal": "x" }),
            "principal",
            "names no user",
        ),
    ] {
        let problem = send(&relay, Some(ROOT), method, path, &body).await.problem();
        assert_eq!(
            (problem.code, problem.field.as_deref()),
            (Code::InvalidField, Some(field)),
            "{problem:?}"
        );
        assert!(problem.detail.contains(rule), "{}", problem.detail);
    }
    relay.stop().await;
}

#[tokio::test]
async fn it_is_told_which_rule_decides() {
    let relay = closed::start(memory()).await;
    let put = json!({ "rules": ["allow read,manage a.*", "deny read a.secret"] });
    send(&relay, Some(ROOT), "PUT", "/api/v1/roles/crew", &put).await;
    let ann = user(&relay, "ann", &["crew"]).await;
    let (id, bearer) = token(&relay, &ann, &["allow read *"]).await;
    let ask =
        async |who: &str, body: Value| send(&relay, Some(who), "POST", "/api/v1/access/explain", &body).await;
    for (body, allowed, rule) in [
        (json!({ "verb": "read", "topic": "a.x", "principal": "ann" }), true, json!("allow read,manage a.*")),
        (
            json!({ "verb": "read", "topic": "a.secret", "principal": "ann" }),
            false,
            json!("deny read a.secret"),
        ),
        (json!({ "verb": "publish", "topic": "a.x", "principal": "ann" }), false, NOTHING),
        (
            json!({ "verb": "read", "topic": "b", "principal": id }),
            false,
            json!("allow read * (but its maker may not)"),
        ),
        (json!({ "verb": "read", "topic": "b", "principal": "anonymous" }), false, NOTHING),
        (json!({ "verb": "admin" }), true, json!("allow admin *")),
        (json!({ "verb": "admin", "principal": "ann" }), false, NOTHING),
    ] {
        let told = ask(ROOT, body.clone()).await.json();
        assert_eq!((told["allowed"] == true, &told["rule"]), (allowed, &rule), "{body}");
    }
    let own = ask(&bearer, json!({ "verb": "read", "topic": "a.x" })).await.json();
    assert_eq!(
        (own["allowed"].clone(), own["principal"].clone()),
        (json!(true), json!(format!("token {id} (\"t\")")))
    );
    let of_others = ask(&bearer, json!({ "verb": "read", "topic": "a.x", "principal": "ann" })).await;
    assert_eq!(of_others.problem().code, Code::Forbidden);
    relay.stop().await;
}

#[tokio::test]
async fn probes_answer_everybody_and_tell_administrators_more() {
    let relay = closed::start(memory()).await;
    let (_, reader) = token(&relay, ROOT, &["allow read *"]).await;
    let (_, admin) = token(&relay, ROOT, &["allow admin *"]).await;
    for (who, is_told) in [
        (None, false),
        (Some(&*reader), false),
        (Some("Bearer tm_nonsense"), false),
        (Some("nonsense"), false),
        (Some(&*admin), true),
    ] {
        let health = send(&relay, who, "GET", "/health", &NOTHING).await;
        assert_eq!((health.status, health.json()["status"].clone()), (200, json!("healthy")), "{who:?}");
        for field in ["node", "version", "uptime_seconds", "backend"] {
            assert_eq!(health.json().get(field).is_some(), is_told, "{field} to {who:?}");
        }
        assert_eq!(send(&relay, who, "GET", "/ready", &NOTHING).await.json()["ready"], true, "{who:?}");
        let metrics = send(&relay, who, "GET", "/metrics", &NOTHING).await.status;
        let expected = if is_told {
            200
        } else if who == Some(&*reader) {
            403
        } else {
            401
        };
        assert_eq!(metrics, expected, "{who:?}");
    }
    relay.stop().await;
}

#[tokio::test]
async fn metrics_can_have_an_address_of_their_own() {
    // Found out first, and free again for the relay.
    let address =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it has one");
    let relay = TestRelay::start_with(memory(), |options| {
        close(options);
        options.metrics_listen = Some(TcpListen::at(address));
    })
    .await;
    let metrics = try_send(address, "GET", "/metrics", &[], b"").await.expect("an answer");
    assert_eq!(metrics.status, 200);
    assert!(metrics.text().contains("tidemill_http_connections"));
    for path in ["/health", "/api/v1/topics", "/"] {
        assert_eq!(try_send(address, "GET", path, &[], b"").await.expect("an answer").status, 404, "{path}");
    }
    let publish =
        try_send(address, "POST", "/api/v1/messages", &[closed::JSON], br#"{"topic":"t","payload":1}"#);
    assert_eq!(publish.await.expect("an answer").status, 404);
    assert_eq!(send(&relay, None, "GET", "/metrics", &NOTHING).await.status, 401);
    relay.stop().await;
}

#[tokio::test]
async fn an_open_relay_lets_everybody_prepare_for_a_closed_one() {
    let storage = memory();
    let open = TestRelay::start(storage.clone()).await;
    let made = open.post("/api/v1/tokens", r#"{"name":"t","rules":["allow read *"]}"#).await;
    assert_eq!(made.status, 201);
    assert!(made.json()["maker"].is_null());
    let bearer = format!("Bearer {}", made.json()["token"].as_str().expect("a text"));
    let put = open.send("PUT", "/api/v1/users/ann", &[closed::JSON], br#"{"roles":["admin"]}"#).await;
    assert_eq!(put.status, 201);
    open.stop().await;
    let relay = closed::start(storage).await;
    assert_eq!(send(&relay, Some(&bearer), "GET", "/api/v1/topics", &NOTHING).await.status, 200);
    assert_eq!(
        send(&relay, Some(ROOT), "GET", "/api/v1/users", &NOTHING).await.status,
        401,
        "ann is the administrator"
    );
    relay.stop().await;
}

#[tokio::test]
async fn a_user_changes_its_own_password_and_nothing_else() {
    use base64::Engine as _;

    let relay = closed::start(memory()).await;
    let (ann, bob) = (user(&relay, "ann", &["read"]).await, user(&relay, "bob", &["read"]).await);
    let log_in = closed::log_in(&relay, "ann").await;
    let put = async |who: &str, name: &str, body: Value| {
        send(&relay, Some(who), "PUT", &format!("/api/v1/users/{name}"), &body).await.status
    };
    let new = || json!({ "password": "battery staple" });
    // A log-in may be somebody else's by now: only who shows the password changes it.
    for (who, name, body) in [
        (&log_in, "ann", new()),
        (&bob, "ann", new()),
        (&ann, "bob", new()),
        (&ann, "carl", new()),
        (&ann, "ann", json!({ "roles": ["admin"] })),
        (&ann, "ann", json!({ "password": "battery staple", "roles": ["admin"] })),
        (&ann, "ann", json!({ "password": "battery staple", "is_active": true })),
        (&ann, "ann", json!({ "email": "ann@example.com" })),
        (&ann, "ann", json!({})),
    ] {
        assert_eq!(put(who, name, body.clone()).await, 403, "{name} {body}");
    }
    assert_eq!(put(&ann, "ann", json!({ "password": "short" })).await, 400);
    let get = async |who: &str, name: &str| {
        send(&relay, Some(who), "GET", &format!("/api/v1/users/{name}"), &Value::Null).await
    };
    assert_eq!((get(&ann, "ann").await.status, get(&log_in, "ann").await.status), (200, 200));
    assert_eq!((get(&ann, "bob").await.status, get(&ann, "carl").await.status), (403, 403));
    assert_eq!(put(&ann, "ann", new()).await, 200);
    // The old one is over, and what was open by it.
    assert_eq!(put(&ann, "ann", new()).await, 401);
    assert_eq!(send(&relay, Some(&log_in), "GET", "/auth/me", &Value::Null).await.status, 401);
    let text = base64::engine::general_purpose::STANDARD.encode("ann:battery staple");
    assert_eq!(get(&format!("Basic {text}"), "ann").await.json()["roles"], json!(["read"]));
    relay.stop().await;
}
