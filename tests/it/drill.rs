//! A drill of faults: the server is full, a node is cut off from it, a worker stalls, a certificate ends. Each is seen by
//! who looks: `tidemill doctor`, the metrics with the alerts that are made for them, and the console.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tidemill::clock::Clock;

use crate::browser::console;
use crate::support::eventually;
use crate::support::process::{Ended, Relay, run};
use crate::support::proxy::Proxy;
use crate::support::relay::{STUCK, try_send};
use crate::support::server::{Kind, Server};
use crate::support::tls::Papers;

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus/tidemill.rules.yml");
/// How often a relay looks at groups in these tests.
const SWEEP: (&str, &str) = ("TIDEMILL_SWEEP_INTERVAL_MS", "200");
const DAY: Duration = Duration::from_hours(24);

/// What a relay tells of itself at one time: the value of each series.
type Reading = BTreeMap<String, String>;

async fn reading(metrics: SocketAddr) -> Reading {
    let answer = try_send(metrics, "GET", "/metrics", &[], b"").await.expect("it answers");
    let now = Clock::system().now().as_millis() / 1_000;
    let line = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        let mut value: f64 = value.parse().ok().filter(|value: &f64| value.is_finite())?;
        // The time of the tests below begins at 0.
        if series.contains("_timestamp_seconds") {
            #[expect(clippy::cast_precision_loss, reason = "it is far below 2^52")]
            let now = now as f64;
            value -= now;
        }
        // Of histograms no alert is made.
        (!line.starts_with('#') && !series.contains("le=")).then(|| (series.to_owned(), value.to_string()))
    };
    answer.text().lines().filter_map(line).collect()
}

/// Asserts that these alerts fire, and no others, where a relay has told the one, and tells the other from then on.
fn fire(before: &Reading, after: &Reading, alerts: &[&str]) {
    let mut series = String::new();
    for (name, value) in after {
        let was = before.get(name).map_or("_", String::as_str);
        let (of, labels) =
            name.split_once('{').map_or((&**name, ""), |(of, rest)| (of, rest.trim_end_matches('}')));
        let labels = if labels.is_empty() { String::new() } else { format!("{labels},") };
        let _ = writeln!(
            series,
            "      - {{series: '{of}{{{labels}instance=\"a:8080\",job=\"tidemill\"}}', values: '{was}x20 {value}x160'}}"
        );
    }
    let expected: BTreeSet<_> = alerts.iter().collect();
    let samples = expected.iter().map(|name| format!("{{labels: '{{alertname=\"{name}\"}}', value: 1}}"));
    let samples = samples.collect::<Vec<_>>().join(", ");
    let text = format!(
        "rule_files: ['{RULES}']
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'up{{instance=\"a:8080\",job=\"tidemill\"}}', values: '1x180'}}
{series}    promql_expr_test:
      - expr: 'min by (alertname) (max_over_time(ALERTS{{alertstate=\"firing\"}}[3h]))'
        eval_time: 3h
        exp_samples: [{samples}]
"
    );
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("drill.yml");
    std::fs::write(&file, &text).expect("the folder is ours");
    let Ok(done) = Command::new("promtool").args(["test", "rules"]).arg(&file).output() else {
        let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!in_ci, "promtool is not found: in CI a skipped test is a failure");
        eprintln!("skipped: promtool is not on the PATH");
        return;
    };
    let said = [done.stdout, done.stderr].concat();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// Runs `tidemill doctor`, and returns how it has ended, with the lines that are not well by their names.
async fn doctor(variables: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, BTreeMap<String, Value>) {
    let owned = |text: &str| text.to_owned();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (owned(name), owned(value))).collect();
    let arguments: Vec<_> =
        ["doctor", "-o", "json"].iter().chain(arguments).map(|text| owned(text)).collect();
    let ended = tokio::task::spawn_blocking(move || -> Ended {
        let variables: Vec<_> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
        run(&variables, &arguments.iter().map(String::as_str).collect::<Vec<_>>(), "")
    });
    let ended = ended.await.expect("no panic");
    let lines = ended.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let ill = lines.filter(|line| line["outcome"] != "pass");
    (ended.code, ill.map(|line| (line["name"].as_str().expect("a name").to_owned(), line)).collect())
}

/// Returns how a relay is, as the doctor sees it that asks it.
async fn doctor_at(address: SocketAddr) -> (Option<i32>, BTreeMap<String, Value>) {
    doctor(&[], &["--url", &format!("http://{address}"), "--idle", "1"]).await
}

async fn post(address: SocketAddr, path: &str, body: &Value) -> (u16, Value) {
    let headers = [("content-type", "application/json")];
    let answer =
        try_send(address, "POST", path, &headers, body.to_string().as_bytes()).await.expect("it answers");
    let told = if answer.body.is_empty() { Value::Null } else { answer.json() };
    (answer.status, told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_full_is_seen() {
    let Some(server) = Server::start(Kind::Valkey, &["--maxmemory-policy", "noeviction"]).await else {
        return;
    };
    let url = format!("valkey://127.0.0.1:{}", server.port());
    let variables = [("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &*url)];
    let relay = Relay::ready_at("127.0.0.1:0", &variables, &[]).await;
    let address = relay.address();
    assert_eq!(post(address, "/api/v1/topics/t/messages", &json!("one")).await.0, 201);
    let well = reading(address).await;
    fire(&well, &well, &[]);
    assert_eq!(doctor(&variables, &[]).await.0, Some(0));

    server.command(&["CONFIG", "SET", "maxmemory", "1kb"]).await;
    assert_eq!(post(address, "/api/v1/topics/t/messages", &json!("two")).await.1["code"], "storage_full");
    eventually(STUCK, async || reading(address).await["tidemill_backend_accepts_writes"] == "0").await;
    fire(&well, &reading(address).await, &["TidemillMemoryFillsUp", "TidemillTakesNoMessages"]);
    let (code, ill) = doctor(&variables, &[]).await;
    assert!(code == Some(1) && ill.values().any(|line| line["outcome"] == "fail"), "{ill:?}");
    let (code, ill) = doctor_at(address).await;
    assert_eq!((code, &ill["storage"]["outcome"]), (Some(1), &json!("fail")), "{ill:?}");
    console::overview_shows(&format!("http://{address}"), &["Degraded"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_is_seen() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let way = Proxy::start(server.port()).await;
    let url = format!("valkey://127.0.0.1:{}", way.port());
    let variables = [("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &*url)];
    let relay = Relay::ready_at("127.0.0.1:0", &variables, &[]).await;
    let address = relay.address();
    let well = reading(address).await;
    way.refuse(true);
    way.cut();
    // Each of its connections was lost.
    eventually(STUCK, async || {
        let now = reading(address).await;
        now["tidemill_ready"] == "0"
            && now["tidemill_backend_reconnects_total"].parse::<u64>().is_ok_and(|lost| lost > 3)
    })
    .await;
    fire(&well, &reading(address).await, &["TidemillLosesItsServer", "TidemillNotReady"]);
    let (code, ill) = doctor_at(address).await;
    assert_eq!((code, &ill["storage"]["outcome"]), (Some(1), &json!("fail")), "{ill:?}");
    assert_eq!(doctor(&variables, &[]).await.0, Some(1));
    console::overview_shows(&format!("http://{address}"), &["Degraded"]).await;
    way.refuse(false);
    eventually(STUCK, async || reading(address).await["tidemill_ready"] == "1").await;
    // What it is used for comes back one by one.
    eventually(STUCK, async || doctor_at(address).await.0 == Some(0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stalls_is_seen() {
    let relay = Relay::ready_at("127.0.0.1:0", &[SWEEP], &[]).await;
    let address = relay.address();
    let group = json!({ "ack_wait": "0.1s", "max_deliveries": 1 }).to_string();
    let headers = [("content-type", "application/json")];
    let made = try_send(address, "PUT", "/api/v1/topics/jobs/groups/workers", &headers, group.as_bytes());
    assert_eq!(made.await.expect("it answers").status, 201);
    post(address, "/api/v1/topics/jobs/messages", &json!("a job")).await;
    let well = reading(address).await;
    // It takes a job, begins with it, and says nothing more.
    let claim = json!({ "consumer": "worker-7" });
    let (_, claimed) = post(address, "/api/v1/topics/jobs/groups/workers/claim", &claim).await;
    let receipts = json!({ "receipts": [claimed["messages"][0]["receipt"]] });
    assert_eq!(post(address, "/api/v1/work/extend", &receipts).await.0, 200);
    // The next worker gets nothing: the job has failed as often as it may.
    let next = json!({ "consumer": "worker-8" });
    eventually(STUCK, async || {
        let claimed = post(address, "/api/v1/topics/jobs/groups/workers/claim", &next).await;
        assert_eq!(claimed.1["messages"], json!([]), "{claimed:?}");
        let now = reading(address).await;
        now["tidemill_work_dead_total"] != "0"
            && now.get("tidemill_work_dead").is_some_and(|dead| dead != "0")
    })
    .await;
    fire(&well, &reading(address).await, &["TidemillDeadLetters"]);
    let (code, ill) = doctor_at(address).await;
    assert_eq!((code, &ill["work"]["detail"]), (Some(0), &json!("there are dead letters")), "{ill:?}");
    console::overview_shows(&format!("http://{address}"), &["1 dead letter"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_ends_is_seen() {
    let papers = Papers::until(Clock::system().now().saturating_add(5 * DAY));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| folder.path().join(name));
    papers.write(&certificate, &key);
    let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let (certificate, key) = (text(&certificate), text(&key));
    let metrics = SocketAddr::from(([127, 0, 0, 1], crate::support::server::free_port()));
    let at = metrics.to_string();
    let files = [certificate.clone(), key];
    let start = move || {
        let [certificate, key] = &files;
        Relay::start(&[], &["--tls-cert", certificate, "--tls-key", key, "--metrics-listen", &at])
    };
    let relay = tokio::task::spawn_blocking(start).await.expect("no panic");
    eventually(STUCK, async || try_send(metrics, "GET", "/metrics", &[], b"").await.is_some()).await;
    let now = reading(metrics).await;
    fire(&now, &now, &["TidemillCertificateEnds"]);
    let port = relay.url.rsplit(':').next().expect("a port").trim_end_matches('/').to_owned();
    let url = format!("https://localhost:{port}");
    let (_, ill) = doctor(&[], &["--url", &url, "--ca-cert", &certificate, "--idle", "1"]).await;
    assert!(ill["tls"]["detail"].as_str().is_some_and(|detail| detail.contains("more days")), "{ill:?}");
    console::overview_shows(&url, &["The certificate of the relay ends in 4 days."]).await;
}
