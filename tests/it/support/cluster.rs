//! A cluster of real servers on this machine: made, hurt, failed over, its slots moved, and ended.
//!
//! It must not know the relay, nor what is tested.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::eventually;
use super::resp::{Connection, Reply};
use super::server::{Kind, Server};

/// Slots of a cluster.
pub(crate) const SLOTS: u16 = 16_384;
/// After which time nodes take one of them for gone.
pub(crate) const NODE_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How long it may take until all nodes agree.
const SETTLES_WITHIN: Duration = Duration::from_secs(30);
/// After which time a server gives up a failover by command (`CLUSTER_MF_TIMEOUT` of its source), and a moment.
const FAILOVER_GIVEN_UP: Duration = Duration::from_millis(5_500);
/// How long a node may take to tell what it knows.
const TELLS_WITHIN: Duration = Duration::from_millis(500);
/// How long one key may take to move.
const KEY_MOVES_MS: &str = "5000";

/// Where slots are, as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    id: String,
    port: u16,
    is_myself: bool,
    is_primary: bool,
    has_failed: bool,
    primary: Option<String>,
    epoch: u64,
    slots: Vec<RangeInclusive<u16>>,
}

/// A primary, by its place in the cluster, and what it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Primary {
    pub(crate) index: usize,
    pub(crate) port: u16,
    pub(crate) slots: Vec<RangeInclusive<u16>>,
}

/// A cluster. Its nodes are counted from 0: first all primaries, as it was made, then the replicas, of which the
/// `n`th is of primary `n % primaries`. Dropping it kills them all.
#[derive(Debug)]
pub(crate) struct Cluster {
    kind: Kind,
    arguments: Vec<String>,
    nodes: Vec<Server>,
    /// The ids of nodes, in their order.
    ids: Vec<String>,
}

impl Cluster {
    /// Starts a cluster that keeps nothing on disk but what its nodes know of each other, with its slots spread
    /// evenly, and waits until all agree. A primary that is gone takes its own slots along, and no others.
    /// Returns `None` where there is no such server on this machine.
    pub(crate) async fn start(kind: Kind, primaries: usize, replicas: usize) -> Option<Self> {
        Self::start_with(kind, primaries, replicas, &[]).await
    }

    /// The same, with arguments for all nodes (later ones win).
    pub(crate) async fn start_with(
        kind: Kind,
        primaries: usize,
        replicas: usize,
        arguments: &[&str],
    ) -> Option<Self> {
        let timeout_ms = NODE_TIMEOUT.as_millis().to_string();
        let usual = [
            ["--cluster-node-timeout", &timeout_ms],
            ["--cluster-require-full-coverage", "no"],
            ["--cluster-allow-replica-migration", "no"],
            ["--repl-diskless-sync-delay", "0"],
        ];
        let arguments: Vec<String> =
            usual.concat().iter().chain(arguments).map(|&argument| argument.to_owned()).collect();
        let mut cluster = Self { kind, arguments, nodes: Vec::new(), ids: Vec::new() };
        let count = primaries * (1 + replicas);
        let started = join_all((0..count).map(|_| cluster.start_node())).await;
        for node in started {
            cluster.enter(node?).await;
        }
        for index in 0..count {
            let epoch = (index + 1).to_string();
            cluster.order(index, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await;
            for other in 0..index {
                cluster.meet(index, other).await;
            }
        }
        for primary in 0..primaries {
            let at = |primary: usize| primary * usize::from(SLOTS) / primaries;
            let [first, last] = [at(primary), at(primary + 1) - 1].map(|slot| slot.to_string());
            cluster.order(primary, &["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await;
        }
        for replica in primaries..count {
            cluster.replicate(replica, replica % primaries).await;
        }
        cluster.settled().await;
        Some(cluster)
    }

    async fn start_node(&self) -> Option<Server> {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        Server::start_node(self.kind, &arguments).await
    }

    /// Counts a node in.
    async fn enter(&mut self, node: Server) {
        self.ids.push(node.command(&["CLUSTER", "MYID"]).await.text());
        self.nodes.push(node);
    }

    /// Sends a node a command that it must take.
    async fn order<A: AsRef<[u8]>>(&self, index: usize, command: &[A]) {
        let reply = self.nodes[index].command(command).await;
        let command: Vec<_> = command.iter().map(|part| String::from_utf8_lossy(part.as_ref())).collect();
        assert_eq!(reply, Reply::Simple("OK".to_owned()), "{command:?} of node {index}");
    }

    async fn meet(&self, index: usize, other: usize) {
        let (port, bus) = (self.nodes[other].port().to_string(), self.nodes[other].bus_port().to_string());
        self.order(index, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await;
    }

    /// Makes a node a replica of another, once it knows it.
    async fn replicate(&self, replica: usize, primary: usize) {
        let command = ["CLUSTER", "REPLICATE", &self.ids[primary]];
        eventually(SETTLES_WITHIN, async || {
            self.nodes[replica].command(&command).await.text_or_error() == "OK"
        })
        .await;
    }

    /// Returns the ports of all nodes that are part of it, in their order.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(Server::port).collect()
    }

    /// Returns a node.
    pub(crate) fn node(&self, index: usize) -> &Server {
        &self.nodes[index]
    }

    /// Returns how many nodes it has.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns the id by which others know a node.
    pub(crate) fn id(&self, index: usize) -> &str {
        &self.ids[index]
    }

    /// Returns what each of the nodes that answer knows.
    async fn views(&self) -> Vec<(usize, Vec<Member>)> {
        let views = self.nodes.iter().enumerate().map(|(index, node)| async move {
            let told = node.try_command(&["CLUSTER", "NODES"], TELLS_WITHIN).await?;
            Some((index, told.text().lines().map(read_member).collect()))
        });
        join_all(views).await.into_iter().flatten().collect()
    }

    /// Returns the primaries that have slots, in the order of nodes: who serves a slot is who was given it last, as
    /// far as any node that answers knows.
    pub(crate) async fn primaries(&self) -> Vec<Primary> {
        let mut owners: Vec<(u64, Option<usize>)> = vec![(0, None); usize::from(SLOTS)];
        for (_, view) in self.views().await {
            for member in view.iter().filter(|member| member.is_primary) {
                let Some(index) = self.ids.iter().position(|id| *id == member.id) else { continue };
                for slot in member.slots.iter().cloned().flatten() {
                    let owner = &mut owners[usize::from(slot)];
                    if owner.1.is_none() || owner.0 < member.epoch {
                        *owner = (member.epoch, Some(index));
                    }
                }
            }
        }
        let mut primaries: BTreeMap<usize, Vec<RangeInclusive<u16>>> = BTreeMap::new();
        for (slot, owner) in (0..SLOTS).zip(owners) {
            let Some(index) = owner.1 else { continue };
            let ranges = primaries.entry(index).or_default();
            match ranges.last_mut() {
                Some(range) if range.end() + 1 == slot => *range = *range.start()..=slot,
                _ => ranges.push(slot..=slot),
            }
        }
        let primary = |(index, slots): (usize, _)| Primary { index, port: self.nodes[index].port(), slots };
        primaries.into_iter().map(primary).collect()
    }

    /// Returns which node serves a slot.
    ///
    /// # Panics
    /// None does.
    pub(crate) async fn primary_of(&self, slot: u16) -> usize {
        let primaries = self.primaries().await;
        let serves = |primary: &&Primary| primary.slots.iter().any(|range| range.contains(&slot));
        primaries.iter().find(serves).expect("every slot has a primary").index
    }

    /// Returns the nodes that replicate a primary and are in order, as a node that answers sees it.
    pub(crate) async fn replicas_of(&self, primary: usize) -> Vec<usize> {
        let Some((_, view)) = self.views().await.into_iter().next() else { return Vec::new() };
        let of = Some(self.ids[primary].clone());
        let replicas = view.into_iter().filter(|member| member.primary == of && !member.has_failed);
        let mut indexes: Vec<usize> =
            replicas.filter_map(|replica| self.ids.iter().position(|id| *id == replica.id)).collect();
        indexes.sort_unstable();
        indexes
    }

    /// Waits until all nodes that run see the same, every slot has a primary that runs, and replicas are up to date.
    ///
    /// # Panics
    /// They do not.
    pub(crate) async fn settled(&self) {
        let deadline = Instant::now() + SETTLES_WITHIN;
        while let Err(reason) = self.is_settled().await {
            assert!(Instant::now() < deadline, "the cluster does not settle: {reason}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn is_settled(&self) -> Result<(), String> {
        let running = self.nodes.iter().filter(|node| node.is_running()).count();
        let views = self.views().await;
        if views.len() < running {
            return Err(format!("{} of {running} nodes answer", views.len()));
        }
        let mut seen: Option<BTreeMap<String, _>> = None;
        for (index, view) in &views {
            let info = self.nodes[*index].command(&["CLUSTER", "INFO"]).await.text();
            if !has_line(&info, "cluster_state:ok") || !has_line(&info, "cluster_slots_assigned:16384") {
                return Err(format!("node {index} says {info}"));
            }
            let of = |member: &Member| (member.is_primary, member.primary.clone(), member.slots.clone());
            // Who is gone may be known to some only.
            let lives = |member: &&Member| {
                let index = self.ids.iter().position(|id| *id == member.id);
                index.is_some_and(|index| self.nodes[index].is_running())
            };
            let here = view.iter().filter(lives).map(|member| (member.id.clone(), of(member))).collect();
            if here != *seen.get_or_insert_with(|| BTreeMap::clone(&here)) || here.len() != running {
                return Err(format!("node {index} sees {here:?}, another {seen:?}"));
            }
            if view.iter().filter(lives).any(|member| member.has_failed) {
                return Err(format!("node {index} takes one that runs for gone: {view:?}"));
            }
            let is_replica = view.iter().any(|member| member.is_myself && !member.is_primary);
            let replication = self.nodes[*index].command(&["INFO", "replication"]).await.text();
            if is_replica && !has_line(&replication, "master_link_status:up") {
                return Err(format!("replica {index} is not up to date"));
            }
        }
        Ok(())
    }

    /// Kills a node as a crash would.
    pub(crate) fn kill(&mut self, index: usize) {
        self.nodes[index].kill9();
    }

    /// Starts a node again, which may have been killed before, on the same port and folder.
    pub(crate) async fn restart(&mut self, index: usize) {
        self.nodes[index].restart().await;
    }

    /// Freezes a node: connections stay open and nothing is answered.
    pub(crate) fn stop(&self, index: usize) {
        self.nodes[index].sigstop();
    }

    /// Ends a freeze.
    pub(crate) fn cont(&self, index: usize) {
        self.nodes[index].sigcont();
    }

    /// Makes a replica the primary in place of its own, which goes on as its replica, and loses nothing; returns
    /// when it is.
    pub(crate) async fn failover(&self, replica: usize) {
        let deadline = Instant::now() + SETTLES_WITHIN;
        while !self.is_primary(replica).await {
            assert!(Instant::now() < deadline, "node {replica} does not take over");
            self.order(replica, &["CLUSTER", "FAILOVER"]).await;
            // Servers give it up by themselves where it takes too long.
            let given_up = Instant::now() + FAILOVER_GIVEN_UP;
            while Instant::now() < given_up && !self.is_primary(replica).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Waits until a node is a primary.
    pub(crate) async fn promoted(&self, replica: usize) {
        eventually(SETTLES_WITHIN, async || self.is_primary(replica).await).await;
    }

    async fn is_primary(&self, index: usize) -> bool {
        let told = self.nodes[index].try_command(&["ROLE"], TELLS_WITHIN).await;
        told.is_some_and(|role| role.array()[0].text() == "master")
    }

    /// Moves slots from one primary to another as all servers can: key by key, with clients redirected by `ASK`
    /// meanwhile.
    pub(crate) async fn move_slots(&self, slots: RangeInclusive<u16>, from: usize, to: usize) {
        let mut source = Connection::open(self.nodes[from].port()).await.expect("the source answers");
        let target_port = self.nodes[to].port().to_string();
        for slot in slots {
            let slot = slot.to_string();
            self.order(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.ids[from]]).await;
            self.order(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.ids[to]]).await;
            loop {
                let keys =
                    source.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).await.expect("a reply");
                if keys.array().is_empty() {
                    break;
                }
                let keys = keys.array().iter().map(Reply::text);
                let moved = ["MIGRATE", "127.0.0.1", &target_port, "", "0", KEY_MOVES_MS, "KEYS"];
                let command: Vec<String> = moved.iter().map(|part| (*part).to_owned()).chain(keys).collect();
                // A key that has ended meanwhile is no error.
                let reply = source.command(&command).await.expect("a reply").text();
                assert!(["OK", "NOKEY"].contains(&reply.as_str()), "{reply}");
            }
            // The target first, so that the slot is never without a primary.
            let node = ["CLUSTER", "SETSLOT", &slot, "NODE", &self.ids[to]];
            self.order(to, &node).await;
            self.order(from, &node).await;
            for primary in self.primaries().await {
                if ![from, to].contains(&primary.index) {
                    self.order(primary.index, &node).await;
                }
            }
        }
    }

    /// Moves slots from one primary to another in one step, as Valkey 9 can; returns when they have moved.
    ///
    /// # Panics
    /// They do not move.
    pub(crate) async fn migrate_slots(&self, slots: RangeInclusive<u16>, from: usize, to: usize) {
        let [first, last] = [slots.start().to_string(), slots.end().to_string()];
        let id = &self.ids[to];
        self.order(from, &["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", &first, &last, "NODE", id]).await;
        let deadline = Instant::now() + SETTLES_WITHIN;
        loop {
            let jobs = self.nodes[from].command(&["CLUSTER", "GETSLOTMIGRATIONS"]).await;
            // The newest comes first.
            let job = jobs.array().first().expect("there is a migration").array();
            let mut parts = job.iter();
            let state = parts.find(|part| matches!(part, Reply::Bulk(name) if name == b"state"));
            let state = state.and_then(|_| parts.next()).expect("a migration has a state").text();
            match state.as_str() {
                "success" => return,
                "failed" | "cancelled" => panic!("the slots do not move: {job:?}"),
                _ => assert!(Instant::now() < deadline, "the slots do not move: {job:?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Adds a primary without slots and returns its place.
    pub(crate) async fn add_primary(&mut self) -> usize {
        let node = self.start_node().await.expect("there was such a server");
        self.enter(node).await;
        let index = self.nodes.len() - 1;
        for other in 0..index {
            if self.nodes[other].is_running() {
                self.meet(index, other).await;
            }
        }
        self.settled().await;
        index
    }

    /// Has all others forget a node that has no slots (and no replicas), and ends it. Its place stays empty.
    pub(crate) async fn remove(&mut self, index: usize) {
        self.nodes[index].kill9();
        // Within a minute, so that none learns of it from another again.
        for other in 0..self.nodes.len() {
            if self.nodes[other].is_running() {
                self.order(other, &["CLUSTER", "FORGET", &self.ids[index]]).await;
            }
        }
        self.settled().await;
    }
}

fn has_line(text: &str, wanted: &str) -> bool {
    text.lines().any(|line| line == wanted)
}

/// Reads a line of `CLUSTER NODES`.
fn read_member(line: &str) -> Member {
    let fields: Vec<&str> = line.split(' ').collect();
    let address = fields[1].split(['@', ',']).next().expect("a first part");
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
    let flags: Vec<&str> = fields[2].split(',').collect();
    let has = |flag: &str| flags.contains(&flag);
    // What moves stands in brackets.
    let slots = fields[8..].iter().filter(|range| !range.starts_with('['));
    let number = |text: &str| text.parse::<u16>().expect("a slot");
    let slots = slots.map(|range| match range.split_once('-') {
        Some((first, last)) => number(first)..=number(last),
        None => number(range)..=number(range),
    });
    Member {
        id: fields[0].to_owned(),
        port,
        is_myself: has("myself"),
        is_primary: has("master"),
        has_failed: has("fail") || has("fail?") || has("handshake"),
        primary: (fields[3] != "-").then(|| fields[3].to_owned()),
        epoch: fields[6].parse().expect("an epoch"),
        slots: slots.collect(),
    }
}

/// Returns the slot of a key: of what stands in its first braces, if that is something.
pub(crate) fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let length = key[open + 1..].iter().position(|byte| *byte == b'}').filter(|length| *length > 0)?;
        Some(&key[open + 1..open + 1 + length])
    });
    // CRC-16/XMODEM.
    let crc = tag.unwrap_or(key).iter().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests;
