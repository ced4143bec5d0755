//! The load generator: each scenario for a moment, against a real relay and bare servers.
//!
//! It looks at what is reported, never at how fast it was.

use std::time::Duration;

use serde_json::Value;

use crate::support::eventually;
use crate::support::process::{Ended, Relay, Running, run};
use crate::support::server::{Kind, Server};

/// Short, and JSON.
const BRIEF: [&str; 4] = ["--warm-up", "100ms", "-o", "json"];

fn bench(url: &str, arguments: &str) -> Ended {
    let mut arguments: Vec<&str> = ["bench"].into_iter().chain(arguments.split(' ')).chain(BRIEF).collect();
    if !arguments.contains(&"--duration") {
        arguments.extend(["--duration", "300ms"]);
    }
    run(&[("TIDEMILL_URL", url)], &arguments, "")
}

/// Runs a scenario that must succeed, and returns the report.
#[track_caller]
fn report(url: &str, arguments: &str) -> Value {
    let ended = bench(url, arguments);
    assert_eq!(ended.code, Some(0), "{arguments}: {ended:?}");
    serde_json::from_str(&ended.stdout).expect("one JSON document")
}

/// Runs a scenario that must succeed, and returns its rows, each with sane figures.
#[track_caller]
fn rows(url: &str, arguments: &str) -> Vec<Value> {
    let report = report(url, arguments);
    let rows = report["runs"][0]["rows"].as_array().expect("rows").clone();
    assert!(!rows.is_empty(), "{arguments}");
    for row in &rows {
        assert!(row["count"].as_u64() > Some(0), "{arguments}: {row}");
        assert_eq!(row["errors"], serde_json::json!({}), "{arguments}");
        let latency = |name: &str| row["latency"][name].as_f64().expect("a time");
        let times = ["p50_us", "p90_us", "p99_us", "p999_us", "max_us"].map(latency);
        assert!(times[0] > 0.0 && times[4] < 60e6, "{arguments}: {row}");
        // A bucket of the histogram is as wide as a thousandth.
        assert!(times.is_sorted_by(|a, b| *a <= b * 1.001), "{arguments}: {times:?}");
        let rate = row["count"].as_f64().zip(row["seconds"].as_f64()).map(|(count, seconds)| count / seconds);
        let reported = row["per_second"].as_f64().expect("a rate");
        assert!(rate.is_some_and(|rate| (rate - reported).abs() <= rate / 1e6), "{arguments}: {row}");
    }
    rows
}

#[test]
fn work_is_measured_in_every_form_and_each_message_is_looked_at() {
    let relay = Relay::start(&[], &[]);
    let other = format!("work --messages 300 --workers 3 --ack-url {}", relay.url);
    for arguments in [
        "work --messages 300 --workers 3",
        "work --messages 300 --workers 3 --batch 20",
        "work --messages 300 --workers 3 --transport ws",
        "work --messages 300 --workers 3 --batch 20 --transport ws-binary",
        "work --messages 300 --workers 3 --batch 20 --fail-once",
        "work --messages 300 --workers 3 --batch 20 --fail-once --transport ws-binary",
        &other,
    ] {
        let rows = rows(&relay.url, arguments);
        assert_eq!((&rows[0]["count"], &rows[0]["lost"]), (&300.into(), &0.into()), "{arguments}");
    }
    for arguments in [
        "work --rate 500 --workers 3",
        "work --rate 500 --workers 3 --transport ws-binary",
        "work --rate 500 --workers 3 --delay 200ms",
    ] {
        let rows = rows(&relay.url, arguments);
        assert_eq!(rows[0]["lost"], 0, "{arguments}: {}", rows[0]);
    }
    for transport in ["http", "ws-binary"] {
        let arguments =
            format!("work --messages 300 --workers 3 --batch 20 --lose 40 --transport {transport}");
        let rows = rows(&relay.url, &arguments);
        assert_eq!((&rows[0]["count"], &rows[0]["lost"]), (&40.into(), &0.into()), "what comes back");
    }
    let report = report(&relay.url, "work --scheduled 3000 --duration 1s");
    let [before, idle, beside] = &report["runs"][0]["rows"].as_array().expect("rows")[..] else {
        panic!("{report}")
    };
    for row in [before, beside] {
        assert_eq!((&row["errors"], &row["count"]), (&serde_json::json!({}), &1_000.into()), "{row}");
    }
    assert!(idle["facts"]["relay_cpu_percent"].is_number(), "{idle}");
    assert_eq!(relay.run(&["topics"], "").lines().len(), 1, "what was made is deleted");
    let ended = bench("redis://127.0.0.1:1", "work");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    rows(&relay.url, "publish --connections 2 --keyed");
    let ended = bench(&relay.url, "publish --keyed --mode ws");
    assert_eq!(ended.code, Some(2), "{ended:?}");
}

#[test]
fn publishing_is_measured_in_every_mode() {
    let relay = Relay::start(&[], &[]);
    for mode in ["http", "bulk --batch 10", "ndjson --batch 10", "ws --window 16", "ws-binary --window 16"] {
        let rows = rows(&relay.url, &format!("publish --connections 2 --mode {mode}"));
        assert!(rows[0]["cpu_seconds_per_million"]["relay"].is_number(), "the process is found by its port");
    }
    rows(&relay.url, "publish --connections 2 --topics 5 --payload-bytes 1000");
    assert_eq!(relay.run(&["topics"], "").lines().len(), 1, "only the heading: what was made is deleted");

    rows(&relay.url, "publish --connections 2 --messages 10 --rate 200 --duration 20s");
    let rows = rows(&relay.url, "publish --connections 2 --messages 100 --duration 20s --topic kept");
    assert_eq!(rows[0]["count"], 100);
    assert_eq!(relay.run(&["topics"], "").lines().len(), 2, "a topic that was named stays");
}

#[test]
fn a_fixed_rate_is_kept() {
    let relay = Relay::start(&[], &[]);
    for mode in ["http", "ws"] {
        let rows = rows(&relay.url, &format!("publish --connections 2 --rate 200 --mode {mode}"));
        // 300 ms of 200 a second, whatever the machine did meanwhile.
        let count = rows[0]["count"].as_u64().expect("a number");
        assert!((59..=61).contains(&count), "{mode}: {count}");
    }
}

#[test]
fn every_subscriber_is_checked_over_every_transport() {
    let relay = Relay::start(&[], &[]);
    for transport in ["ws", "ws-binary", "sse", "ndjson"] {
        let fanout = format!("fanout --subscribers 3 --connections 2 --messages 300 --transport {transport}");
        let rows = rows(&relay.url, &fanout);
        assert_eq!(
            (rows[0]["unit"].as_str(), rows[1]["unit"].as_str()),
            (Some("deliveries"), Some("messages"))
        );
        for found in ["lost", "repeated", "disordered", "gaps"] {
            assert_eq!(rows[0][found], 0, "{transport}: {found}");
        }
    }
    let rows = rows(&relay.url, "latency --rate 200 --subscribers 2");
    let count = |row: &Value| row["count"].as_u64().expect("a number");
    assert_eq!(count(&rows[0]), 2 * count(&rows[1]));
}

#[test]
fn keys_limits_and_locks_are_measured() {
    let relay = Relay::start(&[], &[]);
    for workload in ["put", "get", "increment", "take", "basic", "checkpoint", "session", "lock"] {
        let keys = format!("keys --workload {workload} -c 3 --keys 20 --operations 300 --duration 20s");
        let rows = rows(&relay.url, &keys);
        // A lock is handed over from who had it during the warm-up, too.
        let is_whole = (298..=303).contains(&rows[0]["count"].as_u64().expect("a number"));
        assert!(rows.len() == 1 && is_whole, "{workload}: {}", rows[0]);
    }
    for transport in ["sse", "ndjson"] {
        let fanout =
            format!("fanout --keys --subscribers 3 --connections 2 --messages 300 --transport {transport}");
        let rows = rows(&relay.url, &fanout);
        for found in ["lost", "repeated", "disordered", "gaps"] {
            assert_eq!(rows[0][found], 0, "{transport}: {found}");
        }
    }
    assert_eq!(relay.run(&["buckets", "list"], "").lines().len(), 1, "the heading alone: nothing is left");
}

#[test]
fn pages_idle_subscribers_and_topics_are_measured() {
    let relay = Relay::start(&[], &[]);
    assert_eq!(rows(&relay.url, "page --limit 10 --fill 2000 --connections 2").len(), 3);
    let pages = rows(&relay.url, "page --limit 10 --fill 1000,3000 --depths 0.5,1 --connections 1");
    let names = pages.iter().map(|row| row["what"].as_str().expect("a name"));
    assert_eq!(
        names.collect::<Vec<_>>(),
        ["0.5", "1"]
            .map(|depth| ["1000", "3000"].map(|of| format!("page of 10 of {of}, depth {depth}")))
            .concat()
    );
    for pair in pages.chunks(2) {
        let [few, many] = [&pair[0], &pair[1]].map(|row| row["count"].as_u64().expect("a number"));
        assert!(few.abs_diff(many) <= 1, "in turn, and not {few} and {many}");
    }
    for transport in ["ws", "sse"] {
        // One that was just started has no free memory to give them.
        let relay = Relay::start(&[], &[]);
        let rows = rows(&relay.url, &format!("idle --subscribers 500 --transport {transport}"));
        assert_eq!((rows[0]["count"].as_u64(), rows[0]["lost"].as_u64()), (Some(500), Some(0)));
        assert!(rows[0]["facts"]["bytes_per_subscriber"].is_number());
    }
    assert_eq!(rows(&relay.url, "topics --counts 10,150 --rate 200 --connections 2").len(), 4);
}

#[test]
fn another_kind_of_server_is_published_to_on_the_path_that_is_named() {
    let relay = Relay::start(&[], &[]);
    let paths = "--publish-path /api/v1/topics/{topic}/messages --subscribe-path /ws?{topic}";
    rows(&relay.url, &format!("publish --connections 2 --topic plain --messages 10 --duration 20s {paths}"));
    assert_eq!(relay.run(&["topics"], "").lines().len(), 2, "the heading, and the topic");
    let bulk = bench(&relay.url, &format!("publish --mode bulk {paths}"));
    assert!(bulk.error(1).contains("--mode http"), "{bulk:?}");
    assert_eq!(bench(&relay.url, "publish --publish-path /{topic}").code, Some(2), "one path is not enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn bare_servers_are_measured_with_the_same_scenarios() {
    for (kind, scheme) in [(Kind::Redis, "redis"), (Kind::Valkey, "valkey")] {
        let Some(server) = Server::start(kind, &[]).await else { continue };
        let url = format!("{scheme}://127.0.0.1:{}", server.port());
        for mode in ["http", "bulk --batch 10", "ws --window 16"] {
            rows(&url, &format!("publish --connections 2 --mode {mode}"));
        }
        let fanout = rows(&url, "fanout --subscribers 3 --connections 2 --messages 300");
        assert_eq!((fanout[0]["lost"].as_u64(), fanout[0]["disordered"].as_u64()), (Some(0), Some(0)));
        rows(&url, "latency --rate 200");
        for workload in ["basic", "checkpoint", "session"] {
            rows(&url, &format!("keys --workload {workload} --connections 2 --keys 20"));
        }
        assert_eq!(bench(&url, "keys --workload lock").code, Some(2), "a bare server has no locks");
        assert_eq!(rows(&url, "page --limit 10 --fill 2000").len(), 3);
        assert_eq!(bench(&url, "topics").code, Some(2), "a bare server has no topics");
    }
}

#[test]
fn two_relays_are_compared() {
    let (a, b) = (Relay::start(&[], &[]), Relay::start(&[], &[]));
    let compare = format!("compare --a {} --b {} --rounds 2 publish --connections 1", a.url, b.url);
    let report = report("", &compare);
    let targets: Vec<_> = report["runs"].as_array().expect("runs").iter().map(|run| &run["target"]).collect();
    assert_eq!(targets, [&a.url, &b.url, &a.url, &b.url], "in turn");
    for verdict in report["comparison"].as_array().expect("verdicts") {
        let [of_a, of_b, ratio] = ["a", "b", "ratio"].map(|name| verdict[name].as_f64().expect("a number"));
        assert!((of_a / of_b - ratio).abs() < 1e-9, "{verdict}");
        assert!(["a", "b", "none"].contains(&verdict["winner"].as_str().expect("a word")), "{verdict}");
        assert_eq!(verdict["rounds"].as_array().map(Vec::len), Some(2));
    }
    let named = bench("", &format!("compare --a {} --b {} --pid 1 publish", a.url, b.url));
    assert!(named.error(2).contains("--pid"), "{named:?}");
    let mixed = bench("", &format!("compare --a {} --b redis://127.0.0.1:1 publish", a.url));
    assert!(mixed.error(2).contains("cannot be compared"), "{mixed:?}");
}

#[test]
fn relays_are_compared_by_what_the_idle_cost_them() {
    let (a, b) = (Relay::start(&[], &[]), Relay::start(&[], &[]));
    let compare = format!("compare --a {} --b {} --rounds 1 idle --subscribers 200", a.url, b.url);
    let verdicts = report("", &compare)["comparison"].clone();
    let measures: Vec<_> = verdicts.as_array().expect("verdicts").iter().map(|it| &it["measure"]).collect();
    assert_eq!(measures, ["bytes", "p50", "p99"]);
    assert!(verdicts[0]["a"].as_f64() > Some(1_000.0), "{verdicts}");
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let relay = Relay::start(&[], &[]);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("report.html");
    let path = path.to_str().expect("UTF-8");
    report(&relay.url, &format!("latency --rate 200 --html {path}"));
    let page = std::fs::read_to_string(path).expect("the page was written");
    assert!(page.contains("<svg") && page.contains("<polyline") && page.ends_with("</body></html>\n"));
    for part in ["src=", "href=", "@import", "url(", "<script", "<link"] {
        assert!(!page.contains(part), "{part}");
    }
}

#[test]
fn what_fails_is_told_and_ends_with_1() {
    let nobody = bench("http://127.0.0.1:1", "publish");
    assert!(nobody.error(1).contains("cannot connect"), "{nobody:?}");

    let relay = Relay::start(&[("TIDEMILL_PAYLOAD_BYTES_MAX", "1KiB")], &[]);
    let refused = bench(&relay.url, "publish --connections 1 --payload-bytes 300000");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let report: Value = serde_json::from_str(&refused.stdout).expect("JSON, also of what failed");
    let errors = report["runs"][0]["rows"][0]["errors"].as_object().expect("errors");
    assert!(errors.keys().any(|what| what.starts_with("status 413")), "{errors:?}");
}

#[tokio::test]
async fn a_run_that_ends_early_leaves_no_topic_behind() {
    let relay = Relay::start(&[("MAX_MESSAGES_PER_TOPIC", "100")], &[]);
    let topics = || relay.run(&["topics"], "").lines().len() - 1;

    let load = Running::start(
        &[("TIDEMILL_URL", &relay.url)],
        &["bench", "fanout", "--subscribers", "3", "--duration", "60s"],
    );
    eventually(Duration::from_secs(20), async || topics() > 0).await;
    load.interrupt();
    let ended = load.end();
    assert!(ended.error(130).contains("interrupted"), "{ended:?}");
    assert_eq!(topics(), 0);

    let short = bench(&relay.url, "page --fill 5000");
    assert!(short.error(2).contains("MAX_MESSAGES_PER_TOPIC"), "{short:?}");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let nowhere = folder.path().join("none/report.html");
    let unwritten = bench(&relay.url, &format!("publish --html {}", nowhere.display()));
    assert_eq!((unwritten.code, unwritten.stdout.as_str()), (Some(1), ""), "told before the load");
    assert!(unwritten.error(1).contains("--html"), "{unwritten:?}");
    assert_eq!(topics(), 0);
}

#[test]
fn only_this_machine_is_loaded() {
    let remote = bench("http://192.0.2.1:8080", "publish");
    assert!(remote.error(2).contains("--allow-remote"), "{remote:?}");
    for arguments in
        ["publish --payload-bytes 10", "publish --connections 0", "latency --rate 0", "page --depths 2"]
    {
        assert_eq!(bench("http://127.0.0.1:1", arguments).code, Some(2), "{arguments}");
    }
}
