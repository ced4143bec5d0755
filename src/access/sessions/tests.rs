//! Sessions end when they are ended, and one after the other while the node drains.

use futures_util::FutureExt as _;

use super::*;
use crate::access::Who;
use crate::access::token::{NewToken, TokenKind};

#[tokio::test]
async fn a_caller_s_sessions_are_ended_and_no_others() {
    let sessions = Sessions::new(CancellationToken::new());
    let (one, other) = (Caller::nobody(1), Caller::nobody(2));
    let (first, second, third) = (
        sessions.open(&one, Opening::by_the_node()),
        sessions.open(&other, Opening::by_the_node()),
        sessions.open(&one, Opening::by_the_node()),
    );
    drop(third);
    assert_eq!((sessions.count(), sessions.end(&one)), (2, 1));
    assert_eq!(first.farewell().now_or_never(), Some(Leave::Ended));
    assert_eq!(second.farewell().now_or_never(), None);
    drop((first, second));
    assert_eq!((sessions.count(), sessions.end(&one)), (0, 0));
    assert_eq!(
        sessions.open(&one, Opening::by_the_node()).farewell().now_or_never(),
        None,
        "one that comes later"
    );
    assert!(sessions.0.open.lock().by_caller.is_empty(), "nothing is left of those that went");
}

#[tokio::test]
async fn a_ticket_is_of_who_came_with_it_last_whoever_begins_first() {
    let sessions = Sessions::new(CancellationToken::new());
    let ticket = NewToken::make(TokenKind::Ticket).id;
    let with_ticket = || {
        let who = Who::Ticket { id: ticket.as_str().into(), maker: Box::new(Who::Anyone) };
        Caller::of(who, &["allow read *"], None)
    };
    let (first, second) = (with_ticket(), with_ticket());
    let is_over = |session: &Session| session.farewell().now_or_never() == Some(Leave::Ended);
    assert_eq!(sessions.note_ticket(ticket, 1, &first), None);
    assert_eq!(sessions.note_ticket(ticket, 2, &second), Some(first.clone()));
    assert_eq!(sessions.end(&first), 0, "it has not begun");
    assert!(
        is_over(&sessions.open(&first, Opening::by_the_node()))
            && !is_over(&sessions.open(&second, Opening::by_the_node()))
    );
    // Another node has told that somebody came there.
    assert_eq!(sessions.forget_ticket(ticket, 1), None);
    assert_eq!(sessions.forget_ticket(ticket, 2), Some(second.clone()));
    assert!(is_over(&sessions.open(&second, Opening::by_the_node())));
}

#[tokio::test]
async fn farewells_are_spread_over_their_time() {
    let draining = CancellationToken::new();
    let sessions = Sessions::new(draining.clone());
    let spread = Duration::from_millis(200);
    sessions.spread_over(spread);
    let open: Vec<_> = (0..64).map(|_| sessions.open(&Caller::anyone(), Opening::by_the_node())).collect();
    let farewells: Vec<_> = open.iter().map(Session::farewell).collect();
    draining.cancel();
    let began = tokio::time::Instant::now();
    let mut early = 0;
    for farewell in farewells {
        let turn = farewell.share.of(spread);
        assert!(turn < spread);
        early += usize::from(turn < spread / 2);
        assert_eq!(farewell.await, Leave::Draining);
        assert!(began.elapsed() >= turn);
    }
    assert!((8..=56).contains(&early), "{early} of 64 in the first half");
}

#[tokio::test]
async fn who_waits_for_its_turn_leaves_sooner_where_the_node_ends() {
    let draining = CancellationToken::new();
    let sessions = Sessions::new(draining.clone());
    sessions.spread_over(Duration::from_hours(24 * 365));
    let open: Vec<_> = (0..16).map(|_| sessions.open(&Caller::anyone(), Opening::by_the_node())).collect();
    let mut farewells: Vec<_> = open.iter().map(Session::farewell).collect();
    draining.cancel();
    // All but one whose share may be nothing of a year.
    let waits = farewells.iter_mut().map(poll_once).filter(Option::is_none).count();
    assert!(waits >= 12, "{waits} of 16 wait");
    sessions.end_within(Duration::from_millis(100));
    let all = futures_util::future::join_all(farewells.into_iter().filter(|it| it.wait.is_some()));
    let told = tokio::time::timeout(Duration::from_secs(20), all).await.expect("all leave");
    assert!(told.iter().all(|leave| *leave == Leave::Draining));
}

fn poll_once(farewell: &mut Farewell) -> Option<Leave> {
    std::pin::Pin::new(farewell).now_or_never()
}
