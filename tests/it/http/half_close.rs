//! Clients that close their sending half behind what they have asked: they still get every answer.

use tokio::io::AsyncWriteExt as _;

use crate::support::relay::{TestRelay, memory, read_to_end};

const PAGE: &str = "GET /api/v1/topics/t/messages HTTP/1.1\r\nhost: relay\r\n\r\n";
const HEALTH: &str = "GET /health HTTP/1.1\r\nhost: relay\r\n\r\n";
/// A plain publish, for the fast path.
const PLAIN: &str = "POST /api/v1/topics/t/messages HTTP/1.1\r\nhost: relay\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\n1";
/// One that the router has to see.
const OTHER: &str = "POST /api/v1/topics/t/messages?ttl=60 HTTP/1.1\r\nhost: relay\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\n2";
const CHUNKED: &str = "POST /api/v1/topics/t/messages HTTP/1.1\r\nhost: relay\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n1\r\n3\r\n0\r\n\r\n";
const WAITS: &str = "GET /api/v1/topics/t/messages?wait=1 HTTP/1.1\r\nhost: relay\r\n\r\n";

#[tokio::test]
async fn every_answer_that_was_due_is_sent() {
    let relay = TestRelay::start(memory()).await;
    relay.publish("t", "0").await;
    let large = {
        let payload = format!(r#""{}""#, "x".repeat(900_000));
        let length = payload.len();
        format!(
            "POST /api/v1/topics/t/messages HTTP/1.1\r\nhost: relay\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{payload}"
        )
    };
    for requests in [
        &[PAGE][..],
        &[PAGE, HEALTH],
        &[HEALTH, PAGE, HEALTH, PAGE],
        &[PLAIN],
        &[PLAIN, PLAIN, PLAIN],
        &[PLAIN, OTHER],
        &[PLAIN, PLAIN, OTHER, OTHER],
        &[PLAIN, PAGE, PLAIN],
        &[OTHER, PLAIN, CHUNKED],
        &[WAITS],
        &[PAGE, WAITS],
        &[&large, &large, PAGE],
        &[PAGE, PAGE, PAGE, &large],
    ] {
        for cut in [None, Some(1), Some(20)] {
            let all = requests.concat();
            let mut stream = relay.connect().await;
            // The last bytes alone, too: the end comes with them, or behind everything.
            let (first, last) = all.split_at(cut.map_or(0, |cut| all.len() - cut));
            stream.write_all(first.as_bytes()).await.expect("the relay reads");
            tokio::task::yield_now().await;
            stream.write_all(last.as_bytes()).await.expect("the relay reads");
            stream.shutdown().await.expect("it is open");
            let answers = read_to_end(&mut stream).await;
            let count = |text: &[u8]| memchr::memmem::find_iter(&answers, text).count();
            let good = count(b"HTTP/1.1 200") + count(b"HTTP/1.1 201");
            let begins: Vec<_> = requests.iter().map(|request| request.split(' ').next()).collect();
            assert_eq!(good, requests.len(), "{begins:?} cut at {cut:?}");
        }
    }
    relay.stop().await;
}

#[tokio::test]
async fn what_ends_in_the_middle_is_not_done() {
    let relay = TestRelay::start(memory()).await;
    for request in [&PLAIN[..PLAIN.len() - 1], &CHUNKED[..CHUNKED.len() - 5], &OTHER[..40], &PLAIN[..5]] {
        let mut stream = relay.connect().await;
        stream.write_all(request.as_bytes()).await.expect("the relay reads");
        stream.shutdown().await.expect("it is open");
        let answers = read_to_end(&mut stream).await;
        assert!(memchr::memmem::find(&answers, b"HTTP/1.1 201").is_none());
    }
    assert_eq!(relay.get("/api/v1/topics/t").await.status, 404, "nothing was published");
    relay.stop().await;
}
