//! Clients that take their time: to send, to read, to go away. None holds the relay up, and good
//! clients do not notice.

use std::time::Duration;

use tidemill::proto::Code;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::support::eventually;
use crate::support::relay::{Answer, TestRelay, memory, read_to_end};

const SHORT: Duration = Duration::from_millis(300);
/// Well past every short time, and well before anything else would end a connection.
const SOON: Duration = Duration::from_secs(5);

async fn start() -> TestRelay {
    TestRelay::start_with(memory(), |options| {
        options.header_timeout = SHORT;
        options.write_timeout = SHORT;
        options.http.body_timeout = SHORT;
    })
    .await
}

/// Sends `bytes` one by one, slowly, until the relay hangs up or they are over.
async fn drip(mut stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    let (mut read, mut write) = stream.split();
    let mut all = Vec::new();
    let dripping = async {
        let mut ticks = interval(SHORT / 10);
        for byte in bytes.iter().cycle() {
            ticks.tick().await;
            if write.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    };
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut all);
    tokio::select! {
        () = dripping => {}
        _ = reading => {}
    }
    all
}

#[tokio::test]
async fn a_head_that_drips_ends_in_time() {
    let relay = start().await;
    let started = Instant::now();
    let slow: Vec<_> =
        (0..50).map(|_| async { drip(relay.connect().await, b"GET /health HTTP/1.1x").await }).collect();
    let good = async {
        eventually(SOON, || async { relay.get("/health").await.status == 200 }).await;
    };
    tokio::join!(futures_util::future::join_all(slow), good);
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    relay.stop().await;
}

/// How many clients are slow at one time, and how long they are left to it.
const SLOW_CLIENTS: usize = 600;
const PATIENCE: Duration = Duration::from_millis(1_500);

/// What a slow client sends: nothing, a head that never ends, or a body that never ends.
fn slow_start(number: usize) -> &'static [u8] {
    match number % 3 {
        0 => b"",
        1 => b"GET /health HTTP/1.1\r\nhost: relay\r\nx-never-ends: ",
        _ => b"POST /api/v1/topics/slow/messages HTTP/1.1\r\nhost: relay\r\ncontent-length: 1000000\r\n\r\n",
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_clients_are_served_fast_beside_hundreds_of_slow_ones() {
    let relay = TestRelay::start_with(memory(), |options| {
        options.header_timeout = PATIENCE;
        options.http.body_timeout = PATIENCE;
    })
    .await;
    let mut slow = JoinSet::new();
    for number in 0..SLOW_CLIENTS {
        let mut stream = relay.connect().await;
        slow.spawn(async move {
            stream.write_all(slow_start(number)).await.expect("written");
            let mut ticks = interval(PATIENCE / 5);
            let (mut read, mut write) = stream.split();
            let dripping = async {
                loop {
                    ticks.tick().await;
                    if number % 3 > 0 && write.write_all(b"x").await.is_err() {
                        break;
                    }
                }
            };
            let mut all = Vec::new();
            tokio::select! {
                () = dripping => {}
                _ = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut all) => {}
            }
        });
    }
    let started = Instant::now();
    let mut times = Vec::new();
    while times.len() < 100 || !slow.is_empty() {
        let began = Instant::now();
        assert_eq!(relay.post("/api/v1/topics/good/messages", "1").await.status, 201);
        times.push(began.elapsed());
        while slow.try_join_next().is_some() {}
        assert!(started.elapsed() < SOON, "{} slow clients are still there", slow.len());
    }
    times.sort_unstable();
    let (median, late) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    eprintln!("{} publishes beside {SLOW_CLIENTS} slow clients: {median:?}, 99 % in {late:?}", times.len());
    assert!(median < Duration::from_millis(50) && late < Duration::from_millis(500), "{median:?}, {late:?}");
    eventually(SOON, || async {
        relay.get("/metrics").await.text().contains("\ntidemill_http_connections 1\n")
    })
    .await;
    relay.stop().await;
}

#[tokio::test]
async fn a_silent_connection_ends_in_time() {
    let relay = start().await;
    let mut stream = relay.connect().await;
    let started = Instant::now();
    assert_eq!(read_to_end(&mut stream).await, b"");
    assert!(started.elapsed() < SOON);
    relay.stop().await;
}

#[tokio::test]
async fn a_body_that_never_ends_is_told_so() {
    let relay = start().await;
    let head = "POST /api/v1/topics/slow/messages HTTP/1.1\r\nhost: relay\r\ncontent-type: text/plain\r\n";
    for framing in ["content-length: 1000\r\n\r\n", "transfer-encoding: chunked\r\n\r\n"] {
        let mut stream = relay.connect().await;
        stream.write_all(format!("{head}{framing}").as_bytes()).await.expect("written");
        let started = Instant::now();
        // Each chunk is one byte: progress alone does not extend the time.
        let answer = Answer::parse(&drip(stream, b"1\r\nx\r\n").await);
        assert!(started.elapsed() < SOON);
        let problem = answer.problem();
        assert_eq!((answer.status, problem.code), (408, Code::RequestTimeout));
        assert!(problem.detail.contains("TIDEMILL_BODY_TIMEOUT_MS"), "{}", problem.detail);
        assert_eq!(answer.header("connection"), Some("close"));
    }
    assert_eq!(relay.get("/api/v1/topics/slow").await.status, 404, "nothing was changed");
    relay.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let relay = start().await;
    let path = "/api/v1/topics/unread/messages";
    let body = format!("\"{}\"", "x".repeat(1_000_000));
    for _ in 0..8 {
        let answer = relay.send("POST", path, &[("content-type", "application/json")], body.as_bytes()).await;
        assert_eq!(answer.status, 201);
    }
    // Far more answers than the buffers of both machines' sockets take.
    let mut stream = relay.connect().await;
    let request = format!("GET {path}?limit=1000 HTTP/1.1\r\nhost: relay\r\n\r\n");
    stream.write_all(request.repeat(10).as_bytes()).await.expect("written");
    eventually(SOON, || async {
        let metrics = relay.get("/metrics").await;
        let text = metrics.text();
        text.contains("\ntidemill_http_connections 1\n")
            && text.contains("\ntidemill_http_inflight_body_bytes 0\n")
    })
    .await;
    relay.stop().await;
}

#[tokio::test]
async fn connections_are_capped_and_the_refusal_says_why() {
    let relay = TestRelay::start_with(memory(), |options| options.connections_per_address_max = 3).await;
    let held = [relay.connect().await, relay.connect().await, relay.connect().await];
    let back = relay.raw(b"").await;
    let answer = Answer::parse(&back);
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    let problem: tidemill::proto::Problem = serde_json::from_slice(&answer.body).expect("a problem document");
    assert_eq!(problem.code, Code::Overloaded);
    assert!(problem.detail.contains("TIDEMILL_CONNECTIONS_PER_ADDRESS_MAX"), "{}", problem.detail);
    drop(held);
    eventually(SOON, || async {
        let back = relay.raw(b"GET /health HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\n").await;
        Answer::parse(&back).status == 200
    })
    .await;
    relay.stop().await;
}

#[tokio::test]
async fn what_was_done_and_finds_no_room_for_its_answer_says_so() {
    const MESSAGES: usize = 1_000;

    let relay = TestRelay::start_with(memory(), |options| options.http.inflight_bytes_max = 512 * 1024).await;
    let head = "POST /api/v1/topics/t/messages HTTP/1.1\r\nhost: relay\r\ncontent-length: 480000\r\n\r\nx";
    let mut sender = relay.connect().await;
    sender.write_all(head.as_bytes()).await.expect("written");
    eventually(SOON, || async {
        !relay.get("/metrics").await.text().contains("\ntidemill_http_inflight_body_bytes 0\n")
    })
    .await;
    let messages = vec![r#"{"topic":"many","payload":1}"#; MESSAGES].join(",");
    let body = format!(r#"{{"messages":[{messages}]}}"#);
    let json = [("content-type", "application/json")];
    let answer = relay.send("POST", "/api/v1/messages/bulk", &json, body.as_bytes()).await;
    let problem = answer.problem();
    assert_eq!((answer.status, problem.code), (504, Code::OutcomeUnknown));
    assert!(problem.detail.contains("it was done"), "{}", problem.detail);
    let minimal = [json[0], ("prefer", "return=minimal")];
    let answer = relay.send("POST", "/api/v1/messages/bulk", &minimal, body.as_bytes()).await;
    assert_eq!(answer.status, 207, "less of it finds room");
    let page = relay.get("/api/v1/topics/many/messages?limit=1000&order=asc").await;
    assert_eq!(
        (page.status, page.problem().code),
        (503, Code::Overloaded),
        "what only asks has done nothing"
    );
    drop(sender);
    let topic = relay.get("/api/v1/topics/many").await.json();
    assert_eq!(topic["length"], 2 * MESSAGES);
    relay.stop().await;
}

#[tokio::test]
async fn bodies_under_way_share_a_budget() {
    let relay = TestRelay::start_with(memory(), |options| options.http.inflight_bytes_max = 512 * 1024).await;
    let head = "POST /api/v1/topics/budget/messages HTTP/1.1\r\nhost: relay\r\ncontent-length: 300000\r\nconnection: close\r\n\r\n";
    let mut first = relay.connect().await;
    first.write_all(head.as_bytes()).await.expect("written");
    first.write_all(b"x").await.expect("written");
    eventually(SOON, || async {
        !relay.get("/metrics").await.text().contains("\ntidemill_http_inflight_body_bytes 0\n")
    })
    .await;
    let body = vec![b'x'; 300_000];
    let refused = relay.send("POST", "/api/v1/topics/budget/messages", &[], &body).await;
    assert_eq!((refused.status, refused.problem().code), (503, Code::Overloaded));
    let small = relay.send("POST", "/api/v1/topics/budget/messages", &[], b"small").await;
    assert_eq!(small.status, 201, "small bodies pass");
    first.write_all(&body[1..]).await.expect("written");
    assert_eq!(Answer::parse(&read_to_end(&mut first).await).status, 201);
    let again = relay.send("POST", "/api/v1/topics/budget/messages", &[], &body).await;
    assert_eq!(again.status, 201, "what was held came back");
    relay.stop().await;
}
