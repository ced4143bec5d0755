//! K1: what two nodes answer, recorded through kills of the nodes and of their server, is what one table and one lock
//! could have answered, in an order that the clients could have seen.
//!
//! | file | owns |
//! |---|---|
//! | `asking` | how a client asks a node, and whether it knows what came of it |
//! | `checked` | the record of what was asked and told, and its check |
//! | `keys` | what a key may answer, and clients that compare and set |
//! | `once` | what clients that change keys of their own must find: what was acknowledged is there, and there once |
//! | `locks` | what a lock may answer, and clients that hold it, lose it, and write all the same |

mod asking;
mod checked;
mod keys;
mod locks;
mod once;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::asking::Door;
use self::checked::History;
use crate::support::dice::{Dice, seeds};
use crate::support::length;
use crate::support::process::Relay;
use crate::support::server::{Kind, Server, free_port};

/// Clients of a key, and of a lock: half of each begin at one node, and half at the other.
const CLIENTS: u64 = 4;
/// What each of them does in a round.
const STEPS: u64 = 8;
/// How long a client tries to learn what has come of something.
const PATIENCE: Duration = Duration::from_secs(30);

/// What all clients of a run share.
#[derive(Debug)]
struct World {
    nodes: [SocketAddr; 2],
    /// How often a client did not learn what came of something.
    unknown: AtomicUsize,
}

/// A server that keeps what it has acknowledged, and two relays in front of it.
struct Machines {
    server: Server,
    relays: [Option<Relay>; 2],
    addresses: [String; 2],
}

impl Machines {
    async fn start() -> Option<Self> {
        let server = Server::start(Kind::Valkey, &["--appendonly", "yes", "--appendfsync", "always"]).await?;
        let addresses = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
        let mut machines = Self { server, relays: [None, None], addresses };
        for node in 0..2 {
            machines.start_node(node).await;
        }
        Some(machines)
    }

    /// Returns what clients are to know of them.
    fn world(&self) -> Arc<World> {
        let nodes = [0, 1].map(|node: usize| self.addresses[node].parse().expect("an address"));
        Arc::new(World { nodes, unknown: AtomicUsize::new(0) })
    }

    async fn start_node(&mut self, node: usize) {
        let url = format!("redis://127.0.0.1:{}", self.server.port());
        let variables = [("VALKEY_URL", url.as_str()), ("STORAGE_BACKEND", "valkey"), ("LOG_LEVEL", "error")];
        self.relays[node] = Some(Relay::ready_at(&self.addresses[node], &variables, &[]).await);
    }

    /// Kills one after the other, and starts each again.
    async fn kill(mut self, kills: usize, mut dice: Dice) -> Self {
        for kill in 0..kills {
            sleep(Duration::from_millis(100) + dice.up_to_ms(300)).await;
            // All three have their turn in a short run, too.
            match kill % 3 {
                0 => {
                    self.server.kill9();
                    sleep(dice.up_to_ms(300)).await;
                    self.server.restart().await;
                }
                turn => {
                    self.relays[turn - 1] = None;
                    self.start_node(turn - 1).await;
                }
            }
        }
        self
    }
}

/// Lets clients of one key and of one lock do what they do, and checks what they were told.
async fn round(world: &Arc<World>, number: u64, dice: &Dice) {
    let mut dice = dice.of(number);
    let key = Arc::new(keys::Key { name: format!("k{number}"), history: History::default() });
    let lock = Arc::new(locks::Lock {
        name: format!("l{number}"),
        waits: dice.chance(500),
        history: History::default(),
    });
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let door = |of: u64| {
            Door::new(world.clone(), client, Instant::now() + PATIENCE, format!("{number}-{of}-{client}"))
        };
        clients.spawn(keys::act(key.clone(), door(0), dice.of(client)));
        clients.spawn(locks::act(lock.clone(), door(1), dice.of(CLIENTS + client)));
    }
    clients.join_all().await;
    let checking = tokio::task::spawn_blocking(move || {
        key.history.check(keys::Register::default(), &key.name);
        lock.history.check(locks::Held::new(lock.waits), &lock.name);
    });
    checking.await.expect("it is linearizable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_nodes_answer_through_kills_is_linearizable() {
    for seed in seeds(length::pick(1, 30)) {
        let dice = Dice::from_seed(seed);
        let Some(machines) = Machines::start().await else { return };
        let world = machines.world();
        let is_over = AtomicBool::new(false);
        let killing = async {
            let machines = machines.kill(length::pick(6, 60), dice.of(1_000_000)).await;
            is_over.store(true, Ordering::Relaxed);
            machines
        };
        let rounds = async {
            for number in 0.. {
                // Once more, where nothing is killed.
                let is_last = is_over.load(Ordering::Relaxed) && number > 3;
                round(&world, number, &dice).await;
                if is_last {
                    return number + 1;
                }
            }
            unreachable!("the numbers do not end")
        };
        let (machines, rounds) = tokio::join!(killing, rounds);
        drop(machines);
        let unknown = world.unknown.load(Ordering::Relaxed);
        length::tell(format_args!("{rounds} rounds are linearizable, {unknown} answers were lost"));
    }
}
