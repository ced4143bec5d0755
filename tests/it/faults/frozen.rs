//! K2: who is frozen for longer than its time, a holder of a lock or the node in front of it, writes nothing any more
//! under the lock.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};
use tidemill::proto::Code;
use tokio_util::task::TaskTracker;

use crate::support::process::Relay;
use crate::support::relay::{Answer, try_send};
use crate::support::server::{Kind, Server};
use crate::support::signals;

const JSON: (&str, &str) = ("content-type", "application/json");

async fn send(node: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let headers = [&[JSON], headers].concat();
    try_send(node, method, path, &headers, body.as_bytes()).await.expect("an answer")
}

async fn node(server: &Server) -> Relay {
    let url = format!("redis://127.0.0.1:{}", server.port());
    Relay::ready_at("127.0.0.1:0", &[("VALKEY_URL", &url), ("STORAGE_BACKEND", "valkey")], &[]).await
}

/// Acquires the locks that guard the bucket and the topic, and returns their fences.
async fn acquire(node: SocketAddr, holder: &str, ttl: &str) -> [String; 2] {
    let mut fences = Vec::new();
    for guards in [json!({"bucket": "flows"}), json!({"topic": "orders"})] {
        let body = json!({"holder": holder, "ttl": ttl, "wait": 20, "guards": guards});
        let granted = send(node, "POST", "/api/v1/locks/writer", &[], &body.to_string()).await;
        assert_eq!(granted.status, 201, "{granted:?}");
        fences.push(granted.json()["fence"].as_str().expect("a fence").to_owned());
    }
    fences.try_into().expect("two")
}

/// Puts a key of the bucket, and publishes to the topic.
async fn write(node: SocketAddr, fences: [String; 2], value: &str) -> [Answer; 2] {
    let [of_bucket, of_topic] = fences.map(|fence| format!("writer={fence}"));
    let put = [("tidemill-fence", &*of_bucket)];
    let publish = [("tidemill-fence", &*of_topic)];
    tokio::join!(
        send(node, "PUT", "/api/v1/keys/flows/a", &put, value),
        send(node, "POST", "/api/v1/topics/orders/messages", &publish, value),
    )
    .into()
}

/// Checks that the last that was written is this, and how many messages there are.
async fn is_last(node: SocketAddr, value: &str, messages: Option<u64>) {
    assert_eq!(send(node, "GET", "/api/v1/keys/flows/a", &[], "").await.text(), value);
    let last = send(node, "GET", "/api/v1/topics/orders/messages?order=desc&limit=1", &[], "").await.json();
    assert_eq!(last["messages"][0]["payload"].to_string(), value, "{last}");
    let topic = send(node, "GET", "/api/v1/topics/orders", &[], "").await.json();
    assert!(messages.is_none_or(|messages| topic["length"] == messages), "{topic}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_a_frozen_node_is_refused_when_its_lock_is_over() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let (frozen, other) = (node(&server).await, node(&server).await);
    let ann = acquire(frozen.address(), "ann", "3s").await;
    for answer in write(frozen.address(), ann.clone(), "1").await {
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    frozen.signal(Signal::STOP);
    let late = TaskTracker::new().spawn(write(frozen.address(), ann, "2"));
    // Its time is over for who waits.
    let bob = acquire(other.address(), "bob", "10m").await;
    for answer in write(other.address(), bob.clone(), "3").await {
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
    }
    assert!(!late.is_finished(), "it is frozen");
    frozen.signal(Signal::CONT);
    for (answer, fence) in late.await.expect("it is answered").into_iter().zip(bob) {
        let problem = answer.problem();
        assert_eq!((problem.code, problem.status), (Code::Fenced, 412), "{answer:?}");
        assert_eq!(json!(problem.fence), json!(fence), "{answer:?}");
    }
    is_last(other.address(), "3", Some(2)).await;
}

/// A process that ends with the test, frozen or not.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Acquires the locks, and then renews them, writes with them, and tells what was answered, until they are lost.
const HOLDER: &str = r#"
import json, sys, time, urllib.error, urllib.request
url = sys.argv[1]
def ask(method, path, body, **headers):
    headers = {"content-type": "application/json", **headers}
    request = urllib.request.Request(url + path, json.dumps(body).encode(), headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read() or "null")
    except urllib.error.HTTPError as refused:
        return refused.code, json.loads(refused.read())
locks = [ask("POST", "/api/v1/locks/writer", {"holder": "ann", "ttl": "3s", "guards": guards})[1]
         for guards in ({"bucket": "flows"}, {"topic": "orders"})]
fences = [{"tidemill-fence": "writer=" + lock["fence"]} for lock in locks]
number = 0
while True:
    number += 1
    put, put_problem = ask("PUT", "/api/v1/keys/flows/a", number, **fences[0])
    publish, publish_problem = ask("POST", "/api/v1/topics/orders/messages", number, **fences[1])
    print(json.dumps([put, publish, put_problem.get("code"), publish_problem.get("code")]), flush=True)
    if put >= 400 or publish >= 400:
        break
    ask("POST", "/api/v1/locks/renew", {"renewals": [
        {"name": "writer", "token": lock["token"], "ttl": "3s"} for lock in locks]})
    time.sleep(0.05)
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_was_frozen_for_longer_than_its_time_is_refused() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let relay = node(&server).await;
    let mut command = Command::new("python3");
    command.args(["-c", HOLDER, &relay.url]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut holder = Ending(command.spawn().expect("there is a python3"));
    let mut lines = BufReader::new(holder.0.stdout.take().expect("it was asked for")).lines();
    let mut next = move || -> Value {
        let line = lines.next().expect("it goes on until it is refused").expect("UTF-8");
        serde_json::from_str(&line).expect("JSON")
    };
    // It holds its locks for longer than one time.
    for _ in 0..30 {
        let told = next();
        assert!(told[0].as_u64() < Some(300) && told[1] == 201, "{told}");
    }
    signals::send(&holder.0, Signal::STOP);
    let bob = acquire(relay.address(), "bob", "10m").await;
    for answer in write(relay.address(), bob, "\"bob\"").await {
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
    }
    signals::send(&holder.0, Signal::CONT);
    // What it had sent before it froze may be told first.
    let refused = tokio::task::spawn_blocking(move || {
        loop {
            let told = next();
            if told[2] == "fenced" || told[3] == "fenced" {
                return told;
            }
            assert!(told[0].as_u64() < Some(300) && told[1] == 201, "{told}");
        }
    });
    let refused = refused.await.expect("it is told");
    assert_eq!(refused[1], 412, "{refused}");
    assert!(holder.0.wait().expect("it ends").success());
    is_last(relay.address(), "\"bob\"", None).await;
}
