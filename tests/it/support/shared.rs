//! One cluster for many tests, which have it one after the other: whoever needs it first starts it, it is empty for each,
//! and it ends by itself a while after the last. Nodes of a cluster take two seconds until they serve; hundreds of tests
//! would wait for that.
//!
//! It must not know the relay, nor what is tested. A test that hurts a cluster has one of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::cluster::SLOTS;
use super::eventually;
use super::resp::Connection;
use super::server::{Kind, free_port};

/// Primaries of the cluster.
const PRIMARIES: u16 = 3;
/// How long it may take until they serve.
const SERVES_WITHIN: Duration = Duration::from_secs(20);
/// Ends what has its process ids in files of this folder, once nobody has touched the file `used` for a minute or so.
const REAPER: &str = r#"
cd "$0"
while [ -n "$(find used -mmin -2 2>/dev/null)" ]; do sleep 5; done
for pid in */pid; do kill -9 "$(cat "$pid")"; done
rm -rf "$0"
"#;

/// The cluster, for as long as one test has it.
#[derive(Debug)]
pub(crate) struct SharedCluster {
    ports: Vec<u16>,
    /// Locked: it is the turn of this test.
    _turn: File,
}

impl SharedCluster {
    /// Waits for its turn, and returns the cluster, which is empty; `None` where there is no such server on this machine.
    pub(crate) async fn start() -> Option<Self> {
        let binary = Kind::Valkey.find()?;
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cluster");
        let lock = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cluster.lock");
        let turn = spawn_blocking(move || {
            let turn = File::create(lock).expect("a file can be made");
            turn.lock().expect("a file can be locked");
            turn
        });
        let turn = turn.await.expect("no panic");
        let ports = match running(&folder).await {
            Some(ports) => ports,
            None => start(&binary, &folder).await,
        };
        Some(Self { ports, _turn: turn })
    }

    /// Returns the port of a node.
    pub(crate) fn port(&self) -> u16 {
        self.ports[0]
    }
}

/// Returns the ports of the cluster that runs, if it does, and empties it.
async fn running(folder: &Path) -> Option<Vec<u16>> {
    // Before it is looked at, so that it does not end meanwhile.
    File::create(folder.join("used")).ok()?;
    let text = std::fs::read_to_string(folder.join("ports")).ok()?;
    let ports: Vec<u16> = text.split_whitespace().map(|port| port.parse().expect("a port")).collect();
    for port in &ports {
        let mut node = Connection::open(*port).await.ok()?;
        let emptied = node.command(&["FLUSHALL"]).await.ok()?;
        (emptied.text() == "OK").then_some(())?;
    }
    Some(ports)
}

async fn start(binary: &Path, folder: &PathBuf) -> Vec<u16> {
    drop(std::fs::remove_dir_all(folder));
    let mut ports = Vec::new();
    for number in 0..PRIMARIES {
        let (port, bus) = (free_port(), free_port());
        let of_node = folder.join(number.to_string());
        std::fs::create_dir_all(&of_node).expect("a folder can be made");
        let mut command = Command::new(binary);
        command.args([
            "--port",
            &port.to_string(),
            "--cluster-port",
            &bus.to_string(),
            "--bind",
            "127.0.0.1",
        ]);
        command.args(["--cluster-enabled", "yes", "--save", "", "--appendonly", "no", "--daemonize", "yes"]);
        command.arg("--dir").arg(&of_node).arg("--pidfile").arg(of_node.join("pid"));
        command.args(["--logfile", "log"]).current_dir(&of_node);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().expect("the server's binary can be run").success());
        ports.push((port, bus));
    }
    for (number, (port, _)) in (0..PRIMARIES).zip(&ports) {
        eventually(SERVES_WITHIN, async || Connection::open(*port).await.is_ok()).await;
        let mut node = Connection::open(*port).await.expect("it listens");
        let at = |number: u16| u32::from(number) * u32::from(SLOTS) / u32::from(PRIMARIES);
        let [first, last] = [at(number), at(number + 1) - 1].map(|slot| slot.to_string());
        let given = node.command(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await.expect("a reply");
        assert_eq!(given.text(), "OK");
        for (other, bus) in &ports {
            let (other, bus) = (other.to_string(), bus.to_string());
            node.command(&["CLUSTER", "MEET", "127.0.0.1", &other, &bus]).await.expect("a reply");
        }
    }
    for (port, _) in &ports {
        let serves = async || {
            let mut node = Connection::open(*port).await.expect("it listens");
            let info = node.command(&["CLUSTER", "INFO"]).await.expect("a reply").text();
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        };
        eventually(SERVES_WITHIN, serves).await;
    }
    let ports: Vec<u16> = ports.into_iter().map(|(port, _)| port).collect();
    let text: Vec<_> = ports.iter().map(u16::to_string).collect();
    std::fs::write(folder.join("ports"), text.join(" ")).expect("a file can be written");
    File::create(folder.join("used")).expect("a file can be made");
    let mut reaper = Command::new("setsid");
    reaper.args(["/bin/sh", "-c", REAPER]).arg(folder);
    reaper.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    drop(reaper.spawn().expect("a shell can be run"));
    ports
}
