//! What takes long: noted with the parts of its time while a real server stands still, and what servers note by themselves.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::support::eventually;
use crate::support::process::{Relay, run};
use crate::support::relay::{Answer, STUCK, request, try_send};
use crate::support::server::{Kind, Server};
use crate::support::ws::WsClient;

/// How long the server stands still, and past which time it is noted.
const STANDS: Duration = Duration::from_millis(350);
const THRESHOLD_MS: &str = "100";

async fn relay_on(server: &Server, more: &[(&str, &str)]) -> Relay {
    let url = format!("valkey://127.0.0.1:{}", server.port());
    let variables =
        [("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &*url), ("TIDEMILL_SLOW_MS", THRESHOLD_MS)];
    Relay::ready_at("127.0.0.1:0", &[&variables[..], more].concat(), &["--drain-ms=1000"]).await
}

async fn ask(address: SocketAddr, method: &str, path: &str, body: &Value) -> Answer {
    let headers = [("content-type", "application/json")];
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let answer = try_send(address, method, path, &headers, &body).await.expect("an answer");
    assert!(answer.status < 300, "{method} {path}: {answer:?}");
    answer
}

async fn slow(address: SocketAddr) -> Value {
    ask(address, "GET", "/api/v1/admin/slow?limit=256", &Value::Null).await.json()
}

/// Returns what was noted of one operation, in the order in which it was.
fn noted<'a>(list: &'a Value, operation: &str) -> Vec<&'a Value> {
    let all = list["operations"].as_array().expect("a list").iter();
    let mut found: Vec<_> = all.filter(|one| one["operation"] == operation).collect();
    found.reverse();
    found
}

fn ms(operation: &Value, part: &str) -> f64 {
    operation[part].as_f64().unwrap_or_else(|| panic!("no {part} in {operation}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_reads_and_commands_are_noted_with_where_their_time_went() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let relay = relay_on(&server, &[]).await;
    let address = relay.address();
    let messages = "/api/v1/topics/orders/messages";
    ask(address, "POST", messages, &json!("secret")).await;
    ask(address, "PUT", "/api/v1/keys/flows/a", &json!(1)).await;
    let mut socket = WsClient::connect(address).await;
    let list = slow(address).await;
    assert_eq!(list["threshold_ms"], 100, "{list}");
    // A busy machine may have taken long for one.
    let all = list["operations"].as_array().expect("a list");
    assert!(all.iter().all(|one| ms(one, "total_ms") >= 100.0), "{list}");

    server.sigstop();
    let asks = |method: &'static str, path: &'static str, body: Value| async move {
        ask(address, method, path, &body).await
    };
    let publish = |path, body| asks("POST", path, body);
    let first = publish(messages, json!("secret"));
    let behind = async {
        // It waits for the first one.
        sleep(Duration::from_millis(50)).await;
        publish("/api/v1/messages", json!({"topic": "orders", "payload": "secret"})).await
    };
    // By the router, not by the fast path.
    let routed = async {
        let headers = [("content-type", "application/json"), ("tidemill-meta-a", "b")];
        try_send(address, "POST", "/api/v1/topics/other/messages", &headers, b"1").await.expect("an answer")
    };
    let over_socket = async {
        socket.send(r#"{"type":"publish","topic":"socket","payload":"secret","ref":"r"}"#).await;
        socket.frame().await
    };
    let read = ask(address, "GET", messages, &Value::Null);
    let command = asks("PUT", "/api/v1/keys/flows/a", json!(2));
    let control = asks("POST", "/api/v1/topics", json!({"topic_name": "made"}));
    // It waits as its client wants it to.
    let poll = ask(address, "GET", "/api/v1/topics/orders/messages?after=latest&wait=1", &Value::Null);
    let goes_on = async {
        sleep(STANDS).await;
        server.sigcont();
    };
    let all = async {
        tokio::join!(first, behind, routed, over_socket, read, command, control, poll, goes_on);
    };
    timeout(STUCK, all).await.expect("all are answered");

    let list = slow(address).await;
    let of = |operation: &str, kind: &str, topic: Value| {
        let all = noted(&list, operation);
        let one = all.iter().find(|one| one["topic"] == topic);
        let one = one.unwrap_or_else(|| panic!("no {operation} of {topic} in {list}"));
        assert_eq!(one["kind"], kind, "{one}");
        assert!(one["caller"].is_string() && one["at"].is_string(), "{one}");
        let (total, parts) = (ms(one, "total_ms"), ms(one, "queue_ms") + ms(one, "server_ms"));
        assert!((200.0..5_000.0).contains(&total), "{one}");
        assert!(parts > 200.0 && parts <= total + 1.0, "{one}");
        (*one).clone()
    };
    let first = of("POST /api/v1/topics/{topic}/messages", "publish", json!("orders"));
    assert_eq!(first["status"], 201, "{first}");
    assert!(first["request_id"].is_string() && ms(&first, "write_ms") < 200.0, "{first}");
    let behind = of("POST /api/v1/messages", "publish", json!("orders"));
    assert!(ms(&behind, "queue_ms") > 100.0, "{behind}");
    let other = of("POST /api/v1/topics/{topic}/messages", "publish", json!("other"));
    let socket = of("WebSocket publish", "publish", json!("socket"));
    // The server was asked for those that came first.
    assert!([&first, &other, &socket].iter().any(|one| ms(one, "server_ms") > 200.0), "{list}");
    of("GET /api/v1/topics/{topic}/messages", "read", json!("orders"));
    of("PUT /api/v1/keys/{bucket}/{key}", "command", Value::Null);
    of("POST /api/v1/topics", "command", Value::Null);
    assert_eq!(list["count"].as_u64(), list["operations"].as_array().map(|all| all.len() as u64));
    assert!(!list.to_string().contains("secret"), "{list}");
    assert!(!list.to_string().contains("wait="), "{list}");

    let metrics = ask(address, "GET", "/metrics", &Value::Null).await;
    for kind in ["publish", "read", "command"] {
        let line = format!("tidemill_slow_operations_total{{kind=\"{kind}\"}} ");
        let count = metrics.text().lines().find_map(|text| text.strip_prefix(&*line));
        let count: u64 = count.expect("it is counted").parse().expect("a number");
        assert!(count > 0, "{kind}");
    }
    let url = relay.url.clone();
    let command = spawn_blocking(move || run(&[("TIDEMILL_URL", &url)], &["slow"], ""));
    let told = command.await.expect("no panic");
    let head = "AT                        TOTAL";
    assert!(told.lines()[0].starts_with(head) && told.stdout.contains(" on node "), "{told:?}");
    assert!(told.stdout.contains("POST /api/v1/topics/{topic}/messages"), "{told:?}");
    spawn_blocking(move || drop(relay)).await.expect("no panic");
}

/// Who waits for what he asked for is not slow, however long that is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_has_the_relay_wait_for_is_not_noted() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let relay = relay_on(&server, &[("TIDEMILL_SLOW_MS", "400")]).await;
    let address = relay.address();
    ask(address, "POST", "/api/v1/topics/orders/messages", &json!(1)).await;
    ask(address, "PUT", "/api/v1/topics/orders/groups/g", &json!({})).await;
    let nothing = Value::Null;
    let poll = ask(address, "GET", "/api/v1/topics/orders/messages?after=latest&wait=1", &nothing);
    let claim = json!({"consumer": "c", "wait": "1s"});
    let claim = ask(address, "POST", "/api/v1/topics/orders/groups/g/claim", &claim);
    let fate = async {
        let published = ask(address, "POST", "/api/v1/topics/orders/messages", &json!(2)).await.json();
        let id = published["message_id"].as_str().expect("an id").to_owned();
        ask(address, "GET", &format!("/api/v1/topics/orders/groups/g/messages/{id}?wait=1"), &nothing).await
    };
    let slow_body = async {
        let mut stream = TcpSocket::new_v4().expect("a socket").connect(address).await.expect("it listens");
        let whole = request("PUT", "/api/v1/keys/flows/a", &[("content-type", "application/json")], b"12");
        let (head, rest) = whole.split_at(whole.len() - 1);
        stream.write_all(head).await.expect("it takes it");
        sleep(Duration::from_secs(1)).await;
        stream.write_all(rest).await.expect("it takes it");
        stream.read_to_end(&mut Vec::new()).await.expect("an answer");
    };
    tokio::join!(poll, claim, fate, slow_body);
    let list = slow(address).await;
    assert_eq!(list["operations"], json!([]), "{list}");
    spawn_blocking(move || drop(relay)).await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_its_answer_slowly_is_told_from_a_slow_server() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let relay = relay_on(&server, &[]).await;
    let address = relay.address();
    let big = json!("x".repeat(700_000));
    for _ in 0..10 {
        ask(address, "POST", "/api/v1/topics/big/messages", &big).await;
    }
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(8 * 1024).expect("it is set");
    let mut stream = socket.connect(address).await.expect("it listens");
    let page = request("GET", "/api/v1/topics/big/messages?limit=10", &[], b"");
    stream.write_all(&page).await.expect("it takes it");
    // It begins to take it, and then nothing for a while.
    let mut first = [0];
    assert_eq!(timeout(STUCK, stream.peek(&mut first)).await.expect("in time").expect("it comes"), 1);
    sleep(Duration::from_millis(600)).await;
    let mut all = Vec::new();
    timeout(STUCK, stream.read_to_end(&mut all)).await.expect("in time").expect("it comes");
    assert!(all.len() > 6_000_000, "{}", all.len());
    let is_noted = async || !noted(&slow(address).await, "GET /api/v1/topics/{topic}/messages").is_empty();
    eventually(STUCK, is_noted).await;
    let list = slow(address).await;
    let one = noted(&list, "GET /api/v1/topics/{topic}/messages")[0];
    assert!(ms(one, "write_ms") > 400.0 && ms(one, "total_ms") > ms(one, "write_ms"), "{one}");
    assert_eq!((&one["kind"], &one["topic"]), (&json!("read"), &json!("big")));
    spawn_blocking(move || drop(relay)).await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_servers_have_noted_is_told_without_what_was_given() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let relay = relay_on(&server, &[]).await;
    let address = relay.address();
    server.command(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]).await;
    ask(address, "POST", "/api/v1/topics/orders/messages", &json!("secret")).await;
    server.command(&["CONFIG", "SET", "slowlog-log-slower-than", "-1"]).await;
    let list = slow(address).await;
    let told = &list["servers"][0];
    assert!(told["server"].as_str().expect("a server").contains(&server.port().to_string()), "{list}");
    let commands = told["commands"].as_array().expect("a list");
    let is_append = |one: &&Value| one["key"] == "stream:topic:orders" || one["command"] == "XADD";
    let append = commands.iter().find(is_append).unwrap_or_else(|| panic!("no append in {list}"));
    assert!(append["took_ms"].as_f64() > Some(0.0) && append["address"].is_string(), "{append}");
    assert!(!list.to_string().contains("secret"), "{list}");
    spawn_blocking(move || drop(relay)).await.expect("no panic");

    // A user who may not ask is told of, and all the rest is as ever.
    server.command(&["ACL", "SETUSER", "relay", "on", ">pw", "~*", "&*", "+@all", "-slowlog"]).await;
    let user = [("VALKEY_USERNAME", "relay"), ("VALKEY_PASSWORD", "pw")];
    let relay = relay_on(&server, &user).await;
    let list = slow(relay.address()).await;
    let refusal = list["servers"][0]["refusal"].as_str().expect("it says so");
    assert!(refusal.contains("+slowlog|get"), "{list}");
    let url = relay.url.clone();
    let command = spawn_blocking(move || run(&[("TIDEMILL_URL", &url)], &["slow"], ""));
    let told = command.await.expect("no panic");
    assert!(
        told.stdout.contains("does not tell what it has noted: the server's user may not ask"),
        "{told:?}"
    );
    spawn_blocking(move || drop(relay)).await.expect("no panic");
}
