//! The relay as a service of systemd: what it tells, and the socket that it is given.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::Instant;

use crate::support::process::{Relay, run};
use crate::support::raw::RawConnection;
use crate::support::relay::{Answer, STUCK, request};

/// What manages services, as far as the relay speaks to it.
struct Manager {
    socket: UnixDatagram,
    _folder: tempfile::TempDir,
    path: String,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a path of ours");
        socket.set_read_timeout(Some(STUCK)).expect("a socket");
        Self { socket, _folder: folder, path: path.to_str().expect("UTF-8").to_owned() }
    }

    /// Returns what is told next, without signs of life.
    fn told(&self) -> String {
        loop {
            let told = self.any();
            if told != "WATCHDOG=1" {
                return told;
            }
        }
    }

    fn any(&self) -> String {
        let mut bytes = [0; 4_096];
        let count = self.socket.recv(&mut bytes).expect("the relay tells something");
        std::str::from_utf8(&bytes[..count]).expect("UTF-8").trim_end().to_owned()
    }
}

#[test]
fn a_service_says_when_it_is_ready_reads_its_settings_and_stops() {
    let manager = Manager::new();
    let relay = Relay::start(&[("NOTIFY_SOCKET", &manager.path)], &[]);
    assert_eq!(manager.told(), "READY=1");
    relay.signal(Signal::HUP);
    let reloading = manager.told();
    let mut lines = reloading.lines();
    assert_eq!(lines.next(), Some("RELOADING=1"), "{reloading}");
    let at = lines.next().and_then(|line| line.strip_prefix("MONOTONIC_USEC="));
    assert!(at.is_some_and(|at| at.parse::<u64>().is_ok()), "{reloading}");
    assert_eq!(manager.told(), "READY=1");
    let (code, log) = relay.stop();
    assert_eq!((code, manager.told()), (Some(0), "STOPPING=1".to_owned()), "{log}");
}

#[test]
fn a_service_gives_signs_of_life_where_it_is_asked_for_them() {
    let manager = Manager::new();
    let variables = [("NOTIFY_SOCKET", manager.path.as_str()), ("WATCHDOG_USEC", "200000")];
    let relay = Relay::start(&variables, &[]);
    let began = Instant::now();
    let signs = (0..20).map(|_| manager.any()).filter(|told| told == "WATCHDOG=1").count();
    assert!(signs >= 19, "{signs}");
    assert!(began.elapsed() >= Duration::from_millis(1_500), "{:?}", began.elapsed());
    relay.signal(Signal::STOP);
    // Nothing comes of a process that stands still.
    manager.socket.set_nonblocking(true).expect("a socket");
    while manager.socket.recv(&mut [0; 64]).is_ok() {}
    std::thread::sleep(Duration::from_millis(500));
    assert!(manager.socket.recv(&mut [0; 64]).is_err());
    relay.signal(Signal::CONT);
    drop(relay);
}

#[test]
fn a_socket_is_taken_where_the_settings_say_and_nowhere_else() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("an address").to_string();
    let relay = Relay::start_on(&socket, &[], &["--drain-ms=2000"]);
    assert_eq!(relay.run(&["health"], "").lines().len(), 1);
    assert!(TcpListener::bind(&address).is_err(), "it is still ours");
    drop(relay);
    let told = Relay::refused_on(&socket, "127.0.0.1:1");
    assert!(
        told.contains(&format!("is bound to {address}, and the settings say listen = 127.0.0.1:1")),
        "{told}"
    );
    // What is meant for another process is left alone.
    let ended = run(&[("LISTEN_FDS", "1"), ("LISTEN_PID", "1")], &["serve", "--listen", &address], "");
    assert!(ended.stderr.contains("the address is taken"), "{ended:?}");
}

/// Sends one request on a connection of its own; returns whether it was answered well.
async fn ask(address: SocketAddr) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&request("POST", "/api/v1/topics/t/messages", &[("connection", "close")], b"1")).await?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    if bytes.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Answer::parse(&bytes).status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_is_refused_while_a_relay_with_a_socket_of_systemd_is_restarted() {
    const RESTARTS: usize = 5;
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("an address");
    let start = |socket: TcpListener| async move {
        let started = spawn_blocking(move || (Relay::start_on(&socket, &[], &["--drain-ms=2000"]), socket));
        started.await.expect("it starts")
    };
    let (mut relay, mut socket) = start(socket).await;
    let (answered, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut asking = JoinSet::new();
    for _ in 0..4 {
        let (answered, stop) = (answered.clone(), stop.clone());
        asking.spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let status = ask(address).await.expect("nobody is refused, nor left without an answer");
                assert_eq!(status, 201);
                answered.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    let more = async |count: u64| {
        let before = answered.load(Ordering::SeqCst);
        let began = Instant::now();
        while answered.load(Ordering::SeqCst) < before + count {
            assert!(began.elapsed() < STUCK, "requests are answered");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    for _ in 0..RESTARTS {
        more(50).await;
        let (code, log) = spawn_blocking(move || relay.stop()).await.unwrap();
        assert_eq!(code, Some(0), "{log}");
        (relay, socket) = start(socket).await;
    }
    more(50).await;
    stop.store(true, Ordering::SeqCst);
    asking.join_all().await;
    spawn_blocking(move || drop((relay, socket))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_more_files_can_be_open_that_is_told_once_and_counted() {
    let relay = spawn_blocking(|| Relay::start(&[("TIDEMILL_CONNECTIONS_MAX", "1000000000")], &[])).await;
    let relay = relay.expect("it starts");
    let mut first = RawConnection::connect(relay.address()).await.expect("a connection");
    first.exchange("GET", "/health", "", "").await.expect("an answer");
    relay.leave_files(2);
    // The machine takes them in, and the relay cannot.
    let mut waiting = Vec::new();
    for _ in 0..6 {
        waiting.push(TcpStream::connect(relay.address()).await.expect("a connection"));
    }
    let mut failed = 0;
    while failed < 15 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (_, body) = first.exchange("GET", "/metrics", "", "").await.expect("an answer");
        let text = String::from_utf8(body).expect("UTF-8");
        let told = text.lines().find_map(|line| line.strip_prefix("tidemill_http_accepts_failed_total "));
        failed = told.expect("it is counted").parse().expect("a number");
    }
    drop((first, waiting));
    let (_, log) = relay.stop();
    assert_eq!(log.matches("cannot accept connections").count(), 1, "{log}");
    let has_limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.is_some();
    assert_eq!(log.contains("open files: "), has_limit, "{log}");
}
