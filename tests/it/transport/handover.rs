//! The hand-over of a connection out of the HTTP library, wherever its bytes are cut: nothing is lost,
//! nothing is written twice, and the order stays.

use std::fs;
use std::path::Path;

use proptest::test_runner::{Config, TestRunner};

use super::flight::{Flight, flights, prepare};
use crate::support::pipe::{self, Dialer};
use crate::support::relay::{TestRelay, memory};

/// The version of the HTTP library that the hand-over was looked at with.
const HYPER: &str = "1.12.0";

#[test]
fn the_http_library_is_the_one_that_the_hand_over_was_looked_at_with() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    let lock = fs::read_to_string(lock).expect("the lock file is in the repository");
    let mut lines = lock.lines().skip_while(|line| *line != r#"name = "hyper""#);
    let version = lines.nth(1).and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    assert_eq!(
        version,
        Some(HYPER),
        "hyper has changed: see in its `proto/h1/dispatch.rs` (`poll_loop`) and `proto/h1/io.rs` \
         (`poll_flush`) that it still flushes the socket whenever it has written everything, and before \
         it waits; that it writes nothing for a request whose answer is pending; and that `into_parts` \
         gives back all that it has read ahead. `src/server/handover.rs` rests on that. Run the tests of \
         this file with many more cases (`PROPTEST_CASES=20000`), then name the new version here"
    );
}

async fn keeps_every_byte(relay: &TestRelay, dialer: &Dialer, flight: Flight) {
    let client = dialer.connect(flight.taking, |transport| transport).await;
    for piece in flight.pieces() {
        client.send(&piece);
    }
    let mut back = Vec::new();
    while !flight.is_answered(&back) {
        let more = client.more().await;
        assert!(!more.is_empty(), "the relay hung up after {}", back.escape_ascii());
        back.extend(more);
    }
    if let Some(text) = flight.follow_up(relay).await {
        while memchr::memmem::find(&back, text.as_bytes()).is_none() {
            back.extend(client.more().await);
        }
    }
    client.end();
    loop {
        let more = client.more().await;
        if more.is_empty() {
            break;
        }
        back.extend(more);
    }
    flight.check(relay, &back).await;
}

#[test]
fn the_hand_over_keeps_every_byte_wherever_they_are_cut() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (listener, dialer) = pipe::listener();
    let relay = runtime.block_on(async {
        let relay = TestRelay::start_with(memory(), |options| options.listen.push(listener)).await;
        prepare(&relay).await;
        relay
    });
    let config = Config { source_file: Some(file!()), ..Config::default() };
    let outcome = TestRunner::new(config).run(&flights(), |flight| {
        runtime.block_on(keeps_every_byte(&relay, &dialer, flight));
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    runtime.block_on(relay.stop());
}
