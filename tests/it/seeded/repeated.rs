//! R34: the same seed gives the same run, call by call of the storage and item by item of every reader.
//!
//! It holds for the room of the relay on one thread with time held: publishing, feeds, readers and the
//! faults themselves. Sockets are not in it: when the system hands bytes over is not ours to say. Nor are
//! several topics: which of them wait for each other while their feeds begin is left to chance on purpose.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::support::dice::seeds;
use crate::support::length;

/// How many lines are shown of what was the same, in front of what was not.
const SHOWN: usize = 12;

/// Runs a scenario, and returns what happened, line by line.
fn run(seed: u64) -> Vec<String> {
    // A runtime of its own: what is left of one run must not reach into the next.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let (faulty, readings) = super::inside(seed, &["seeded.one"]).await;
        let mut lines = faulty.trace();
        lines.extend(readings.iter().map(|reading| format!("{reading:?}")));
        lines
    })
}

fn hash(lines: &[String]) -> u64 {
    let mut hasher = DefaultHasher::new();
    lines.hash(&mut hasher);
    hasher.finish()
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in seeds(length::pick(10, 500)) {
        let (once, again) = (run(seed), run(seed));
        let differs = once.iter().zip(&again).position(|(one, other)| one != other);
        if let Some(at) = differs {
            let same = once[at.saturating_sub(SHOWN)..at].join("\n");
            panic!(
                "of {} lines the {at}th: {}\nand then {}\nbehind\n{same}",
                once.len(),
                once[at],
                again[at]
            );
        }
        assert_eq!(hash(&once), hash(&again), "{} lines, then {}", once.len(), again.len());
        length::tell(format_args!("seed {seed}: {} lines, {:016x}", once.len(), hash(&once)));
    }
}
