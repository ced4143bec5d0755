//! The cluster that is made by hand, as the page on operations says.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::page::blocks;
use super::{root, text_of};
use crate::support::eventually;
use crate::support::server::{Kind, Server, free_port};

/// How long the servers may take to know each other.
const JOINED: Duration = Duration::from_secs(30);

/// The primaries of the page, and their replicas: by their addresses there.
const PLACES: [&str; 6] =
    ["10.0.0.1:6379", "10.0.0.2:6379", "10.0.0.3:6379", "10.0.0.1:6380", "10.0.0.2:6380", "10.0.0.3:6380"];

/// Runs a line of the page where there is a command line client of either name, and returns what it says.
fn run(line: &str) -> (bool, String) {
    let clients = "command -v valkey-cli >/dev/null || valkey-cli() { REDISCLI_AUTH=$VALKEYCLI_AUTH redis-cli \"$@\"; }";
    let script = format!("{clients}\ntidemill() {{ \"$RELAY_HERE\" \"$@\"; }}\n{line}");
    let done = Command::new("timeout")
        .args(["60", "bash", "-euc", &script])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        // `check` wants no setting that it does not know.
        .env("RELAY_HERE", env!("CARGO_BIN_EXE_tidemill"))
        .stdin(Stdio::null())
        .output()
        .expect("there is a shell");
    (done.status.success(), String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned())
}

#[tokio::test]
async fn a_cluster_by_hand_is_one_that_carries_a_relay() {
    let page = text_of("docs/valkey.md");
    let blocks = blocks(&page);
    let block =
        |marks: &str| &blocks.iter().find(|block| block.marks == marks).expect("the page has it").text;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("valkey.conf");
    let shipped = std::fs::read_to_string(root().join("valkey.conf")).expect("it is in the repository");
    let lines = block("text cluster").replace("10.0.0.1", "127.0.0.1");
    std::fs::write(&file, shipped + &lines).expect("the folder is ours");
    let (mut servers, mut addresses) = (Vec::new(), Vec::new());
    for _ in PLACES {
        // All are on this machine, so each has another port, and not always one below 55,536.
        let bus = free_port().to_string();
        let arguments = ["--cluster-port", &bus];
        let Some(server) = Server::start_with_file(Kind::Valkey, &file, &arguments).await else { return };
        addresses.push((format!("127.0.0.1:{}", server.port()), bus));
        servers.push(server);
    }
    let (before, check) =
        block("sh cluster").rsplit_once("VALKEY_URL").expect("the last line starts a check");
    let create = PLACES.iter().zip(&addresses).fold(before.to_owned(), |line, (place, (address, bus))| {
        line.replace(place, &format!("{address}@{bus}"))
    });
    let (is_made, said) = run(&create);
    assert!(is_made, "{create}\n{said}");
    let check = PLACES
        .iter()
        .zip(&addresses)
        .fold(format!("VALKEY_URL{check}"), |line, (place, (address, _))| line.replace(place, address));
    // Replicas take a moment to have what their primaries have.
    eventually(JOINED, async || {
        let (is_well, said) = run(&check);
        is_well
            && said.contains("✓ cluster: 3 primaries have 16384 of 16384 slots\n")
            && !said.contains("no replica")
    })
    .await;
    // A replica that is gone leaves its primary without one.
    let replica = servers.pop().expect("there are six");
    drop(replica);
    eventually(JOINED, async || run(&check).1.contains("no replica is connected and up to date")).await;
    // Who is told that it stands alone is told what it is.
    let (is_well, said) = run(&format!("VALKEY_CLUSTER=false {check}"));
    assert!(!is_well && said.contains("leave VALKEY_CLUSTER out"), "{said}");
}
