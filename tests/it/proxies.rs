//! Behind the proxies of `docs/proxies.md`, with what stands there: programs and pages connect, resume and are
//! refused as they are without a proxy.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Error;

use crate::access::closed::{close, log_in};
use crate::browser::console;
use crate::support::eventually;
use crate::support::relay::{Answer, STUCK, TestRelay, memory, try_send};
use crate::support::server::free_port;
use crate::support::ws::{Got, WsClient};

mod doctor;

/// In what time something that a stream has must come through.
const SOON: Duration = Duration::from_secs(3);

/// A kind of proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nginx,
    Caddy,
    Haproxy,
}

fn page() -> String {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/proxies.md"));
    page.expect("the page is in the repository")
}

/// Returns what stands behind a mark, up to the end of its block.
fn block<'a>(page: &'a str, mark: &str) -> &'a str {
    let (_, rest) = page.split_once(mark).expect("the page has such a block");
    rest.split("```").next().expect("it ends")
}

/// A proxy that runs. Dropping it ends it.
struct Running {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Caddy => "caddy",
            Self::Haproxy => "haproxy",
        }
    }

    /// Returns the binary, or `None` (with a line on standard error) where there is none.
    fn find(self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH")?;
        // Debian keeps servers where not every user looks.
        let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
        let found = folders.map(|folder| folder.join(self.name())).find(|file| file.is_file());
        if found.is_none() {
            let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!in_ci, "{} is not found: in CI a skipped test is a failure", self.name());
            eprintln!("skipped: {} is not on the PATH", self.name());
        }
        found
    }

    /// Returns what the document says of this proxy.
    fn snippet(self) -> String {
        let page = page();
        let mark = match self {
            Self::Nginx => "```nginx proxy\n",
            Self::Caddy => "```caddyfile proxy\n",
            Self::Haproxy => "```haproxy proxy\n",
        };
        block(&page, mark).to_owned()
    }

    /// Starts a proxy with a snippet of settings, in front of a relay.
    async fn start(self, snippet: &str, relay: SocketAddr) -> Option<Running> {
        let binary = self.find()?;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (port, here) = (address.port(), folder.path().display());
        let snippet = snippet.replace("127.0.0.1:8080", &relay.to_string());
        // What a machine has around the snippet, and in it the port of this test.
        let (settings, arguments): (String, &[&str]) = match self {
            Self::Nginx => {
                let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
                let paths = paths.map(|name| format!("{name}_temp_path {here}/{name};")).concat();
                let snippet = snippet.replace("listen 80;", &format!("listen {address};"));
                let around = "daemon off; master_process off; error_log stderr; events {}";
                let pid = format!("pid {here}/pid;");
                (format!("{around} {pid} http {{ access_log off; {paths} {snippet} }}"), &["-c"])
            }
            Self::Caddy => {
                let options = format!(
                    "{{\n admin off\n auto_https off\n default_bind 127.0.0.1\n storage file_system {here}\n}}\n"
                );
                let site = format!("http://:{port}");
                (
                    options + &snippet.replace("relay.example.com", &site),
                    &["run", "--adapter", "caddyfile", "--config"],
                )
            }
            Self::Haproxy => (snippet.replace("bind :80", &format!("bind {address}")), &["-db", "-f"]),
        };
        let file = folder.path().join("settings");
        fs::write(&file, settings).expect("the folder is ours");
        let mut command = Command::new(binary);
        command.args(arguments).arg(&file).env("HOME", folder.path()).env("XDG_DATA_HOME", folder.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let running = Running { child: child.expect("it can be run"), address, _folder: folder };
        eventually(STUCK, async || TcpStream::connect(address).is_ok()).await;
        Some(running)
    }
}

async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    try_send(address, method, path, headers, body).await.expect("an answer")
}

async fn publish(address: SocketAddr, payload: &[u8]) -> String {
    let json = [("content-type", "application/json")];
    let answer = send(address, "POST", "/api/v1/topics/t/messages", &json, payload).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.header("x-request-id").expect("the relay's own header");
    let id = serde_json::from_slice::<Value>(&unchunked(&answer)).expect("JSON")["message_id"].clone();
    id.as_str().expect("an id").to_owned()
}

/// Returns a body without what frames it.
fn unchunked(answer: &Answer) -> Vec<u8> {
    if answer.header("transfer-encoding") != Some("chunked") {
        return answer.body.clone();
    }
    let text = String::from_utf8_lossy(&answer.body);
    let (start, end) = (text.find(['{', '[']).unwrap_or(0), text.rfind(['}', ']']).map_or(0, |at| at + 1));
    text[start..end].as_bytes().to_vec()
}

/// A stream as it comes.
struct Following {
    response: reqwest::Response,
    text: String,
}

impl Following {
    async fn begin(address: SocketAddr, accept: &str, query: &str, resume: Option<&str>) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let url = format!("http://{address}/api/v1/topics/t/messages{query}");
        let mut request = http.get(url).header("accept", accept);
        if let Some(id) = resume {
            request = request.header("last-event-id", id);
        }
        let response = timeout(STUCK, request.send()).await.expect("in time").expect("an answer");
        assert_eq!(response.status(), 200);
        Self { response, text: String::new() }
    }

    /// Waits until a text has come, which nothing may hold back.
    async fn has(&mut self, text: &str) {
        while !self.text.contains(text) {
            let chunk = timeout(SOON, self.response.chunk()).await;
            let chunk = chunk.unwrap_or_else(|_| panic!("{text:?} is held back behind {:?}", self.text));
            let chunk = chunk.expect("no reset").expect("the stream goes on");
            self.text.push_str(&String::from_utf8_lossy(&chunk));
        }
    }
}

/// What programs do that speak HTTP alone.
async fn programs_publish_read_and_follow(address: SocketAddr) {
    let first = publish(address, b"\"one\"").await;
    let page = send(address, "GET", "/api/v1/topics/t/messages?after=earliest", &[], b"").await;
    assert!(page.text().contains(r#""payload":"one""#), "{page:?}");
    let refused = send(address, "GET", "/api/v1/topics/nowhere", &[], b"").await;
    assert_eq!((refused.status, refused.header("content-type")), (404, Some("application/problem+json")));
    assert!(refused.text().contains("topic_not_found"), "{refused:?}");
    for accept in ["text/event-stream", "application/x-ndjson"] {
        let mut stream = Following::begin(address, accept, "?after=earliest", None).await;
        stream.has(&first).await;
        let second = publish(address, b"\"two\"").await;
        stream.has(&second).await;
        drop(stream);
        let mut resumed = Following::begin(address, accept, "", Some(&first)).await;
        resumed.has(&second).await;
        assert!(!resumed.text.contains(r#""payload":"one""#), "{}", resumed.text);
        let third = publish(address, b"\"three\"").await;
        resumed.has(&third).await;
    }
}

/// What else works where nothing stands between.
async fn pages_and_programs_connect_and_are_refused(address: SocketAddr) {
    programs_publish_read_and_follow(address).await;
    let lines = "\"line\"\n".repeat(400_000);
    let ndjson = [("content-type", "application/x-ndjson")];
    let many = send(address, "POST", "/api/v1/topics/t/messages", &ndjson, lines.as_bytes()).await;
    // More lines than one request may have: the relay says so itself, having read them.
    assert_eq!(many.status, 413, "{many:?}");
    assert!(many.text().contains("too_large"), "{many:?}");

    let own = format!("http://{address}");
    for headers in [&[][..], &[("origin", own.as_str())]] {
        let mut client = WsClient::connect_with(address, headers).await.expect("an upgrade");
        client.subscribe("t", "latest").await;
        let frame = r#"{"type":"publish","topic":"t","payload":"by frame","ref":"1"}"#;
        client.send(frame).await;
        let mut seen = [false; 2];
        while seen != [true; 2] {
            let frame = client.frame().await;
            match frame["type"].as_str() {
                Some("published") => seen[0] = true,
                Some("message") => seen[1] = true,
                _ => panic!("{frame}"),
            }
        }
        client.close().await;
    }
    let evil = WsClient::connect_with(address, &[("origin", "https://evil.example")]).await;
    assert!(matches!(evil, Err(Error::Http(response)) if response.status() == 403));

    // A reader resumes by the cursor that it was told.
    let cursor = publish(address, b"\"before\"").await;
    let after = publish(address, b"\"after\"").await;
    let mut client = WsClient::connect(address).await;
    client.subscribe("t", &cursor).await;
    assert!(matches!(client.got().await, Got::Message(id, _) if id.to_string() == after));
    client.close().await;
}

/// Whoever asks once and goes has what it was told, whatever the proxy does with its own connection then.
async fn what_is_handed_out_stays(address: SocketAddr) {
    let json = [("content-type", "application/json")];
    let ask = async |method: &str, path: &str, body: &str| {
        let answer = send(address, method, path, &json, body.as_bytes()).await;
        (answer.status, serde_json::from_slice::<Value>(&unchunked(&answer)).unwrap_or_default())
    };
    let group = "/api/v1/topics/handed/groups/g";
    assert_eq!(ask("PUT", group, r#"{"ack_wait":"10m"}"#).await.0, 201);
    for round in 0..5 {
        assert_eq!(ask("POST", "/api/v1/topics/handed/messages", "1").await.0, 201);
        let (_, held) = ask("POST", &format!("{group}/claim"), r#"{"consumer":"first"}"#).await;
        let lock = format!("/api/v1/locks/handed-{round}");
        let (status, _) = ask("POST", &lock, r#"{"holder":"first","ttl":"10m"}"#).await;
        assert_eq!(status, 201);
        let (_, other) =
            ask("POST", &format!("{group}/claim"), r#"{"consumer":"other","wait":"300ms"}"#).await;
        assert_eq!(other["messages"], serde_json::json!([]), "{round}");
        assert_eq!(ask("POST", &lock, r#"{"holder":"other","ttl":"10m"}"#).await.0, 409, "{round}");
        let receipts = serde_json::json!({"receipts": [held["messages"][0]["receipt"]]}).to_string();
        let (_, acked) = ask("POST", "/api/v1/work/ack", &receipts).await;
        assert_eq!(acked["results"][0]["status"], "acked", "{round}: {acked}");
    }
}

async fn all_is_as_without_a_proxy(kind: Kind) {
    let relay = TestRelay::start(memory()).await;
    if let Some(proxy) = kind.start(&kind.snippet(), relay.address).await {
        what_is_handed_out_stays(proxy.address).await;
        pages_and_programs_connect_and_are_refused(proxy.address).await;
    }
    relay.stop().await;
}

#[tokio::test]
async fn without_a_proxy() {
    let relay = TestRelay::start(memory()).await;
    pages_and_programs_connect_and_are_refused(relay.address).await;
    relay.stop().await;
}

#[tokio::test]
async fn behind_nginx() {
    all_is_as_without_a_proxy(Kind::Nginx).await;
}

#[tokio::test]
async fn behind_caddy() {
    all_is_as_without_a_proxy(Kind::Caddy).await;
}

#[tokio::test]
async fn behind_haproxy() {
    all_is_as_without_a_proxy(Kind::Haproxy).await;
}

#[tokio::test]
async fn programs_behind_nginx_as_it_comes() {
    let relay = TestRelay::start(memory()).await;
    let alone = "server { listen 80; location / { proxy_pass http://127.0.0.1:8080; } }";
    if let Some(proxy) = Kind::Nginx.start(alone, relay.address).await {
        programs_publish_read_and_follow(proxy.address).await;
    }
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_console_below_a_path_behind_nginx() {
    let relay = TestRelay::start_with(memory(), close).await;
    log_in(&relay, "root").await;
    let path = "location /relay/ { proxy_pass http://127.0.0.1:8080/; proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_buffering off; }";
    let below = format!("server {{ listen 80; {path} }}");
    if let Some(proxy) = Kind::Nginx.start(&below, relay.address).await {
        console::is_used_at(&format!("http://{}/relay/console/", proxy.address)).await;
    }
    relay.stop().await;
}

#[tokio::test]
async fn behind_haproxy_a_relay_that_ends_takes_nothing_along() {
    let [first, second] = [TestRelay::start(memory()).await, TestRelay::start(memory()).await];
    let page = page();
    let (front, alone) = (Kind::Haproxy.snippet(), "backend relay\n    server node 127.0.0.1:8080\n");
    assert!(front.ends_with(alone), "{front}");
    let both = block(&page, "```haproxy relays\n").replace("127.0.0.1:8081", &second.address.to_string());
    let snippet = front.replace(alone, &both);
    let Some(proxy) = Kind::Haproxy.start(&snippet, first.address).await else { return };
    // Each has some of the messages, since they are in the memory of each.
    for _ in 0..20 {
        publish(proxy.address, b"\"message\"").await;
    }
    for relay in [&first, &second] {
        let page = send(relay.address, "GET", "/api/v1/topics/t/messages?after=earliest", &[], b"").await;
        assert!(page.text().contains("message_id"), "{page:?}");
    }
    let mut client = WsClient::connect(proxy.address).await;
    client.subscribe("t", "latest").await;
    first.stop().await;
    for _ in 0..20 {
        publish(proxy.address, b"\"message\"").await;
    }
    drop(client);
    second.stop().await;
}
