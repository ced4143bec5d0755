//! Real servers: `valkey-server`, and `redis-server` for what is compatible with it.
//!
//! It owns finding, starting, hurting and stopping them. It must not know the relay.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::resp::{Connection, Reply};
use super::signals;

/// How long a server may take until it answers.
const START_MAX: Duration = Duration::from_secs(20);
/// How often to look whether it does. It takes about 20 ms.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// What is said to a server that keeps nothing on disk.
const KEEPS_NOTHING: [&str; 4] = ["--save", "", "--appendonly", "no"];
/// The name of a sentinel's file.
const SENTINEL_FILE: &str = "sentinel.conf";
/// How long a reply may take.
const REPLY_MAX: Duration = Duration::from_secs(10);

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Valkey,
    Redis,
}

impl Kind {
    /// Returns the binary, or `None` (with a line on standard error) where there is none.
    ///
    /// # Panics
    /// There is none, and this is CI: a test that is skipped there would never be missed.
    pub(crate) fn find(self) -> Option<PathBuf> {
        let (name, variable) = match self {
            Self::Valkey => ("valkey-server", "VALKEY_SERVER_BIN"),
            Self::Redis => ("redis-server", "REDIS_SERVER_BIN"),
        };
        let named = std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
        let found = named.or_else(|| on_path(name));
        if found.is_none() {
            let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!in_ci, "{name} is not found: in CI a skipped {self:?} test is a failure");
            eprintln!("skipped: {name} is neither on the PATH nor named by {variable}");
        }
        found
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Alone,
    /// Of a cluster, with the port on which its nodes speak with each other.
    Node {
        bus: u16,
    },
    Sentinel,
}

/// Whether a server speaks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tls {
    No,
    Only,
    /// On a port of its own.
    Beside {
        port: u16,
    },
}

/// A running server with a folder of its own. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    /// The program, and its first arguments.
    launch: Vec<OsString>,
    port: u16,
    tls: Tls,
    role: Role,
    arguments: Vec<String>,
    folder: tempfile::TempDir,
    process: Option<Child>,
}

impl Server {
    /// Starts a server that keeps nothing on disk, unless `arguments` (later ones win) say otherwise.
    /// Returns `None` where there is no such server on this machine.
    pub(crate) async fn start(kind: Kind, arguments: &[&str]) -> Option<Self> {
        Self::start_with(kind, Tls::No, arguments).await
    }

    /// Starts a server that speaks TLS only; `arguments` name its certificate and key.
    /// [`command`](Self::command) does not work on it.
    pub(crate) async fn start_tls(kind: Kind, arguments: &[&str]) -> Option<Self> {
        Self::start_with(kind, Tls::Only, arguments).await
    }

    /// Starts a server that speaks TLS on a port of its own, with other servers as well; `arguments` name its
    /// certificate and key. [`port`](Self::port) is the one without, for who tests.
    pub(crate) async fn start_with_tls_beside(kind: Kind, arguments: &[&str]) -> Option<Self> {
        Self::start_with(kind, Tls::Beside { port: 0 }, arguments).await
    }

    /// Starts a server with a configuration file, which then says what is kept on disk.
    pub(crate) async fn start_with_file(kind: Kind, file: &Path, arguments: &[&str]) -> Option<Self> {
        let launch = vec![kind.find()?.into(), file.into()];
        Some(Self::launch(launch, (Tls::No, Role::Alone), arguments).await)
    }

    /// Starts a server with a shell script, which gets the arguments and says what is kept on disk.
    pub(crate) async fn start_with_script(script: &str) -> Self {
        let launch = ["/bin/sh", "-euc", script, "sh"].map(OsString::from).to_vec();
        Self::launch(launch, (Tls::No, Role::Alone), &[]).await
    }

    /// Starts a node that belongs to no cluster yet and keeps nothing on disk but what it knows of others.
    pub(crate) async fn start_node(kind: Kind, arguments: &[&str]) -> Option<Self> {
        let launch = vec![kind.find()?.into()];
        let arguments = [&KEEPS_NOTHING, arguments].concat();
        Some(Self::launch(launch, (Tls::No, Role::Node { bus: 0 }), &arguments).await)
    }

    /// Starts a sentinel that watches nothing yet.
    pub(crate) async fn start_sentinel(kind: Kind, arguments: &[&str]) -> Option<Self> {
        Self::start_sentinel_with(kind, Tls::No, arguments).await
    }

    /// The same, as [`start_with_tls_beside`](Self::start_with_tls_beside).
    pub(crate) async fn start_sentinel_with_tls_beside(kind: Kind, arguments: &[&str]) -> Option<Self> {
        Self::start_sentinel_with(kind, Tls::Beside { port: 0 }, arguments).await
    }

    async fn start_sentinel_with(kind: Kind, tls: Tls, arguments: &[&str]) -> Option<Self> {
        let launch = vec![kind.find()?.into(), SENTINEL_FILE.into(), "--sentinel".into()];
        Some(Self::launch(launch, (tls, Role::Sentinel), arguments).await)
    }

    async fn start_with(kind: Kind, tls: Tls, arguments: &[&str]) -> Option<Self> {
        let launch = vec![kind.find()?.into()];
        Some(Self::launch(launch, (tls, Role::Alone), &[&KEEPS_NOTHING, arguments].concat()).await)
    }

    async fn launch(launch: Vec<OsString>, (tls, role): (Tls, Role), arguments: &[&str]) -> Self {
        let mut server = Self {
            launch,
            port: 0,
            tls,
            role,
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            folder: tempfile::tempdir().expect("a temporary folder can be made"),
            process: None,
        };
        // Between choosing a free port and binding it, another test may take it.
        for _ in 0..10 {
            server.port = free_port();
            if let Role::Node { bus } = &mut server.role {
                *bus = free_port();
            }
            if let Tls::Beside { port } = &mut server.tls {
                *port = free_port();
            }
            if server.spawn().await {
                return server;
            }
        }
        panic!("{:?} does not start; its log:\n{}", server.launch, server.log());
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the port on which it speaks TLS, where that is one of its own, else its only port.
    pub(crate) fn told_port(&self) -> u16 {
        match self.tls {
            Tls::Beside { port } => port,
            Tls::No | Tls::Only => self.port,
        }
    }

    /// Returns the port on which it speaks with other nodes of its cluster.
    ///
    /// # Panics
    /// It is no node.
    pub(crate) fn bus_port(&self) -> u16 {
        let Role::Node { bus } = self.role else { panic!("the server is no node of a cluster") };
        bus
    }

    /// Returns the folder that the server works in.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Returns the process id.
    ///
    /// # Panics
    /// The server was killed.
    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().expect("the server runs").id()
    }

    /// Returns what the server has logged since it was started.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("server.log")).unwrap_or_default()
    }

    /// Starts the process and waits until it answers. Returns whether it does.
    async fn spawn(&mut self) -> bool {
        let (plain, tls) = match self.tls {
            Tls::No => (self.port, None),
            Tls::Only => (0, Some(self.port)),
            Tls::Beside { port } => (self.port, Some(port)),
        };
        let (program, first) = self.launch.split_first().expect("there is a program");
        let mut command = Command::new(program);
        command.args(first).args(["--port", &plain.to_string()]);
        if let Some(port) = tls {
            command.args(["--tls-port", &port.to_string()]);
        }
        if let Tls::Beside { .. } = self.tls {
            command.args(["--tls-replication", "yes"]);
        }
        let folder = OsString::from(self.folder());
        command.args(["--bind", "127.0.0.1", "--daemonize", "no"]);
        command.args(["--loglevel", "notice", "--logfile", "server.log", "--dir"]).arg(folder);
        match self.role {
            Role::Alone => {}
            Role::Node { bus } => {
                command.args(["--cluster-enabled", "yes", "--cluster-port", &bus.to_string()]);
            }
            // It keeps there what it knows.
            Role::Sentinel => drop(std::fs::File::create_new(self.folder().join(SENTINEL_FILE))),
        }
        command.args(&self.arguments).current_dir(self.folder());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        drop(std::fs::remove_file(self.folder().join("server.log")));
        self.process = Some(command.spawn().expect("the server's binary can be run"));

        let deadline = Instant::now() + START_MAX;
        while Instant::now() < deadline && !self.has_ended() {
            if self.answers().await {
                return true;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        false
    }

    fn has_ended(&mut self) -> bool {
        self.process.as_mut().is_none_or(|process| !matches!(process.try_wait(), Ok(None)))
    }

    async fn answers(&self) -> bool {
        // Only its own log tells it from another server on a port that this one did not get.
        let says = if self.role == Role::Sentinel { "Sentinel ID is" } else { "Ready to accept connections" };
        if !self.log().contains(says) {
            return false;
        }
        if self.tls == Tls::Only {
            return TcpStream::connect(("127.0.0.1", self.port)).await.is_ok();
        }
        let ping = async { Connection::open(self.port).await.ok()?.command(&["PING"]).await.ok() };
        match tokio::time::timeout(Duration::from_secs(1), ping).await {
            Ok(Some(Reply::Simple(text))) => text == "PONG",
            // It is up, and wants a password first.
            Ok(Some(Reply::Error(error))) => error.starts_with("NOAUTH"),
            _ => false,
        }
    }

    /// Sends one command over a connection of its own and returns the reply.
    ///
    /// # Panics
    /// There is no reply.
    pub(crate) async fn command<A: AsRef<[u8]>>(&self, arguments: &[A]) -> Reply {
        let exchange = async { Connection::open(self.port).await?.command(arguments).await };
        tokio::time::timeout(REPLY_MAX, exchange)
            .await
            .expect("the server replies in time")
            .expect("the server replies")
    }

    /// Sends one command and returns the reply, if one comes within a time.
    pub(crate) async fn try_command<A: AsRef<[u8]>>(
        &self,
        arguments: &[A],
        within: Duration,
    ) -> Option<Reply> {
        let exchange = async { Connection::open(self.port).await?.command(arguments).await };
        tokio::time::timeout(within, exchange).await.ok()?.ok()
    }

    /// Returns whether the process runs, frozen or not.
    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Kills the server as a crash would, and waits until it is gone.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }

    /// Starts the server again (after a kill, if it still runs) on the same port and folder.
    ///
    /// # Panics
    /// It does not start.
    pub(crate) async fn restart(&mut self) {
        self.kill9();
        assert!(self.spawn().await, "the server does not start again; its log:\n{}", self.log());
    }

    /// Freezes the server: connections stay open and nothing is answered.
    pub(crate) fn sigstop(&self) {
        self.signal(Signal::STOP);
    }

    /// Ends a freeze.
    pub(crate) fn sigcont(&self) {
        self.signal(Signal::CONT);
    }

    /// Asks the server to shut down.
    pub(crate) fn sigterm(&self) {
        self.signal(Signal::TERM);
    }

    fn signal(&self, signal: Signal) {
        signals::send(self.process.as_ref().expect("the server runs"), signal);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Ports below those that the system gives to outgoing connections: a server that was killed finds its
/// port free when it comes back.
const PORTS: std::ops::Range<u64> = 15_000..32_000;

/// Returns a port that nothing listened on a moment ago.
pub(crate) fn free_port() -> u16 {
    use std::hash::{BuildHasher as _, RandomState};

    let random = std::iter::repeat_with(|| RandomState::new().hash_one(()));
    let ports = random.map(|number| PORTS.start + number % (PORTS.end - PORTS.start));
    ports
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a loopback port is free")
}

#[cfg(test)]
mod tests {
    use super::super::eventually;
    use super::*;

    async fn survives_what_a_test_does_to_it(kind: Kind) {
        let Some(mut server) = Server::start(kind, &["--appendonly", "yes", "--appendfsync", "always"]).await
        else {
            return;
        };
        assert_eq!(server.command(&["SET", "key", "a\r\nb"]).await, Reply::Simple("OK".to_owned()));
        let pid = server.pid();
        server.kill9();
        assert!(Connection::open(server.port()).await.is_err());
        server.restart().await;
        assert_ne!(server.pid(), pid);
        assert_eq!(server.command(&["GET", "key"]).await, Reply::Bulk(b"a\r\nb".to_vec()));
        assert_eq!(server.command(&["GET", "other"]).await, Reply::Null);
        assert_eq!(server.command(&["DBSIZE"]).await.integer(), 1);
        assert_eq!(server.command(&["KEYS", "*"]).await.array(), [Reply::Bulk(b"key".to_vec())]);

        server.sigstop();
        let frozen = tokio::time::timeout(Duration::from_millis(50), server.command(&["PING"])).await;
        assert!(frozen.is_err());
        server.sigcont();
        assert_eq!(server.command(&["PING"]).await.text(), "PONG");

        server.sigterm();
        eventually(START_MAX, async || Connection::open(server.port()).await.is_err()).await;
    }

    #[tokio::test]
    async fn valkey_survives_what_a_test_does_to_it() {
        survives_what_a_test_does_to_it(Kind::Valkey).await;
    }

    #[tokio::test]
    async fn redis_survives_what_a_test_does_to_it() {
        survives_what_a_test_does_to_it(Kind::Redis).await;
    }
}
