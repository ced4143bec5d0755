//! Log-ins: what a user's name and password give, for how long, and what ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tidemill::access::{NewToken, TokenId, TokenKind};
use tidemill::proto::Code;
use tidemill::storage::{
    AccessDocuments, AccessEdit, AccessStore, NewTicket, RecordChanges, RecordEdit, RecordStore, Storage,
    StorageError, TicketClaim,
};
use tokio::time::{interval, timeout};

use super::closed::{self, ROOT, send, token, user};
use crate::support::eventually;
use crate::support::relay::{Answer, TestRelay, memory};
use crate::support::ws::{Got, WsClient};

const NOTHING: Value = Value::Null;
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
/// How long a node lets in who was sent away by another.
const GONE_WITHIN: Duration = Duration::from_secs(1);
/// How long a session of who may not go on goes on at most.
const ENDED_WITHIN: Duration = Duration::from_secs(5);

/// The tokens of a log-in.
struct Tokens {
    bearer: String,
    refresh: String,
}

impl Tokens {
    fn of(answer: &Answer) -> Self {
        assert_eq!(answer.status, 200, "{answer:?}");
        let body = answer.json();
        let text = |field: &str| body[field].as_str().expect("a text").to_owned();
        Self { bearer: format!("Bearer {}", text("access_token")), refresh: text("refresh_token") }
    }
}

async fn log_in(relay: &TestRelay, form: &str) -> Answer {
    relay.send("POST", "/auth/login", &[FORM], form.as_bytes()).await
}

/// Logs `ann` in, who is made by [`user`].
async fn ann(relay: &TestRelay) -> Tokens {
    let answer = log_in(relay, "username=ann&password=correct+horse&grant_type=password").await;
    Tokens::of(&answer)
}

async fn refresh(relay: &TestRelay, refresh: &str) -> Answer {
    let body = json!({ "refresh_token": refresh });
    send(relay, None, "POST", "/auth/token/refresh", &body).await
}

async fn me(relay: &TestRelay, bearer: &str) -> Answer {
    send(relay, Some(bearer), "GET", "/auth/me", &NOTHING).await
}

fn names(value: &Value) -> Vec<&str> {
    let mut names: Vec<_> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn a_user_logs_in_and_owns_the_topics_that_it_makes() {
    let relay = closed::start(memory()).await;
    user(&relay, "ann", &["write"]).await;
    let answer = log_in(&relay, "username=ann&password=correct%20horse").await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let body = answer.json();
    assert_eq!(names(&body), ["access_token", "expires_in", "refresh_token", "token_type"]);
    assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("bearer"), &json!(600)));
    let Tokens { bearer, .. } = Tokens::of(&answer);

    let publish = json!({ "topic": "jobs", "payload": { "id": 1 } });
    assert_eq!(send(&relay, Some(&bearer), "POST", "/api/v1/messages", &publish).await.status, 201);
    let topic = send(&relay, Some(&bearer), "GET", "/api/v1/topics/jobs", &NOTHING).await.json();
    assert_eq!(topic["owner_id"], "ann");
    let body = me(&relay, &bearer).await.json();
    let fields = ["created_at", "email", "is_active", "owned_topics", "permissions", "user_id", "username"];
    assert_eq!(names(&body), fields);
    assert_eq!((&body["user_id"], &body["username"]), (&json!("ann"), &json!("ann")));
    assert_eq!((&body["permissions"], &body["owned_topics"]), (&json!(["read", "write"]), &json!(["jobs"])));
    assert!(body["is_active"] == true && body["email"].is_null() && body["created_at"].is_string());
    // No rule lets it, but the topic is its own.
    assert_eq!(send(&relay, Some(&bearer), "DELETE", "/api/v1/topics/jobs", &NOTHING).await.status, 204);
    assert_eq!(me(&relay, &bearer).await.json()["owned_topics"], json!([]));
    let forbidden = send(&relay, Some(&bearer), "GET", "/api/v1/users", &NOTHING).await;
    assert_eq!(forbidden.problem().code, Code::Forbidden);

    // As clients of pulsar-relay open a WebSocket.
    let offered = format!("bearer, bearer.{}", bearer.trim_start_matches("Bearer "));
    let headers = [("sec-websocket-protocol", &*offered)];
    let mut socket = WsClient::connect_with(relay.address, &headers).await.expect("it upgrades");
    assert_eq!(socket.protocol.as_deref(), Some("bearer"));
    let subscribe = json!({ "type": "subscribe", "topics": ["jobs"], "client_id": "c", "offset": "last" });
    socket.ask(subscribe.to_string(), "subscribed").await;
    socket.close().await;

    // Who is no user is told who it is, too.
    let (id, other) = token(&relay, ROOT, &["allow read *"]).await;
    let body = me(&relay, &other).await.json();
    assert_eq!((&body["user_id"], &body["permissions"]), (&json!(id), &json!(["read"])));
    assert_eq!(send(&relay, None, "GET", "/auth/me", &NOTHING).await.status, 401);
    relay.stop().await;
}

#[tokio::test]
async fn who_is_wrong_is_not_told_what_is() {
    let relay = closed::start(memory()).await;
    user(&relay, "ann", &["write"]).await;
    user(&relay, "idle", &["write"]).await;
    let idle = json!({ "is_active": false });
    assert_eq!(send(&relay, Some(ROOT), "PUT", "/api/v1/users/idle", &idle).await.status, 200);
    let long = format!("username={}&password=correct+horse", "a".repeat(20_000));
    let mut details = Vec::new();
    for form in [
        "username=ann&password=wrong+horse",
        "username=nobody&password=correct+horse",
        "username=idle&password=correct+horse",
        "username=ann&password=",
        "username=&password=",
        "username=ann%00&password=correct+horse",
        &long,
    ] {
        let answer = log_in(&relay, form).await;
        assert_eq!(answer.status, 401, "{form}");
        assert!(answer.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")));
        details.push(answer.json()["detail"].as_str().expect("a sentence").to_owned());
    }
    assert!(details.iter().all(|detail| *detail == details[0]), "{details:?}");

    for (form, field) in [
        ("password=correct+horse", "username"),
        ("username=ann", "password"),
        ("username=ann&password=a&password=b", "password"),
        ("username=ann&password=correct+horse&grant_type=client_credentials", "grant_type"),
        ("username=ann&password=correct+horse&usrname=a", "usrname"),
    ] {
        let problem = log_in(&relay, form).await.problem();
        assert_eq!((problem.code, problem.field.as_deref()), (Code::InvalidField, Some(field)), "{form}");
    }
    let json = send(&relay, None, "POST", "/auth/login", &json!({ "username": "ann" })).await;
    assert_eq!(json.problem().code, Code::UnsupportedMediaType);
    let query = relay.send("POST", "/auth/login?username=ann", &[FORM], b"username=ann&password=p").await;
    assert_eq!(query.problem().code, Code::InvalidField, "nothing of it stands in a URL");
    relay.stop().await;
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_a_second_use_ends_the_log_in() {
    let relay = closed::start(memory()).await;
    user(&relay, "ann", &["read"]).await;
    let first = ann(&relay).await;
    let beside = ann(&relay).await;
    let second = Tokens::of(&refresh(&relay, &first.refresh).await);
    assert!(second.refresh != first.refresh && second.bearer != first.bearer);
    for bearer in [&first.bearer, &second.bearer] {
        assert_eq!(me(&relay, bearer).await.status, 200, "an access token is good until it expires");
    }
    let mut last = Tokens::of(&refresh(&relay, &second.refresh).await);
    for _ in 0..4 {
        last = Tokens::of(&refresh(&relay, &last.refresh).await);
    }
    assert_eq!(me(&relay, &first.bearer).await.status, 401, "the oldest of several gives way");

    // One that somebody makes up who knows the id alone ends nothing.
    let id = TokenId::parse(&last.refresh[3..19]).expect("an id");
    let made_up = NewToken::with_id(TokenKind::Refresh, id);
    assert_eq!(refresh(&relay, made_up.text.expose_secret()).await.problem().code, Code::Unauthenticated);
    let revoke = json!({ "refresh_token": made_up.text.expose_secret(), "revoke_chain": true });
    assert_eq!(send(&relay, None, "POST", "/auth/token/revoke", &revoke).await.status, 204);
    assert_eq!(me(&relay, &last.bearer).await.status, 200);

    let mut socket = WsClient::connect_with(relay.address, &[("authorization", &*last.bearer)])
        .await
        .expect("it upgrades");
    socket.subscribe("t", "latest").await;
    let reused = refresh(&relay, &second.refresh).await;
    assert_eq!(reused.problem().code, Code::Unauthenticated);
    assert!(reused.json()["detail"].is_string() && reused.header("www-authenticate").is_some());
    assert_eq!(refresh(&relay, &last.refresh).await.status, 401, "the newest one, too");
    assert_eq!(me(&relay, &last.bearer).await.status, 401, "and what it has given");
    let ended = async { (socket.got().await, socket.got().await) };
    assert_eq!(timeout(ENDED_WITHIN, ended).await.expect("in time"), (Got::End, Got::Close(4401)));
    assert_eq!(me(&relay, &beside.bearer).await.status, 200, "another log-in of the user goes on");

    for text in ["", "tr_", "ann", &last.refresh[..60], &beside.bearer[7..]] {
        assert_eq!(refresh(&relay, text).await.problem().code, Code::Unauthenticated, "{text}");
        let revoke = json!({ "refresh_token": text });
        let revoked = send(&relay, None, "POST", "/auth/token/revoke", &revoke).await;
        assert_eq!(revoked.problem().code, Code::InvalidField, "{text}");
    }
    assert_eq!(me(&relay, &format!("Bearer {}", beside.refresh)).await.status, 401, "it lets nobody in");
    relay.stop().await;
}

/// Checks that what is open by a log-in ends, and that it lets nobody in any more, unless `goes_on`.
async fn ends(relay: &TestRelay, tokens: &Tokens, goes_on: bool, take_away: impl Future<Output = ()>) {
    let headers = [("authorization", &*tokens.bearer)];
    let mut socket = WsClient::connect_with(relay.address, &headers).await.expect("it upgrades");
    socket.subscribe("t", "latest").await;
    take_away.await;
    let ended = async { (socket.got().await, socket.got().await) };
    assert_eq!(timeout(ENDED_WITHIN, ended).await.expect("in time"), (Got::End, Got::Close(4401)));
    let expected = if goes_on { 200 } else { 401 };
    assert_eq!(me(relay, &tokens.bearer).await.status, expected);
    assert_eq!(refresh(relay, &tokens.refresh).await.status, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_open_by_a_log_in_ends_with_it() {
    let running = closed::start(memory()).await;
    let relay = &running;
    user(relay, "ann", &["read"]).await;
    let put = async |body: Value| {
        assert_eq!(send(relay, Some(ROOT), "PUT", "/api/v1/users/ann", &body).await.status, 200);
    };
    let tokens = ann(relay).await;
    ends(relay, &tokens, false, async {
        let out = send(relay, Some(&tokens.bearer), "POST", "/auth/logout", &NOTHING).await;
        assert_eq!((out.status, out.body.len()), (204, 0));
    })
    .await;
    let tokens = ann(relay).await;
    ends(relay, &tokens, false, async {
        let body = json!({ "refresh_token": tokens.refresh });
        assert_eq!(send(relay, None, "POST", "/auth/token/revoke", &body).await.status, 204);
    })
    .await;
    ends(relay, &ann(relay).await, false, put(json!({ "password": "correct horse" }))).await;
    ends(relay, &ann(relay).await, false, put(json!({ "is_active": false }))).await;
    put(json!({ "is_active": true })).await;
    ends(relay, &ann(relay).await, true, put(json!({ "roles": ["write"] }))).await;
    ends(relay, &ann(relay).await, false, async {
        assert_eq!(send(relay, Some(ROOT), "DELETE", "/api/v1/users/ann", &NOTHING).await.status, 204);
    })
    .await;

    // Who came by no log-in has none that could end.
    let (_, other) = token(relay, ROOT, &["allow read *"]).await;
    assert_eq!(send(relay, Some(&other), "POST", "/auth/logout", &NOTHING).await.status, 204);
    assert_eq!(me(relay, &other).await.status, 200);
    assert_eq!(send(relay, None, "POST", "/auth/logout", &NOTHING).await.status, 401);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_open_goes_on_for_as_long_as_the_log_in_is_prolonged() {
    let relay = TestRelay::start_with(memory(), |options| {
        closed::close(options);
        options.access.log_ins.access = Duration::from_secs(2);
    })
    .await;
    user(&relay, "ann", &["read"]).await;
    let mut tokens = ann(&relay).await;
    let first = tokens.bearer.clone();
    let headers = [("authorization", &*first)];
    let mut socket = WsClient::connect_with(relay.address, &headers).await.expect("it upgrades");
    socket.subscribe("t", "latest").await;
    let mut every = interval(Duration::from_millis(700));
    let prolonged = async {
        while me(&relay, &first).await.status == 200 {
            tokens = Tokens::of(&refresh(&relay, &tokens.refresh).await);
            every.tick().await;
        }
    };
    timeout(ENDED_WITHIN, prolonged).await.expect("an access token expires");
    assert_eq!(relay.sessions.count(), 1, "the socket was opened with the first, and goes on");
    let ended = async { (socket.got().await, socket.got().await) };
    assert_eq!(timeout(ENDED_WITHIN, ended).await.expect("in time"), (Got::End, Got::Close(4401)));
    assert_eq!(me(&relay, &tokens.bearer).await.problem().code, Code::Unauthenticated);
    assert_eq!(refresh(&relay, &tokens.refresh).await.status, 200, "it can still be prolonged");
    relay.stop().await;
}

async fn nodes_agree(storage: Storage) {
    let relays = [closed::start(storage.clone()).await, closed::start(storage).await];
    let [one, other] = &relays;
    user(one, "ann", &["read"]).await;
    eventually(GONE_WITHIN, async || {
        log_in(other, "username=ann&password=correct+horse").await.status == 200
    })
    .await;
    // Whoever is answered by one is let in by the other at once.
    for _ in 0..4 {
        let tokens = ann(one).await;
        assert_eq!(me(other, &tokens.bearer).await.status, 200);
        let next = Tokens::of(&refresh(other, &tokens.refresh).await);
        assert_eq!(me(one, &next.bearer).await.status, 200);
        assert_eq!(refresh(one, &tokens.refresh).await.status, 401, "used on the other node");
        eventually(GONE_WITHIN, async || me(other, &next.bearer).await.status == 401).await;
    }
    // Of several who show one token at once, at most one gets the next, and nobody keeps it.
    let tokens = ann(one).await;
    let shown = (0..8).map(|at| refresh(&relays[at % 2], &tokens.refresh));
    let answers = futures_util::future::join_all(shown).await;
    let good: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
    assert!(
        good.len() <= 1 && answers.iter().all(|answer| matches!(answer.status, 200 | 401)),
        "{answers:?}"
    );
    for answer in good {
        assert_eq!(refresh(one, &Tokens::of(answer).refresh).await.status, 401);
    }
    for relay in relays {
        relay.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_on_one_memory_agree_on_log_ins() {
    nodes_agree(memory()).await;
}

#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_on_one_server_agree_on_log_ins() {
    use crate::support::ground::Ground;
    use crate::support::server::Kind;

    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    nodes_agree(ground.storage.clone()).await;
}

#[tokio::test]
async fn an_open_relay_lets_clients_log_in_that_know_no_other_way() {
    let relay = TestRelay::start(memory()).await;
    let tokens = Tokens::of(&log_in(&relay, "username=who&password=ever").await);
    assert_eq!(refresh(&relay, "whatever").await.status, 200);
    assert_eq!(me(&relay, &tokens.bearer).await.json()["username"], "anyone");
    let publish = json!({ "topic": "t", "payload": 1 });
    assert_eq!(send(&relay, Some(&tokens.bearer), "POST", "/api/v1/messages", &publish).await.status, 201);
    assert_eq!(send(&relay, Some(&tokens.bearer), "POST", "/auth/logout", &NOTHING).await.status, 204);
    relay.stop().await;
}

/// A storage that counts what it tells of who is let in.
#[derive(Debug)]
struct Counting {
    access: Arc<dyn AccessStore>,
    records: Arc<dyn RecordStore>,
    documents_told: AtomicUsize,
    records_told: AtomicUsize,
}

#[async_trait]
impl AccessStore for Counting {
    async fn documents(&self, known: Option<u64>) -> Result<Option<AccessDocuments>, StorageError> {
        let told = self.access.documents(known).await?;
        let count = told.as_ref().map_or(0, |told| told.documents.len());
        self.documents_told.fetch_add(count, Ordering::SeqCst);
        Ok(told)
    }

    async fn change_documents(
        &self,
        known: u64,
        next: u64,
        edits: Vec<AccessEdit>,
    ) -> Result<bool, StorageError> {
        self.access.change_documents(known, next, edits).await
    }

    async fn put_ticket(&self, ticket: NewTicket) -> Result<bool, StorageError> {
        self.access.put_ticket(ticket).await
    }

    async fn claim_ticket(&self, claim: &TicketClaim) -> Result<Option<Bytes>, StorageError> {
        self.access.claim_ticket(claim).await
    }

    async fn ticket_holders(&self, ids: &[Box<str>]) -> Result<Vec<Option<u64>>, StorageError> {
        self.access.ticket_holders(ids).await
    }
}

#[async_trait]
impl RecordStore for Counting {
    async fn records(&self, known: Option<u64>) -> Result<Option<RecordChanges>, StorageError> {
        let told = self.records.records(known).await?;
        let count = told.as_ref().map_or(0, |told| told.records.len());
        self.records_told.fetch_add(count, Ordering::SeqCst);
        Ok(told)
    }

    async fn change_records(&self, next: u64, edits: Vec<RecordEdit>) -> Result<bool, StorageError> {
        self.records.change_records(next, edits).await
    }
}

/// Whoever logs in, and goes on, costs each node what it has changed, and not all that there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_log_ins_makes_no_node_read_everything() {
    const LOG_INS: usize = 20;
    const ROUNDS: usize = 10;
    let storage = memory();
    let counting = Arc::new(Counting {
        access: storage.access.clone(),
        records: storage.records.clone(),
        documents_told: AtomicUsize::new(0),
        records_told: AtomicUsize::new(0),
    });
    let storage = Storage { access: counting.clone(), records: counting.clone(), ..storage };
    let relays = [closed::start(storage.clone()).await, closed::start(storage).await];
    user(&relays[0], "ann", &["read"]).await;
    let mut tokens = Vec::new();
    for at in 0..LOG_INS {
        tokens.push(ann(&relays[at % 2]).await);
    }
    // So that both know of all that is there.
    for relay in &relays {
        assert_eq!(me(relay, &tokens[LOG_INS - 1].bearer).await.status, 200);
    }
    counting.documents_told.store(0, Ordering::SeqCst);
    counting.records_told.store(0, Ordering::SeqCst);
    for round in 0..ROUNDS {
        let asked = tokens.iter().enumerate();
        let asked = asked.map(|(at, its)| refresh(&relays[(at + round) % 2], &its.refresh));
        let answers = futures_util::future::join_all(asked).await;
        tokens = answers.iter().map(Tokens::of).collect();
    }
    for (at, its) in tokens.iter().enumerate() {
        assert_eq!(me(&relays[at % 2], &its.bearer).await.status, 200);
    }
    assert_eq!(counting.documents_told.load(Ordering::SeqCst), 0, "users and tokens are as they were");
    let told = counting.records_told.load(Ordering::SeqCst);
    let changed = LOG_INS * ROUNDS;
    assert!((changed..=2 * changed).contains(&told), "{told} for {changed} that have changed, on two nodes");
    for relay in relays {
        relay.stop().await;
    }
}
