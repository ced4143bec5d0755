//! Tickets.

use std::time::Duration;

use bytes::Bytes;
use tidemill::storage::{NewTicket, TicketClaim};
use tokio::task::JoinSet;

use crate::support::eventually;
use crate::support::ground::Ground;

const LONG: Duration = Duration::from_mins(1);

/// Returns a digest that was never one before.
fn digest() -> [u8; 16] {
    let [one, two] = [(); 2].map(|()| tidemill::chance::random().to_be_bytes());
    [one, two].concat().try_into().expect("sixteen bytes")
}

fn ticket(maker: [u8; 16], opens_within: Duration) -> NewTicket {
    let id = format!("{:032x}", u128::from_be_bytes(digest())).into();
    NewTicket {
        id,
        maker,
        hash: [7; 32],
        document: Bytes::from_static(b"{\"a\":\"\xc3\xa9\n\"}"),
        opens_within,
    }
}

fn claim(of: &NewTicket, place: u8, resumes: bool, holder: u64) -> TicketClaim {
    TicketClaim { id: of.id.clone(), hash: of.hash, place: [place; 16], resumes, holder, kept_for: LONG }
}

pub(super) async fn a_ticket_opens_one_thing_and_then_resumes_that(ground: &Ground) {
    let access = &ground.storage.access;
    let new = ticket(digest(), LONG);
    let claimed = async |claim: TicketClaim| access.claim_ticket(&claim).await.expect("it answers");
    assert_eq!(claimed(claim(&new, 1, false, 1)).await, None, "before it is kept");
    assert!(access.put_ticket(new.clone()).await.expect("it answers"));
    let wrong = TicketClaim { hash: [8; 32], ..claim(&new, 1, false, 1) };
    assert_eq!(claimed(wrong).await, None, "who knows the id alone");
    let ids = [new.id.clone(), "0".repeat(32).into()];
    assert_eq!(access.ticket_holders(&ids).await.expect("it answers"), [None, None]);
    assert_eq!(claimed(claim(&new, 1, false, u64::MAX)).await, Some(new.document.clone()), "byte for byte");
    assert_eq!(access.ticket_holders(&ids).await.expect("it answers"), [Some(u64::MAX), None]);
    for (place, resumes) in [(1, false), (2, false), (2, true)] {
        assert_eq!(claimed(claim(&new, place, resumes, 3)).await, None, "{place} {resumes}");
    }
    assert_eq!(access.ticket_holders(&ids).await.expect("it answers")[0], Some(u64::MAX));
    for holder in [4, 5] {
        assert_eq!(claimed(claim(&new, 1, true, holder)).await, Some(new.document.clone()));
        assert_eq!(access.ticket_holders(&ids).await.expect("it answers")[0], Some(holder));
    }
}

pub(super) async fn of_many_who_open_with_one_ticket_one_does(ground: &Ground) {
    let new = ticket(digest(), LONG);
    assert!(ground.storage.access.put_ticket(new.clone()).await.expect("it answers"));
    let mut claims = JoinSet::new();
    for holder in 1..=20 {
        let (access, claim) = (ground.storage.access.clone(), claim(&new, 1, false, holder));
        claims.spawn(async move { access.claim_ticket(&claim).await.expect("it answers").is_some() });
    }
    assert_eq!(claims.join_all().await.into_iter().filter(|is_taken| *is_taken).count(), 1);
}

pub(super) async fn tickets_end_in_time_and_a_maker_s_oldest_goes(ground: &Ground) {
    let access = &ground.storage.access;
    let short = ticket(digest(), Duration::from_millis(200));
    assert!(access.put_ticket(short.clone()).await.expect("it answers"));
    // Claimed in vain, it is not kept for longer.
    let wrong = TicketClaim { hash: [8; 32], ..claim(&short, 1, false, 1) };
    let began = tokio::time::Instant::now();
    eventually(Duration::from_secs(5), async || {
        assert_eq!(access.claim_ticket(&wrong).await.expect("it answers"), None);
        began.elapsed() > Duration::from_millis(300)
    })
    .await;
    assert_eq!(access.claim_ticket(&claim(&short, 1, false, 1)).await.expect("it answers"), None);

    let (maker, other) = (digest(), ticket(digest(), LONG));
    assert!(access.put_ticket(other.clone()).await.expect("it answers"));
    let all: Vec<_> = (0..1_001_u64).map(|at| ticket(maker, LONG + Duration::from_millis(at))).collect();
    for new in &all {
        assert!(access.put_ticket(new.clone()).await.expect("it answers"));
    }
    let is_there = async |new: &NewTicket| {
        access.claim_ticket(&claim(new, 1, false, 1)).await.expect("it answers").is_some()
    };
    assert!(!is_there(&all[0]).await, "the oldest made room");
    assert!(is_there(&all[1]).await && is_there(&all[1_000]).await && is_there(&other).await);
}
