//! Keys behind a URL: how often it is asked, what it may answer, and what stays when it does not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use rustls::pki_types::PrivateKeyDer;
use tidemill::access::{Issuer, Issuers, Refusal, Verdict};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::signer::{Signer, payload, set};
use super::{ISSUER, now};
use crate::support::eventually;

/// How long an answer over this machine's own network may take.
const SOON: Duration = Duration::from_secs(10);

/// Longer than the pause between two fetches, and than the usual time between them.
const PAUSE: Duration = Duration::from_secs(61);
const LONG: Duration = Duration::from_secs(601);

/// What a server answers.
#[derive(Clone)]
pub(super) enum Answer {
    /// The whole of an answer.
    Bytes(Vec<u8>),
    /// This, once somebody says so.
    Held(Arc<Notify>, Box<Answer>),
    /// Nothing, while the connection stays open.
    Silence,
    /// Something, for ever.
    Endless,
}

/// A server of keys, with what it has been asked.
pub(super) struct KeyServer {
    pub(super) address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<Mutex<Vec<String>>>,
    over: CancellationToken,
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.over.cancel();
    }
}

pub(super) fn ok(body: &str) -> Answer {
    with_headers("", body)
}

fn with_headers(headers: &str, body: &str) -> Answer {
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{headers}connection: close\r\n\r\n", body.len());
    Answer::Bytes((head + body).into_bytes())
}

impl KeyServer {
    pub(super) async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            answer: Arc::new(Mutex::new(answer)),
            asked: Arc::default(),
            over: CancellationToken::new(),
        };
        let (answer, asked, over) =
            (Arc::clone(&server.answer), Arc::clone(&server.asked), server.over.clone());
        let tracker = TaskTracker::new();
        let on = tracker.clone();
        tracker.spawn(over.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
                on.spawn(over.clone().run_until_cancelled_owned(async move {
                    // Whoever asks may leave.
                    let _ = serve(stream, &answer, &asked).await;
                }));
            }
        }));
        server
    }

    pub(super) fn answers(&self, answer: Answer) {
        *self.answer.lock() = answer;
    }

    pub(super) fn asked(&self) -> usize {
        self.asked.lock().len()
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }
}

async fn serve(
    mut stream: TcpStream,
    answer: &Mutex<Answer>,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    asked.lock().push(String::from_utf8_lossy(&head).into_owned());
    let mut answer = answer.lock().clone();
    while let Answer::Held(go, held) = answer {
        go.notified().await;
        answer = *held;
    }
    match answer {
        Answer::Bytes(bytes) => stream.write_all(&bytes).await?,
        Answer::Silence | Answer::Held(..) => std::future::pending().await,
        Answer::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
            loop {
                stream.write_all(b"10\r\n                \r\n").await?;
            }
        }
    }
    stream.shutdown().await
}

/// Who takes tokens of an issuer whose keys are behind a URL.
struct Relay {
    issuers: Issuers,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Relay {
    fn start(url: &str) -> Self {
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let issuer = Issuer::parse(&format!("{ISSUER};aud=tidemill;jwks={url}")).unwrap();
        let issuers = Issuers::start(vec![issuer], &tracker, &stop).unwrap();
        Self { issuers, tracker, stop }
    }

    /// Starts, and waits until the keys of a server are here.
    async fn with_keys(server: &KeyServer) -> Self {
        let relay = Self::start(&server.url());
        relay.until(|relay| relay.keys() > 0).await;
        assert_eq!(server.asked(), 1);
        relay
    }

    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        eventually(SOON, || async { holds(self) }).await;
    }

    fn keys(&self) -> usize {
        self.issuers.states()[0].keys
    }

    fn failure(&self) -> Option<String> {
        self.issuers.states()[0].failure.clone()
    }

    fn takes(&self, token: &str) -> bool {
        matches!(self.issuers.verify(token, now()), Verdict::Verified(_))
    }

    async fn check(&self, token: &str) -> Result<(), Refusal> {
        self.issuers.check(token, now()).await.map(drop)
    }

    async fn end(self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn an_unknown_key_is_asked_for_at_most_once_a_minute() {
    let (old, new) = (Signer::curve("old"), Signer::edwards("new"));
    let [of_old, of_new] = [&old, &new].map(|signer| signer.sign(&payload()));
    let server = KeyServer::start(ok(&set(&[&old]))).await;
    let relay = Relay::with_keys(&server).await;
    assert_eq!(relay.check(&of_old).await, Ok(()));
    assert_eq!(server.asked(), 1);

    // It was asked a moment ago, so nobody asks again, however many tokens come.
    server.answers(ok(&set(&[&old, &new])));
    for number in 0..20 {
        assert_eq!(relay.check(&of_new).await, Err(Refusal::Key));
        let made_up = Signer::edwards(&format!("made-up-{number}"));
        assert_eq!(relay.check(&made_up.sign(&payload())).await, Err(Refusal::Key));
    }
    assert_eq!(server.asked(), 1);
    assert_eq!(relay.check(&of_old).await, Ok(()));

    // A minute later one of many asks, and all of them have the answer.
    pass(PAUSE).await;
    let outcomes = join_all((0..50).map(|_| relay.check(&of_new))).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(server.asked(), 2);
    assert_eq!(relay.check(&of_old).await, Ok(()));

    // An old key that its issuer has withdrawn is forgotten, with what was remembered of it.
    server.answers(ok(&set(&[&new])));
    pass(LONG).await;
    relay.until(|relay| !relay.takes(&of_old)).await;
    assert!(relay.takes(&of_new));
    assert_eq!(server.asked(), 3);
    assert_eq!(relay.check(&of_old).await, Err(Refusal::Key));
    assert_eq!(server.asked(), 3);
    let head = server.asked.lock()[0].to_ascii_lowercase();
    assert!(
        head.starts_with("get /keys http/1.1\r\n") && head.contains("accept: application/json"),
        "{head}"
    );
    relay.end().await;
}

#[tokio::test]
async fn whoever_leaves_does_not_end_the_fetch_of_the_others() {
    let (old, new) = (Signer::curve("old"), Signer::edwards("new"));
    let of_new = new.sign(&payload());
    let server = KeyServer::start(ok(&set(&[&old]))).await;
    let relay = Relay::with_keys(&server).await;
    let go = Arc::new(Notify::new());
    server.answers(Answer::Held(Arc::clone(&go), Box::new(ok(&set(&[&new])))));
    pass(PAUSE).await;
    for _ in 0..5 {
        let mut leaving = Box::pin(relay.check(&of_new));
        assert!(futures_util::poll!(&mut leaving).is_pending(), "the answer has not come");
    }
    eventually(SOON, || async { server.asked() == 2 }).await;
    go.notify_one();
    relay.until(|relay| relay.takes(&of_new)).await;
    assert_eq!(server.asked(), 2);
    relay.end().await;
}

/// Whoever stops does not wait for a server.
#[tokio::test]
async fn a_fetch_ends_with_the_relay() {
    let server = KeyServer::start(Answer::Silence).await;
    let relay = Relay::start(&server.url());
    eventually(SOON, || async { server.asked() == 1 }).await;
    let begin = Instant::now();
    relay.end().await;
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_server_that_says_how_long_its_keys_are_good_for_is_asked_in_time() {
    let (old, new) = (Signer::curve("old"), Signer::edwards("new"));
    let of_new = new.sign(&payload());
    for (header, is_early) in [
        ("cache-control: public, max-age=120\r\n", true),
        // Never more than once a minute, and never as seldom as somebody likes.
        ("cache-control: max-age=0\r\n", true),
        ("cache-control: max-age=99999999\r\n", false),
        ("", false),
    ] {
        let server = KeyServer::start(with_headers(header, &set(&[&old]))).await;
        let relay = Relay::with_keys(&server).await;
        server.answers(ok(&set(&[&new])));
        pass(Duration::from_secs(55)).await;
        assert!(!relay.takes(&of_new));
        assert_eq!(server.asked(), 1, "{header}");
        pass(Duration::from_secs(70)).await;
        if is_early {
            relay.until(|relay| relay.takes(&of_new)).await;
        } else {
            assert_eq!(server.asked(), 1, "{header}");
            pass(LONG).await;
            relay.until(|relay| relay.takes(&of_new)).await;
        }
        assert_eq!(server.asked(), 2, "{header}");
        relay.end().await;
    }
}

#[tokio::test]
async fn what_is_no_set_of_keys_leaves_the_old_ones() {
    let signer = Signer::curve("e");
    let token = signer.sign(&payload());
    let secret = Signer::secret("s");
    let elsewhere = KeyServer::start(ok(&set(&[&Signer::edwards("other")]))).await;
    let redirect = |status: &str| {
        let head = format!(
            "HTTP/1.1 {status}\r\nlocation: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            elsewhere.url()
        );
        Answer::Bytes(head.into_bytes())
    };
    let too_large = format!("{{\"keys\": [], \"more\": \"{}\"}}", "x".repeat(2 * 1024 * 1024));
    let answers = [
        (ok("nonsense"), "neither PEM nor JSON"),
        (ok(""), "neither PEM nor JSON"),
        (ok("{\"keys\": []}"), "none of its keys"),
        (ok("{\"keys\": {}}"), "neither a JWK nor a set"),
        (ok("<html></html>"), "neither PEM nor JSON"),
        // A secret that everybody can read is none.
        (ok(&set(&[&secret])), "none of its keys"),
        (ok(&too_large), "larger than 1 MiB"),
        (Answer::Endless, "larger than 1 MiB"),
        (redirect("301 Moved Permanently"), "status 301; redirects are not followed"),
        (redirect("302 Found"), "status 302"),
        (redirect("307 Temporary Redirect"), "status 307"),
        (
            Answer::Bytes(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec()),
            "status 500",
        ),
        (
            Answer::Bytes(
                b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec(),
            ),
            "status 404",
        ),
        (Answer::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{".to_vec()), "cannot be fetched"),
        (Answer::Bytes(b"\x16\x03\x01garbage\r\n\r\n".to_vec()), "cannot be fetched"),
        (Answer::Bytes(Vec::new()), "cannot be fetched"),
    ];
    let server = KeyServer::start(ok(&set(&[&signer]))).await;
    let relay = Relay::with_keys(&server).await;
    for (answer, told) in answers {
        server.answers(answer);
        let before = server.asked();
        pass(LONG).await;
        let is_told = |relay: &Relay| relay.failure().is_some_and(|failure| failure.contains(told));
        eventually(SOON, || async { server.asked() == before + 1 }).await;
        eventually(SOON, || async { is_told(&relay) }).await;
        assert!(relay.takes(&token) && relay.keys() == 1, "{told}");
    }
    assert_eq!(elsewhere.asked(), 0, "a redirect is not followed");
    server.answers(ok(&set(&[&signer])));
    pass(PAUSE).await;
    relay.until(|relay| relay.failure().is_none()).await;
    relay.end().await;
}

#[tokio::test]
async fn a_slow_server_is_waited_for_for_five_seconds() {
    let (old, new) = (Signer::curve("old"), Signer::edwards("new"));
    let [of_old, of_new] = [&old, &new].map(|signer| signer.sign(&payload()));
    let server = KeyServer::start(ok(&set(&[&old]))).await;
    let relay = Relay::with_keys(&server).await;
    server.answers(Answer::Silence);
    pass(PAUSE).await;
    let begin = Instant::now();
    let outcomes = join_all((0..20).map(|_| relay.check(&of_new))).await;
    let took = begin.elapsed();
    assert!(outcomes.iter().all(|outcome| *outcome == Err(Refusal::Key)), "{outcomes:?}");
    assert!(took >= Duration::from_millis(4_900) && took < Duration::from_secs(9), "{took:?}");
    assert_eq!(server.asked(), 2);
    // Whoever has a known key has not waited, and the next unknown one does not.
    assert!(relay.takes(&of_old));
    assert_eq!(relay.check(&of_new).await, Err(Refusal::Key));
    assert!(
        relay.failure().is_some_and(|failure| failure.contains("longer than 5 s")),
        "{:?}",
        relay.failure()
    );
    assert_eq!(server.asked(), 2);
    relay.end().await;
}

/// A server that is not there at start is no reason not to start: it is asked again.
#[tokio::test]
async fn a_server_that_comes_later_is_found() {
    let signer = Signer::edwards("d");
    let token = signer.sign(&payload());
    let gone = KeyServer::start(Answer::Bytes(Vec::new())).await;
    let relay = Relay::start(&gone.url());
    relay.until(|relay| relay.failure().is_some()).await;
    assert_eq!(relay.check(&token).await, Err(Refusal::Key));
    gone.answers(ok(&set(&[&signer])));
    pass(PAUSE).await;
    relay.until(|relay| relay.takes(&token)).await;
    relay.end().await;
}

/// A server that shows a certificate which nobody has vouched for gets not even the question.
#[tokio::test]
async fn a_server_is_trusted_by_its_certificate() {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config =
        config.with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let relay = Relay::start(&format!("https://localhost:{}/keys", listener.local_addr().unwrap().port()));
    let (stream, _) = tokio::time::timeout(SOON, listener.accept()).await.unwrap().unwrap();
    let refused = tokio::time::timeout(SOON, acceptor.accept(stream)).await.unwrap();
    assert!(refused.is_err(), "the client goes on with a certificate that it cannot trust");
    relay.until(|relay| relay.failure().is_some_and(|failure| failure.contains("certificate"))).await;
    assert_eq!(relay.keys(), 0);
    relay.end().await;
}

/// The name of this machine is looked up, and may lead to it alone.
#[tokio::test]
async fn names_are_looked_up() {
    let signer = Signer::edwards("d");
    let server = KeyServer::start(ok(&set(&[&signer]))).await;
    let relay = Relay::start(&format!("http://localhost:{}/keys", server.address.port()));
    relay.until(|relay| relay.takes(&signer.sign(&payload()))).await;
    relay.end().await;
}
