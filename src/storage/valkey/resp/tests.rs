//! The connection against a server of the test's own, which answers, stalls and breaks as it is told.

use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinSet;

use super::*;

const SOON: Duration = Duration::from_secs(5);
const NOT_LONG: Duration = Duration::from_millis(50);

/// A connection with its driver at work, and the server's end of it, which holds `bytes` in each direction.
fn connected(bytes: usize) -> (Arc<RespConnection>, JoinSet<String>, DuplexStream) {
    let (ours, theirs) = duplex(bytes);
    let (reader, writer) = tokio::io::split(ours);
    let (connection, driver) = RespConnection::new(Box::new(reader), Box::new(writer), false);
    let mut driving = JoinSet::new();
    driving.spawn(driver.drive());
    (Arc::new(connection), driving, theirs)
}

fn pings(count: usize) -> Request {
    let mut request = Request::default();
    for _ in 0..count {
        request.add(&[b"PING"]);
    }
    request
}

fn is_unsent(outcome: &Result<Replies, RespError>) -> bool {
    matches!(outcome, Err(RespError::Unsent(_)))
}

fn is_unanswered(outcome: &Result<Replies, RespError>) -> bool {
    matches!(outcome, Err(RespError::Unanswered(_)))
}

/// Reads as much as these requests take.
async fn take(server: &mut DuplexStream, requests: &[&Request]) {
    let mut bytes = vec![0; requests.iter().map(|request| request.bytes().len()).sum()];
    server.read_exact(&mut bytes).await.expect("the requests");
}

#[tokio::test]
async fn requests_under_way_get_their_own_replies() {
    let (connection, _carrying, mut server) = connected(1_024);
    let (one, two) = (pings(1), pings(2));
    let answering = async {
        take(&mut server, &[&one, &two, &one]).await;
        for piece in [&b":1\r\n:2"[..], b"\r\n:", b"3\r\n:4\r\n"] {
            server.write_all(piece).await.expect("room");
            tokio::task::yield_now().await;
        }
    };
    let (first, second, third, ()) = tokio::join!(
        connection.exchange(&one, SOON),
        connection.exchange(&two, SOON),
        connection.exchange(&one, SOON),
        answering
    );
    let numbers = |replies: Result<Replies, RespError>| -> Vec<i64> {
        replies.expect("replies").iter().filter_map(|reply| reply.integer()).collect()
    };
    assert_eq!([numbers(first), numbers(second), numbers(third)], [vec![1], vec![2, 3], vec![4]]);
}

#[tokio::test]
async fn what_is_under_way_when_the_connection_breaks_is_unknown_and_what_comes_after_was_not_sent() {
    let (connection, mut driving, mut server) = connected(1_024);
    let one = pings(1);
    let breaking = async {
        take(&mut server, &[&one, &one]).await;
        server.write_all(b"+PONG\r\n+PO").await.expect("room");
        drop(server);
    };
    let (first, second, ()) =
        tokio::join!(connection.exchange(&one, SOON), connection.exchange(&one, SOON), breaking);
    assert!(first.is_ok(), "{first:?}");
    assert!(is_unanswered(&second), "{second:?}");
    assert!(is_unsent(&connection.exchange(&one, SOON).await));
    assert!(driving.join_next().await.expect("it ends").expect("no panic").contains("closed"));
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_not_mistaken_for_the_next() {
    let (connection, _carrying, mut server) = connected(1_024);
    let one = pings(1);
    assert!(is_unanswered(&connection.exchange(&one, NOT_LONG).await));
    take(&mut server, &[&one]).await;
    server.write_all(b":1\r\n").await.expect("room");
    let answering = async {
        take(&mut server, &[&one]).await;
        server.write_all(b":2\r\n").await.expect("room");
    };
    let (next, ()) = tokio::join!(connection.exchange(&one, SOON), answering);
    assert_eq!(next.expect("replies").iter().next(), Some(Reply::Integer(2)));
}

#[tokio::test]
async fn a_request_that_is_stuck_half_way_is_unknown_and_those_behind_it_were_not_sent() {
    let (connection, mut driving, _server) = connected(64);
    let (large, small) = (pings(20), pings(1));
    let (stuck, behind) =
        tokio::join!(connection.exchange(&large, NOT_LONG), connection.exchange(&small, SOON));
    assert!(is_unanswered(&stuck), "{stuck:?}");
    assert!(is_unsent(&behind), "{behind:?}");
    assert!(driving.join_next().await.expect("it ends").expect("no panic").contains("half way"));
}

#[tokio::test]
async fn a_request_whose_turn_does_not_come_was_not_sent_and_leaves_the_connection_in_order() {
    let (connection, _carrying, mut server) = connected(64);
    let (large, small) = (pings(20), pings(1));
    let late = async {
        let outcome = connection.exchange(&small, NOT_LONG).await;
        assert!(is_unsent(&outcome), "{outcome:?}");
        take(&mut server, &[&large]).await;
        server.write_all(&b"+PONG\r\n".repeat(20)).await.expect("it is read");
    };
    let (slow, ()) = tokio::join!(connection.exchange(&large, SOON), late);
    assert_eq!(slow.expect("replies").iter().count(), 20);
    let answering = async {
        take(&mut server, &[&small]).await;
        server.write_all(b"+PONG\r\n").await.expect("room");
    };
    let (next, ()) = tokio::join!(connection.exchange(&small, SOON), answering);
    assert!(next.is_ok(), "{next:?}");
}

#[tokio::test]
async fn a_request_of_which_no_byte_was_taken_was_not_sent_and_is_forgotten() {
    let (connection, _carrying, mut server) = connected(14);
    let one = pings(1);
    assert!(is_unanswered(&connection.exchange(&one, NOT_LONG).await), "its bytes fill the link");
    let outcome = connection.exchange(&one, NOT_LONG).await;
    assert!(is_unsent(&outcome), "{outcome:?}");
    take(&mut server, &[&one]).await;
    server.write_all(b":1\r\n").await.expect("room");
    let answering = async {
        take(&mut server, &[&one]).await;
        server.write_all(b":2\r\n").await.expect("room");
    };
    let (next, ()) = tokio::join!(connection.exchange(&one, SOON), answering);
    assert_eq!(next.expect("replies").iter().next(), Some(Reply::Integer(2)));
}

#[tokio::test]
async fn what_is_no_reply_breaks_the_connection() {
    for bytes in ["HTTP/1.1 400\r\n", "+PONG\r\n+PONG\r\n"] {
        let (connection, mut driving, mut server) = connected(1_024);
        let one = pings(1);
        let answering = async {
            take(&mut server, &[&one]).await;
            server.write_all(bytes.as_bytes()).await.expect("room");
        };
        let _ = tokio::join!(connection.exchange(&one, SOON), answering);
        assert!(driving.join_next().await.expect("it ends").expect("no panic").contains("a reply"));
        assert!(is_unsent(&connection.exchange(&one, SOON).await));
    }
}

#[tokio::test]
async fn closing_ends_what_is_under_way_and_waits_its_turn() {
    let (connection, _carrying, _server) = connected(64);
    let (large, small) = (pings(20), pings(1));
    let closing = async {
        tokio::task::yield_now().await;
        connection.close("the test has enough");
    };
    let (stuck, behind, ()) =
        tokio::join!(connection.exchange(&large, SOON), connection.exchange(&small, SOON), closing);
    let text = |outcome: Result<Replies, RespError>| outcome.expect_err("it was closed").to_string();
    assert!(is_unanswered(&stuck) && is_unsent(&behind));
    assert!(text(stuck).contains("has enough") && text(behind).contains("has enough"));
}

#[tokio::test]
async fn requests_that_wait_are_bounded() {
    let (connection, _carrying, _server) = connected(1024 * 1024);
    let one = pings(1);
    for _ in 0..REQUESTS_MAX {
        assert!(is_unanswered(&connection.exchange(&one, Duration::ZERO).await));
    }
    assert!(is_unsent(&connection.exchange(&one, SOON).await));
}

#[tokio::test]
async fn what_comes_over_a_channel_is_heard_between_replies_and_beside_them() {
    let (client, mut server) = duplex(1_024);
    let (reader, writer) = tokio::io::split(client);
    let (connection, driver) = RespConnection::new(Box::new(reader), Box::new(writer), false);
    let (tell, mut told) = tokio::sync::mpsc::channel(8);
    let mut driving = JoinSet::new();
    driving.spawn(driver.listen(move |message| {
        let words: Vec<String> = message
            .filter_map(|part| part.bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
            .collect();
        tell.try_send(words.join(" ")).expect("the test listens");
    }));
    let message = |text: &str| format!(">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n${}\r\n{text}\r\n", text.len());
    let mut subscribed = vec![0; b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n*1\r\n$4\r\nPING\r\n".len()];
    let answering = async {
        server.read_exact(&mut subscribed).await.expect("a request");
        let confirmed = ">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n";
        let all = format!("{confirmed}{}+PONG\r\n{}", message("one"), message("two"));
        for byte in all.as_bytes() {
            server.write_all(&[*byte]).await.expect("room");
        }
    };
    let (done, ()) = tokio::join!(connection.subscribe("SUBSCRIBE", &["c"], SOON), answering);
    assert_eq!(done, Ok(()));
    for expected in ["subscribe c", "message c one", "message c two"] {
        assert_eq!(told.recv().await.as_deref(), Some(expected));
    }
    let refusing = async {
        server.read_exact(&mut subscribed).await.expect("a request");
        server.write_all(b"-NOPERM no such channel for you\r\n+PONG\r\n").await.expect("room");
    };
    let (refused, ()) = tokio::join!(connection.subscribe("SUBSCRIBE", &["c"], SOON), refusing);
    assert_eq!(refused, Err("NOPERM no such channel for you".to_owned()));
    assert!(driving.join_next().await.expect("it ends").expect("no panic").contains("NOPERM"));
}

/// Takes a part and fails, as a writer may that encrypts in pieces.
struct Sealing(DuplexStream);

impl AsyncWrite for Sealing {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        let part = std::pin::Pin::new(&mut self.0).poll_write(cx, &bytes[..bytes.len() / 2]);
        part.map(|_| Err(std::io::ErrorKind::ConnectionReset.into()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn what_may_have_been_sent_in_part_is_not_told_as_unsent() {
    for is_sealed in [true, false] {
        let (ours, _server) = duplex(1_024);
        let (reader, _writes) = duplex(1_024);
        let (connection, _carrier) =
            RespConnection::new(Box::new(reader), Box::new(Sealing(ours)), is_sealed);
        assert_eq!(is_unanswered(&connection.exchange(&pings(4), SOON).await), is_sealed);
    }
}
