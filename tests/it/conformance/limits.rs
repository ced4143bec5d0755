//! Allowances.

use std::time::Duration;

use tidemill::storage::{Draw, Places, QuotaId, Rate, Unspent};
use tokio::task::JoinSet;

use crate::support::always;
use crate::support::eventually;
use crate::support::ground::Ground;

/// Returns a quota of its own.
fn quota() -> QuotaId {
    let [one, two] = [(); 2].map(|()| tidemill::chance::random().to_be_bytes());
    [one, two].concat().try_into().expect("sixteen bytes")
}

fn draw(quota: QuotaId, amount: u32, within: Duration) -> Draw {
    let rate = Rate { amount, within };
    Draw { quota, rate, slices: 10, hold: Duration::ZERO, most: amount, back: None }
}

const MINUTE: Duration = Duration::from_mins(1);

pub(super) async fn however_many_draw_no_more_is_granted_than_the_rate(ground: &Ground) {
    let of_all = draw(quota(), 500, MINUTE);
    let mut drawing = JoinSet::new();
    for _ in 0..20 {
        let limits = ground.storage.limits.clone();
        drawing.spawn(async move {
            let mut granted = Vec::new();
            loop {
                let drawn = limits.draw(&of_all).await.expect("it answers");
                if drawn.granted == 0 {
                    assert!(drawn.wait > MINUTE / 2 && drawn.wait <= MINUTE * 2, "{drawn:?}");
                    return granted;
                }
                assert_eq!(drawn.wait, Duration::ZERO);
                granted.push(drawn.granted);
            }
        });
    }
    let granted = drawing.join_all().await.concat();
    assert_eq!(granted.iter().sum::<u32>(), 500);
    assert!(granted.iter().all(|one| *one <= 50), "nobody gets more than a tenth at one time: {granted:?}");
    let other = draw(quota(), 500, MINUTE);
    assert_eq!(ground.storage.limits.draw(&other).await.expect("it answers").granted, 50);
}

pub(super) async fn what_comes_back_is_granted_again_and_once(ground: &Ground) {
    let limits = &ground.storage.limits;
    let asked = draw(quota(), 10, MINUTE);
    let first = limits.draw(&Draw { most: 1, ..asked }).await.expect("it answers");
    assert_eq!((first.granted, first.left), (1, 9));
    let back = Draw { most: 0, back: Some(Unspent { slice: first.slice, amount: 1 }), ..asked };
    for _ in 0..2 {
        let drawn = limits.draw(&back).await.expect("it answers");
        assert_eq!((drawn.granted, drawn.left), (0, 10));
    }
}

pub(super) async fn what_was_granted_counts_for_its_time_and_no_longer(ground: &Ground) {
    let limits = &ground.storage.limits;
    let within = Duration::from_secs(1);
    let asked = Draw { most: 1, hold: Duration::from_millis(500), ..draw(quota(), 3, within) };
    let began = tokio::time::Instant::now();
    for _ in 0..3 {
        assert_eq!(limits.draw(&asked).await.expect("it answers").granted, 1);
    }
    let granted = async || limits.draw(&asked).await.expect("it answers").granted;
    always(Duration::from_millis(1_300), async || granted().await == 0).await;
    // The time of the rate, that in which it may be spent, and a part of the time.
    eventually(Duration::from_secs(5), async || granted().await == 1).await;
    assert!(began.elapsed() >= within + Duration::from_millis(500), "{:?}", began.elapsed());
}

pub(super) async fn places_are_held_by_nodes_and_never_more_than_there_are(ground: &Ground) {
    let quota = quota();
    let hold = async |node: u64, count: u32, lease: Duration| {
        let places = Places { quota, node, count, most: 3, lease };
        ground.storage.limits.hold(&places).await.expect("it answers")
    };
    assert!(hold(1, 2, MINUTE).await);
    assert!(!hold(2, 2, MINUTE).await && hold(2, 1, MINUTE).await, "three in all");
    assert!(!hold(1, 3, MINUTE).await && !hold(3, 1, MINUTE).await);
    assert!(hold(1, 2, MINUTE).await, "what it has it keeps");
    assert!(hold(1, 0, MINUTE).await && hold(u64::MAX, 2, Duration::from_millis(300)).await);
    assert!(!hold(3, 1, MINUTE).await);
    eventually(Duration::from_secs(5), async || hold(3, 1, MINUTE).await).await;
    assert!(hold(3, 2, MINUTE).await && !hold(1, 1, MINUTE).await, "the node that is gone holds none");
}
