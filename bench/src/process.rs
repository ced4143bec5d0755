//! Processes: what the relay and the server behind it cost, as far as this machine shows it.
//!
//! It reads `/proc`. Where that is not there, or hides the process, nothing is reported: a figure that
//! cannot be seen is left out, never guessed.
//!
//! It also tells what the host has kept from a virtual machine: such a machine stands still meanwhile, and
//! every time that is measured across the standstill has it in it.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde::Serialize;

/// Clock ticks a second in `/proc/<pid>/stat`: `USER_HZ`, which Linux keeps at 100 for programs.
const TICKS_PER_SECOND: f64 = 100.0;
/// State of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";
/// State of a connected socket in `/proc/net/tcp`.
const ESTABLISHED: &str = "01";

/// The processes that are watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Processes {
    /// The target.
    pub(crate) relay: Option<u32>,
    /// The Valkey or Redis server behind a relay.
    pub(crate) server: Option<u32>,
}

/// CPU seconds that were used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Cpu {
    /// By the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) relay: Option<f64>,
    /// By the server behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<f64>,
    /// By this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) load: Option<f64>,
}

/// What a run has used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// By the processes.
    pub(crate) cpu: Cpu,
    /// Per cent of the machine's processor time that its host gave to others while it was wanted here:
    /// `steal` in `/proc/stat`.
    pub(crate) stolen_percent: Option<f64>,
}

/// What processes and the machine have used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Snapshot {
    cpu: Cpu,
    machine: Option<Ticks>,
}

/// Processor time of the machine since it started, in ticks of any length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    all: u64,
    stolen: u64,
}

impl Processes {
    /// Finds the process that listens on a local address, and the one that it is itself a client of.
    pub(crate) fn find(address: SocketAddr, relay: Option<u32>, server: Option<u32>) -> Self {
        if !address.ip().is_loopback() {
            return Self { relay, server };
        }
        let sockets = sockets();
        let relay = relay.or_else(|| owner(&listening(&sockets, address.port())));
        let server = server.or_else(|| {
            let own = inodes_of(relay?);
            let ports =
                sockets.iter().filter(|socket| socket.state == ESTABLISHED && own.contains(&socket.inode));
            ports
                .filter(|socket| socket.remote_port != address.port())
                .filter_map(|socket| owner(&listening(&sockets, socket.remote_port)))
                .find(|pid| Some(*pid) != relay && *pid != std::process::id())
        });
        Self { relay, server }
    }

    /// Returns what the processes have used since they started.
    pub(crate) fn snapshot(self) -> Snapshot {
        let of = |pid: Option<u32>| pid.and_then(cpu_seconds);
        let cpu =
            Cpu { relay: of(self.relay), server: of(self.server), load: cpu_seconds(std::process::id()) };
        Snapshot { cpu, machine: fs::read_to_string("/proc/stat").ok().and_then(|stat| ticks_in(&stat)) }
    }
}

impl Snapshot {
    /// Returns what was used since `before`.
    pub(crate) fn since(self, before: Self) -> Usage {
        let machine = self.machine.zip(before.machine);
        let stolen_percent = machine.and_then(|(after, before)| after.stolen_percent_since(before));
        Usage { cpu: self.cpu.since(before.cpu), stolen_percent }
    }
}

impl Ticks {
    #[expect(clippy::cast_precision_loss, reason = "a run has far fewer than 2^52 ticks")]
    fn stolen_percent_since(self, before: Self) -> Option<f64> {
        let (all, stolen) = (self.all.checked_sub(before.all)?, self.stolen.checked_sub(before.stolen)?);
        (all > 0).then(|| stolen as f64 * 100.0 / all as f64)
    }
}

impl Cpu {
    fn since(self, before: Self) -> Self {
        let minus = |after: Option<f64>, before: Option<f64>| Some(after? - before?);
        Self {
            relay: minus(self.relay, before.relay),
            server: minus(self.server, before.server),
            load: minus(self.load, before.load),
        }
    }

    /// Returns what a million of `count` things cost.
    #[expect(clippy::cast_precision_loss, reason = "a run counts far fewer than 2^52 things")]
    pub(crate) fn per_million(self, count: u64) -> Self {
        let each = |seconds: Option<f64>| seconds.filter(|_| count > 0).map(|it| it * 1e6 / count as f64);
        Self { relay: each(self.relay), server: each(self.server), load: each(self.load) }
    }
}

fn cpu_seconds(pid: u32) -> Option<f64> {
    cpu_in(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads user and system time from a line of `/proc/<pid>/stat`. The name before them can hold anything,
/// a closing parenthesis too.
fn cpu_in(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / TICKS_PER_SECOND)
}

/// Reads the first line of `/proc/stat`: user, nice, system, idle, waiting for disks, interrupts of two
/// kinds and stolen. What guests have used, behind them, is counted as user time already.
fn ticks_in(stat: &str) -> Option<Ticks> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(8);
    let fields: Vec<u64> = fields.map(str::parse).collect::<Result<_, _>>().ok()?;
    Some(Ticks { all: fields.iter().sum(), stolen: *fields.get(7)? })
}

/// Returns the resident memory of a process in bytes.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// A socket of this machine.
#[derive(Debug, PartialEq, Eq)]
struct Socket {
    local_port: u16,
    remote_port: u16,
    state: String,
    inode: u64,
}

fn sockets() -> Vec<Socket> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (v4, v6) = (read("/proc/net/tcp"), read("/proc/net/tcp6"));
    v4.lines().chain(v6.lines()).filter_map(socket).collect()
}

fn socket(line: &str) -> Option<Socket> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let port = |field: &str| u16::from_str_radix(field.rsplit_once(':')?.1, 16).ok();
    Some(Socket {
        local_port: port(fields.get(1)?)?,
        remote_port: port(fields.get(2)?)?,
        state: (*fields.get(3)?).to_owned(),
        inode: fields.get(9)?.parse().ok()?,
    })
}

fn listening(sockets: &[Socket], port: u16) -> HashSet<u64> {
    let here = sockets.iter().filter(|socket| socket.state == LISTEN && socket.local_port == port);
    here.map(|socket| socket.inode).collect()
}

/// Returns the process that has one of the sockets open.
fn owner(inodes: &HashSet<u64>) -> Option<u32> {
    if inodes.is_empty() {
        return None;
    }
    let pids = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(|pid| !inodes_of(*pid).is_disjoint(inodes))
}

fn inodes_of(pid: u32) -> HashSet<u64> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return HashSet::new() };
    entries.flatten().filter_map(|entry| inode(&fs::read_link(entry.path()).ok()?)).collect()
}

fn inode(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Returns how many processors there are.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_kernel_are_read() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 1 2 3";
        assert_eq!(cpu_in(stat), Some(3.0));
        let stat = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10";
        assert_eq!(ticks_in(stat), Some(Ticks { all: 36, stolen: 8 }));
        assert_eq!(ticks_in("cpu  1 2 3"), None);
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 77 1";
        let expected = Socket { local_port: 8080, remote_port: 0, state: LISTEN.to_owned(), inode: 77 };
        assert_eq!(socket(line), Some(expected));
        assert_eq!(socket("  sl  local_address rem_address   st"), None);
        assert_eq!(inode(Path::new("socket:[12]")), Some(12));
    }

    #[test]
    fn the_process_behind_a_port_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let found = Processes::find(listener.local_addr().expect("an address"), None, None);
        assert_eq!(found.relay, Some(std::process::id()));
        assert!(resident_bytes(std::process::id()).is_some_and(|bytes| bytes > 100_000));
        let before = found.snapshot();
        assert!(before.cpu.relay.is_some());
        let stolen = |all, stolen| Ticks { all, stolen }.stolen_percent_since(Ticks { all: 36, stolen: 8 });
        assert_eq!((stolen(136, 28), stolen(36, 8), stolen(35, 8)), (Some(20.0), None, None));
    }

    #[test]
    fn what_is_not_seen_is_left_out() {
        let after = Cpu { relay: Some(3.0), server: None, load: Some(1.0) };
        let before = Cpu { relay: Some(1.0), server: Some(1.0), load: Some(0.5) };
        let used = after.since(before).per_million(500_000);
        assert_eq!(used, Cpu { relay: Some(4.0), server: None, load: Some(1.0) });
        assert_eq!(after.per_million(0).relay, None);
    }
}
