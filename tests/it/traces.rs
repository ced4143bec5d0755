//! Traces: what a collector gets of a relay, and the trace of a message from its publisher to its worker.

use std::net::SocketAddr;

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::support::collector::{Collector, digits, noted};
use crate::support::eventually;
use crate::support::process::{Relay, run};
use crate::support::relay::{Answer, STUCK, TestRelay, memory, try_send};
use crate::support::server::free_port;
use crate::support::ws::WsClient;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

/// Starts a relay that sends its spans at once.
async fn start(collector: &str, more: &[(&str, &str)]) -> Relay {
    let mut variables = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), collector.to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY".to_owned(), "20".to_owned()),
    ];
    variables.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let start = spawn_blocking(move || {
        let variables: Vec<_> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
        Relay::start(&variables, &[])
    });
    start.await.expect("it starts")
}

async fn post(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let json = ("content-type", "application/json");
    let headers = [&[json], headers].concat();
    let answer = try_send(address, "POST", path, &headers, body.as_bytes()).await.expect("an answer");
    assert!(answer.status < 500, "{answer:?}");
    answer
}

async fn get(address: SocketAddr, path: &str) -> Value {
    try_send(address, "GET", path, &[], b"").await.expect("an answer").json()
}

/// Returns how many spans came to this end, as the metrics tell.
async fn counted(address: SocketAddr, result: &str) -> u64 {
    let answer = try_send(address, "GET", "/metrics", &[], b"").await.expect("an answer");
    let start = format!("tidemill_trace_spans_total{{result=\"{result}\"}} ");
    let line = answer.text().lines().find_map(|line| line.strip_prefix(&start)).expect("it is counted");
    line.parse().expect("a number")
}

#[track_caller]
fn hangs_under(span: &Span, trace: &str, parent: &str) {
    assert_eq!(
        (digits(&span.trace_id), digits(&span.parent_span_id)),
        (trace.to_owned(), parent.to_owned()),
        "{span:?}"
    );
}

#[track_caller]
fn says(span: &Span, notes: &[(&str, &str)]) {
    for (name, value) in notes {
        assert_eq!(noted(span, name).as_deref(), Some(*value), "{name} of {span:?}");
    }
}

#[tokio::test]
async fn a_message_is_traced_from_its_publisher_to_its_worker() {
    let collector = Collector::start();
    let relay =
        start(&collector.url, &[("OTEL_SERVICE_NAME", "relay-1"), ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=7")])
            .await;
    let address = relay.address();
    let json = [("content-type", "application/json")];
    let made = try_send(address, "PUT", "/api/v1/topics/jobs/groups/workers", &json, b"{}").await;
    assert!(made.expect("an answer").status < 300);
    let traced = parent("01");
    let headers = [("traceparent", traced.as_str()), ("tracestate", "vendor=1")];
    let published =
        post(address, "/api/v1/messages", &headers, r#"{"topic":"jobs","payload":1}"#).await.json();
    let span = collector.wait_for("publish jobs", 1).await.remove(0);
    hangs_under(&span, TRACE, SPAN);
    let id = published["message_id"].as_str().expect("an id");
    says(
        &span,
        &[
            ("messaging.system", "tidemill"),
            ("messaging.operation.name", "publish"),
            ("messaging.operation.type", "send"),
            ("messaging.destination.name", "jobs"),
            ("messaging.message.id", id),
            ("http.route", "/api/v1/messages"),
            ("http.response.status_code", "201"),
        ],
    );
    // Who reads and claims without a trace begins one; claims are linked to publishers.
    let page = get(address, "/api/v1/topics/jobs/messages").await;
    let metadata = json!({"traceparent": traced, "tracestate": "vendor=1"});
    assert_eq!(page["messages"][0]["metadata"], metadata);
    let read = collector.wait_for("read jobs", 1).await.remove(0);
    assert!(read.parent_span_id.is_empty(), "{read:?}");
    says(&read, &[("messaging.operation.type", "receive"), ("messaging.batch.message_count", "1")]);
    let claim = "/api/v1/topics/jobs/groups/workers/claim";
    let work = post(address, claim, &[], r#"{"consumer":"c"}"#).await.json();
    assert_eq!(work["messages"][0]["metadata"], metadata);
    let claimed = collector.wait_for("claim jobs", 1).await.remove(0);
    says(&claimed, &[("messaging.consumer.group.name", "workers"), ("messaging.operation.type", "receive")]);
    let linked: Vec<_> = claimed.links.iter().map(|link| digits(&link.span_id)).collect();
    assert_eq!(linked, [SPAN]);
    let receipt = json!({"receipts": [work["messages"][0]["receipt"]]}).to_string();
    post(address, "/api/v1/work/ack", &[("traceparent", traced.as_str())], &receipt).await;
    let settled = collector.wait_for("ack jobs", 1).await.remove(0);
    hangs_under(&settled, TRACE, SPAN);
    says(&settled, &[("messaging.operation.type", "settle"), ("messaging.message.id", id)]);
    assert_eq!(collector.about("service.name").as_deref(), Some("relay-1"));
    assert!(collector.headers().iter().all(|head| head.contains("x-key: 7")), "{:?}", collector.headers());
    // What is refused says why, and what is under way when the relay stops is sent.
    post(address, "/api/v1/topics/jobs/messages", &[], "{").await;
    let (code, _) = relay.stop();
    assert_eq!(code, Some(0));
    let refused: Vec<_> =
        collector.named("publish").into_iter().map(|span| noted(&span, "error.type")).collect();
    assert_eq!(refused, [Some("invalid_json".to_owned())]);
}

#[tokio::test]
async fn every_way_to_publish_has_a_span_and_live_readers_get_one_for_all() {
    let collector = Collector::start();
    let relay = start(&collector.url, &[]).await;
    let address = relay.address();
    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut reader = WsClient::connect(address).await;
        reader.subscribe("live", "latest").await;
        readers.push(reader);
    }
    // The fast path, which a request with a trace does not take.
    post(address, "/api/v1/topics/live/messages", &[], "1").await;
    for reader in &mut readers {
        reader.expect("message").await;
    }
    let root = collector.wait_for("publish live", 1).await.remove(0);
    assert!(root.parent_span_id.is_empty(), "{root:?}");
    let body = json!({"messages": [
        {"topic": "bulk", "payload": 1},
        {"topic": "bulk", "payload": 2, "metadata": {"a": 1}},
        {"topic": "bulk", "payload": 3, "metadata": {"traceparent": "own"}},
    ]});
    let traced = parent("01");
    let headers = [("traceparent", traced.as_str())];
    post(address, "/api/v1/messages/bulk", &headers, &body.to_string()).await;
    let bulk = collector.wait_for("publish", 1).await.remove(0);
    hangs_under(&bulk, TRACE, SPAN);
    says(&bulk, &[("messaging.batch.message_count", "3")]);
    let page = get(address, "/api/v1/topics/bulk/messages?order=asc").await;
    let metadata: Vec<_> = (0..3).map(|at| page["messages"][at]["metadata"].clone()).collect();
    assert_eq!(
        metadata,
        [
            json!({"traceparent": traced}),
            json!({"traceparent": traced, "a": 1}),
            json!({"traceparent": "own"})
        ]
    );
    // Frames of a WebSocket: the metadata says whose they are.
    let mut socket = WsClient::connect(address).await;
    let frame =
        json!({"type": "publish", "topic": "live", "payload": 2, "metadata": {"traceparent": traced}});
    socket.ask(frame.to_string(), "published").await;
    for reader in &mut readers {
        reader.expect("message").await;
    }
    let published = collector.wait_for("publish live", 2).await.remove(1);
    hangs_under(&published, TRACE, SPAN);
    // Readers that were parked share a span; one that was not has its own.
    let deliveries = async || collector.named("deliver live").len() >= 2;
    eventually(STUCK, deliveries).await;
    let delivered = collector.named("deliver live");
    assert!((2..=6).contains(&delivered.len()), "{delivered:?}");
    let of_traced: Vec<_> = delivered.iter().filter(|span| digits(&span.trace_id) == TRACE).collect();
    assert!(!of_traced.is_empty(), "{delivered:?}");
    assert!(of_traced.iter().all(|span| digits(&span.parent_span_id) == SPAN), "{delivered:?}");
    assert_eq!(counted(address, "dropped").await, 0);
    assert!(counted(address, "sent").await > 0);
}

#[tokio::test]
async fn the_trace_of_a_publish_is_kept_where_nothing_is_traced_and_is_no_part_of_the_message() {
    let relay = TestRelay::start(memory()).await;
    let send = async |flags: &str, body: &str| {
        let traced = parent(flags);
        let headers = [("traceparent", traced.as_str()), ("idempotency-key", "k")];
        post(relay.address, "/api/v1/messages", &headers, body).await
    };
    let first = send("01", r#"{"topic":"a","payload":1,"metadata":{ "z": 1, "b": 2 }}"#).await;
    let again = send("00", r#"{"topic":"a","payload":1,"metadata":{ "z": 1, "b": 2 }}"#).await;
    assert_eq!((first.status, first.json()), (again.status, again.json()));
    // Nor does it matter that there was none: an older relay has not kept it.
    let none = [("idempotency-key", "k")];
    let without = post(
        relay.address,
        "/api/v1/messages",
        &none,
        r#"{"topic":"a","payload":1,"metadata":{ "z": 1, "b": 2 }}"#,
    )
    .await;
    assert_eq!(without.json(), first.json());
    let page = relay.get("/api/v1/topics/a/messages").await.json();
    assert_eq!(page["messages"].as_array().map(Vec::len), Some(1));
    assert_eq!(page["messages"][0]["metadata"], json!({"traceparent": parent("01"), "z": 1, "b": 2}));
    // Two are none, and nobody is refused for what a proxy has added.
    let twice = [("traceparent", "00-a"), ("traceparent", "00-b")];
    post(relay.address, "/api/v1/messages", &twice, r#"{"topic":"b","payload":1}"#).await;
    let page = relay.get("/api/v1/topics/b/messages").await.json();
    assert_eq!(page["messages"][0]["metadata"], Value::Null);
    let large = json!({"topic": "c", "payload": 1, "metadata": {"a": "x".repeat(64 * 1024 - 8)}}).to_string();
    let traced = parent("01");
    let answer = post(relay.address, "/api/v1/messages", &[("traceparent", traced.as_str())], &large).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    relay.stop().await;
}

#[tokio::test]
async fn what_is_not_sampled_is_not_sent() {
    let collector = Collector::start();
    let relay = start(&collector.url, &[]).await;
    let address = relay.address();
    let traced = parent("00");
    for _ in 0..3 {
        post(address, "/api/v1/topics/quiet/messages", &[("traceparent", traced.as_str())], "1").await;
    }
    post(address, "/api/v1/topics/loud/messages", &[], "1").await;
    collector.wait_for("publish loud", 1).await;
    assert!(collector.named("publish quiet").is_empty());
    let off = Collector::start();
    let silent = start(&off.url, &[("OTEL_TRACES_SAMPLER", "always_off")]).await;
    post(silent.address(), "/api/v1/topics/quiet/messages", &[], "1").await;
    assert_eq!(silent.stop().0, Some(0));
    assert!(off.spans().is_empty());
}

#[tokio::test]
async fn a_collector_that_is_away_holds_up_nobody_and_what_is_lost_is_counted() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let relay = start(&url, &[]).await;
    for _ in 0..5 {
        post(relay.address(), "/api/v1/topics/a/messages", &[], "1").await;
    }
    eventually(STUCK, async || counted(relay.address(), "failed").await >= 5).await;
    let (code, log) = relay.stop();
    assert_eq!(code, Some(0));
    assert_eq!(log.matches("the collector does not take spans").count(), 1, "{log}");
    assert!(log.contains("Connection refused"), "it is said why: {log}");
    // One that refuses, and one that sends elsewhere: the log has the status.
    for (status, line) in
        [(503, "503 Service Unavailable"), (301, "301 Moved Permanently\r\nlocation: /elsewhere")]
    {
        let refusing = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", refusing.local_addr().expect("an address"));
        std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            while let Ok((mut client, _)) = refusing.accept() {
                let _ = client.read(&mut [0; 16_384]);
                let _ = write!(client, "HTTP/1.1 {line}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
        });
        let relay = start(&url, &[]).await;
        post(relay.address(), "/api/v1/topics/a/messages", &[], "1").await;
        eventually(STUCK, async || counted(relay.address(), "failed").await >= 1).await;
        let (_, log) = relay.stop();
        assert!(log.contains(&format!("{status}")), "{log}");
    }
    // One that takes a connection and says nothing: the queue is bounded, and what has no room is dropped.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let bounds = [("OTEL_BSP_MAX_QUEUE_SIZE", "4"), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")];
    let relay = start(&url, &bounds).await;
    for _ in 0..20 {
        post(relay.address(), "/api/v1/topics/a/messages", &[], "1").await;
    }
    assert!(counted(relay.address(), "dropped").await >= 14);
    assert_eq!(relay.stop().0, Some(0));
}

#[tokio::test]
async fn a_relay_that_does_not_trace_has_no_thread_for_it_and_one_that_is_set_wrong_does_not_start() {
    let threads =
        |relay: &Relay| relay.threads().into_iter().filter(|name| name.starts_with("OpenTelemetry")).count();
    let relay = spawn_blocking(|| Relay::start(&[], &[])).await.expect("it starts");
    assert_eq!(threads(&relay), 0);
    let collector = Collector::start();
    let off = start(&collector.url, &[("OTEL_SDK_DISABLED", "true")]).await;
    assert_eq!(threads(&off), 0);
    let on = start(&collector.url, &[]).await;
    assert_eq!(threads(&on), 1);
    let wrong = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1"), ("OTEL_TRACES_SAMPLER", "sometimes")];
    let ended = run(&wrong, &["serve", "--listen", "127.0.0.1:0"], "");
    assert!(ended.error(2).starts_with("OTEL_TRACES_SAMPLER"), "{ended:?}");
    let checked = run(&wrong, &["config", "check"], "");
    assert!(checked.stdout.contains("OTEL_TRACES_SAMPLER"), "{checked:?}");
}

/// What the sending of spans says at the end stands in front of it.
#[tokio::test]
async fn the_last_line_of_the_log_is_that_the_relay_has_stopped() {
    // Who connects waits for ever.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let relay = start(&url, &[("TIDEMILL_LOG_FORMAT", "json")]).await;
    post(relay.address(), "/api/v1/topics/t/messages", &[], "1").await;
    let (code, log) = spawn_blocking(|| relay.stop()).await.expect("it stops");
    let last = log.lines().last().expect("it says something");
    let last: Value = serde_json::from_str(last).expect("JSON");
    assert_eq!((code, &last["message"]), (Some(0), &json!("stopped")), "{log}");
    assert!(log.contains("OpenTelemetry") || log.contains("opentelemetry"), "{log}");
}

#[tokio::test]
async fn commands_hand_the_trace_on() {
    let relay = spawn_blocking(|| Relay::start(&[], &[])).await.expect("it starts");
    relay.run(&["groups", "create", "jobs", "workers"], "").lines();
    let (url, traced) = (relay.url.clone(), parent("01"));
    let variables = [("TIDEMILL_URL", &*url), ("TRACEPARENT", &*traced), ("TRACESTATE", "v=1")];
    run(&variables, &["publish", "jobs", "1"], "").lines();
    run(&variables, &["publish", "jobs", "2", "--metadata", r#"{"a":1}"#], "").lines();
    run(&variables, &["publish", "jobs"], "3\n").lines();
    relay.run(&["publish", "jobs", "4"], "").lines();
    let script = "echo \"$TRACEPARENT|$TRACESTATE\"";
    let worker = ["work", "jobs", "-g", "workers", "-n", "4", "--", "/bin/sh", "-c", script];
    // The trace of the worker is not that of a message.
    let ended = run(&variables, &worker, "");
    let own = format!("{traced}|v=1");
    assert_eq!(ended.lines(), [&*own, &own, &own, "|"], "{ended:?}");
}

#[cfg(feature = "valkey")]
mod on_valkey {
    use super::*;
    use crate::support::server::{Kind, Server};

    #[tokio::test]
    async fn a_pipeline_hangs_under_the_publish_that_it_carries_or_is_linked_to_all() {
        let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
        let collector = Collector::start();
        let url = format!("valkey://127.0.0.1:{}", server.port());
        let relay = start(&collector.url, &[("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &url)]).await;
        let address = relay.address();
        eventually(STUCK, async || {
            try_send(address, "GET", "/ready", &[], b"").await.is_some_and(|answer| answer.status == 200)
        })
        .await;
        let traced = parent("01");
        post(address, "/api/v1/topics/a/messages", &[("traceparent", traced.as_str())], "1").await;
        let publish = collector.wait_for("publish a", 1).await.remove(0);
        let pipeline = collector.wait_for("pipeline", 1).await.remove(0);
        hangs_under(&pipeline, TRACE, &digits(&publish.span_id));
        says(&pipeline, &[("db.system.name", "valkey"), ("messaging.batch.message_count", "1")]);
        // Many at once share pipelines, each of which is linked to those that it carries.
        let mut socket = WsClient::connect(address).await;
        for number in 0..50 {
            let frame = json!({"type": "publish", "topic": "many", "payload": number});
            socket.send(frame.to_string()).await;
        }
        for _ in 0..50 {
            socket.expect("published").await;
        }
        let publishes = collector.wait_for("publish many", 50).await;
        let carried = || {
            let pipelines = collector.named("pipeline").into_iter().skip(1);
            let of = |span: Span| match span.links.len() {
                0 => vec![digits(&span.parent_span_id)],
                _ => span.links.iter().map(|link| digits(&link.span_id)).collect(),
            };
            let mut carried: Vec<_> = pipelines.flat_map(of).collect();
            carried.sort();
            carried
        };
        let mut spans: Vec<_> = publishes.iter().map(|span| digits(&span.span_id)).collect();
        spans.sort();
        eventually(STUCK, async || carried() == spans).await;
        assert!(collector.named("pipeline").len() < 51);
        // A server that is away is the relay's failure.
        drop(server);
        let failed = try_send(
            address,
            "POST",
            "/api/v1/topics/a/messages",
            &[("content-type", "application/json")],
            b"1",
        )
        .await;
        assert!(failed.expect("an answer").status >= 500);
        let is_failed =
            |span: Span| span.status.is_some_and(|status| status.code == StatusCode::Error as i32);
        eventually(STUCK, async || collector.named("publish a").into_iter().any(is_failed)).await;
    }
}
