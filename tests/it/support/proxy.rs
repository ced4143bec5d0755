//! A link that can be made faulty: a TCP proxy between the relay and a server.
//!
//! It owns connections and what goes wrong with them. It must not know what the bytes mean.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What happens to bytes on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Flow {
    /// They arrive.
    #[default]
    Forward,
    /// They are taken and lost, in both directions; connections stay open.
    BlackHole,
    /// They are not even taken: the sender's buffers fill up. Nothing is lost when this ends.
    Stall,
}

/// What is wrong with the link.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    refuse: bool,
    flow: Flow,
    up: Duration,
    down: Duration,
}

/// The direction of bytes: up to the server, or down to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

#[derive(Debug)]
struct Link {
    target: SocketAddr,
    faults: watch::Sender<Faults>,
    /// Counts the cuts; a connection ends at the next one after it began.
    cuts: watch::Sender<u64>,
    /// Bytes that may still come down before the rest is swallowed.
    down_bytes_left: AtomicU64,
    /// Connections that were accepted before this one was are dead, and do not show it.
    living_from: AtomicUsize,
    accepted: AtomicUsize,
    open: AtomicUsize,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A running proxy. Dropping it closes everything.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    link: Arc<Link>,
}

impl Proxy {
    /// Starts a proxy in front of the server on a loopback port.
    pub(crate) async fn start(target_port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a loopback port is free");
        let port = listener.local_addr().expect("a listener has an address").port();
        let link = Arc::new(Link {
            target: SocketAddr::from(([127, 0, 0, 1], target_port)),
            faults: watch::Sender::new(Faults::default()),
            cuts: watch::Sender::new(0),
            down_bytes_left: AtomicU64::new(u64::MAX),
            living_from: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let serving = link.clone();
        link.tasks.spawn(async move {
            let stop = serving.stop.clone();
            let served = stop.run_until_cancelled(serve(listener, port, serving)).await;
            if let Some(Err(error)) = served {
                eprintln!("the proxy ends: {error}");
            }
        });
        Self { port, link }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Resets all connections. New ones are served.
    pub(crate) fn cut(&self) {
        self.link.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Refuses new connections, or serves them again.
    pub(crate) fn refuse(&self, refuse: bool) {
        self.link.faults.send_modify(|faults| faults.refuse = refuse);
    }

    /// Changes what happens to bytes on the way, on open and new connections.
    pub(crate) fn flow(&self, flow: Flow) {
        self.link.faults.send_modify(|faults| faults.flow = flow);
    }

    /// Delays bytes to the server (`up`) and to the client (`down`).
    pub(crate) fn delay(&self, up: Duration, down: Duration) {
        self.link.faults.send_modify(|faults| (faults.up, faults.down) = (up, down));
    }

    /// Lets so many more bytes down to clients and swallows the rest; 0 swallows every reply.
    pub(crate) fn swallow_replies_after(&self, bytes: u64) {
        self.link.down_bytes_left.store(bytes, Ordering::SeqCst);
    }

    /// Loses all that passes over today's connections from now on, without closing them, as a link does
    /// that has forgotten them. New connections are served.
    pub(crate) fn abandon(&self) {
        self.link.living_from.store(self.accepted(), Ordering::SeqCst);
    }

    /// Ends all faults. What was lost stays lost.
    pub(crate) fn heal(&self) {
        self.link.down_bytes_left.store(u64::MAX, Ordering::SeqCst);
        self.link.faults.send_replace(Faults::default());
    }

    /// Returns how many connections were accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.link.accepted.load(Ordering::SeqCst)
    }

    /// Returns how many connections are open now.
    pub(crate) fn open(&self) -> usize {
        self.link.open.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.link.tasks.close();
        self.link.stop.cancel();
    }
}

async fn serve(listener: TcpListener, port: u16, link: Arc<Link>) -> io::Result<()> {
    let mut faults = link.faults.subscribe();
    let mut listener = Some(listener);
    loop {
        let refuse = faults.borrow_and_update().refuse;
        if refuse {
            // Only a port without a listener refuses.
            listener = None;
        } else if listener.is_none() {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
            listener = Some(socket.listen(1_024)?);
        }
        let accept = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = faults.changed() => changed.map_err(io::Error::other)?,
            accepted = accept => {
                let (client, _) = accepted?;
                // In this order: a cut that this one does not see came after the refusal that came with it.
                let cuts = link.cuts.subscribe();
                if faults.borrow().refuse {
                    drop(client.set_zero_linger());
                    continue;
                }
                let number = link.accepted.fetch_add(1, Ordering::SeqCst);
                let carrying = link.clone();
                link.tasks.spawn(async move { carry(client, &carrying, number, cuts).await });
            }
        }
    }
}

/// Carries one connection until an end closes it, or it is cut.
async fn carry(mut client: TcpStream, link: &Link, number: usize, mut cuts: watch::Receiver<u64>) {
    link.open.fetch_add(1, Ordering::SeqCst);
    let cut = match TcpStream::connect(link.target).await {
        Ok(mut server) => {
            let cut = carry_to((&mut client, &mut server), link, number, &mut cuts).await;
            if cut {
                drop(server.set_zero_linger());
            }
            cut
        }
        Err(_) => true,
    };
    if cut {
        drop(client.set_zero_linger());
    }
    link.open.fetch_sub(1, Ordering::SeqCst);
}

/// Returns whether the connection is to be reset rather than closed.
async fn carry_to(
    (client, server): (&mut TcpStream, &mut TcpStream),
    link: &Link,
    number: usize,
    cuts: &mut watch::Receiver<u64>,
) -> bool {
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    let (client_reads, client_writes) = client.split();
    let (server_reads, server_writes) = server.split();
    tokio::select! {
        ended = pump(client_reads, server_writes, link, number, Direction::Up, cuts.clone()) => ended.is_err(),
        ended = pump(server_reads, client_writes, link, number, Direction::Down, cuts.clone()) => ended.is_err(),
        _ = cuts.changed() => true,
        () = link.stop.cancelled() => true,
    }
}

async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    link: &Link,
    number: usize,
    direction: Direction,
    cuts: watch::Receiver<u64>,
) -> io::Result<()> {
    let mut faults = link.faults.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        flowing(&mut faults).await?;
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let delay = match direction {
            Direction::Up => faults.borrow().up,
            Direction::Down => faults.borrow().down,
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        flowing(&mut faults).await?;
        // What was read after a cut does not pass, however late its task is woken.
        if cuts.has_changed().map_err(io::Error::other)? {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let is_dead = number < link.living_from.load(Ordering::SeqCst);
        if is_dead || faults.borrow().flow == Flow::BlackHole {
            continue;
        }
        let passed = match direction {
            Direction::Up => count,
            Direction::Down => take_down_bytes(&link.down_bytes_left, count),
        };
        to.write_all(&buffer[..passed]).await?;
    }
}

/// Waits while the link is stalled.
async fn flowing(faults: &mut watch::Receiver<Faults>) -> io::Result<()> {
    faults.wait_for(|faults| faults.flow != Flow::Stall).await.map(drop).map_err(io::Error::other)
}

/// Takes up to `count` bytes from what is left, and returns how many there were.
fn take_down_bytes(left: &AtomicU64, count: usize) -> usize {
    let take = |left: u64| (left != u64::MAX).then(|| left.saturating_sub(count as u64));
    match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take) {
        Ok(before) => usize::try_from(before).unwrap_or(usize::MAX).min(count),
        Err(_) => count,
    }
}

#[cfg(test)]
mod tests {
    use super::super::eventually;
    use super::super::server::{Kind, Server};
    use super::*;
    use crate::support::resp::Connection;

    const SOON: Duration = Duration::from_millis(100);
    const LATE: Duration = Duration::from_secs(5);

    async fn ping(connection: &mut Connection) -> Option<io::Result<String>> {
        let reply = tokio::time::timeout(SOON, connection.command(&["PING"])).await.ok()?;
        Some(reply.map(|reply| reply.text()))
    }

    /// Every fault is shown once, so that a fault test which passes has had its fault.
    #[tokio::test]
    async fn faults_can_be_seen_and_healed() {
        let Some(server) = Server::start(Kind::Redis, &[]).await else { return };
        let proxy = Proxy::start(server.port()).await;
        let mut connection = Connection::open(proxy.port()).await.unwrap();
        assert_eq!(ping(&mut connection).await.unwrap().unwrap(), "PONG");
        assert_eq!((proxy.accepted(), proxy.open()), (1, 1));

        proxy.flow(Flow::Stall);
        assert!(ping(&mut connection).await.is_none());
        proxy.heal();
        assert_eq!(ping(&mut connection).await.unwrap().unwrap(), "PONG", "the stalled ping, late");

        proxy.cut();
        let mut ends = false;
        for _ in 0..3 {
            ends |= ping(&mut connection).await.is_some_and(|reply| reply.is_err());
        }
        assert!(ends, "a cut connection ends");
        eventually(LATE, async || proxy.open() == 0).await;

        let mut connection = Connection::open(proxy.port()).await.unwrap();
        proxy.flow(Flow::BlackHole);
        assert!(ping(&mut connection).await.is_none());
        proxy.heal();
        assert_eq!(ping(&mut connection).await.unwrap().unwrap(), "PONG");

        proxy.abandon();
        assert!(ping(&mut connection).await.is_none());
        let mut connection = Connection::open(proxy.port()).await.unwrap();
        assert_eq!(ping(&mut connection).await.unwrap().unwrap(), "PONG");

        proxy.swallow_replies_after(3);
        assert!(ping(&mut connection).await.is_none());
        proxy.heal();

        proxy.refuse(true);
        eventually(LATE, async || Connection::open(proxy.port()).await.is_err()).await;
        proxy.refuse(false);
        eventually(LATE, async || Connection::open(proxy.port()).await.is_ok()).await;

        let mut connection = Connection::open(proxy.port()).await.unwrap();
        proxy.delay(SOON, SOON);
        let started = tokio::time::Instant::now();
        connection.command(&["PING"]).await.unwrap();
        assert!(started.elapsed() >= 2 * SOON);
    }
    /// A client that is just connecting is no exception: after a refusal and a cut nothing passes.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_outlives_a_refusal_and_a_cut() {
        let Some(server) = Server::start(Kind::Redis, &[]).await else { return };
        let proxy = Proxy::start(server.port()).await;
        let (port, tasks) = (proxy.port(), TaskTracker::new());
        for round in 0..200 {
            proxy.refuse(false);
            eventually(LATE, async || Connection::open(port).await.is_ok()).await;
            let opening = (0..4).map(|_| tasks.spawn(Connection::open(port))).collect::<Vec<_>>();
            for _ in 0..round % 20 {
                tokio::task::yield_now().await;
            }
            proxy.refuse(true);
            proxy.cut();
            for opened in opening {
                let Ok(mut connection) = opened.await.unwrap() else { continue };
                assert!(connection.command(&["PING"]).await.is_err(), "in round {round}");
            }
        }
    }
}
