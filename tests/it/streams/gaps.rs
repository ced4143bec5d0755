//! Holes are told on every transport: trims that overtake a reader, topics that were deleted or made
//! again, cursors that no message can have had.

use std::fmt::Write as _;

use serde_json::{Value, json};
use tidemill::storage::Trim;
use tokio::time::timeout;

use super::client::{Coming, number};
use super::{numbered_lines, on_both_backends};
use crate::support::dice::Dice;
use crate::support::ground::{Ground, append_numbers, topic};
use crate::support::relay::{STUCK, TestRelay};
use crate::support::ws::WsClient;

const PATH: &str = "/api/v1/topics/gaps/messages";

/// The transports, as ways to ask for everything behind a cursor: the first gap, if there is one, and
/// the first message.
async fn ask(relay: &TestRelay, transport: &str, cursor: &str) -> (Option<Value>, Option<Value>) {
    timeout(STUCK, ask_for_ever(relay, transport, cursor))
        .await
        .unwrap_or_else(|_| panic!("{transport} gives nothing behind {cursor}"))
}

async fn ask_for_ever(relay: &TestRelay, transport: &str, cursor: &str) -> (Option<Value>, Option<Value>) {
    match transport {
        "events" => {
            let path = format!("{PATH}?after={cursor}");
            let mut coming = Coming::events(relay.address, &path, &[]).await.unwrap();
            let mut gap = None;
            loop {
                let event = coming.event().await.unwrap().expect("it goes on");
                if event.is_message() {
                    return (gap, Some(event.json()));
                }
                if event.name.as_deref() == Some("gap") {
                    assert_eq!(event.id, None);
                    gap = Some(event.json());
                }
            }
        }
        "lines" => {
            let mut coming = Coming::lines(relay.address, &format!("{PATH}?after={cursor}")).await.unwrap();
            let mut gap = None;
            loop {
                let mut line = coming.line().await.unwrap().expect("it goes on");
                match line.as_object_mut().unwrap().remove("type").unwrap().as_str() {
                    Some("message") => return (gap, Some(line)),
                    Some("gap") => gap = Some(line),
                    other => panic!("{other:?}"),
                }
            }
        }
        "poll" => {
            let body = json!({"topics": ["gaps"], "since": {"gaps": cursor}}).to_string();
            let answer = relay.post("/messages/poll", body).await.json();
            let first = |list: &Value| list.as_array().and_then(|list| list.first()).cloned();
            (first(&answer["gaps"]), first(&answer["messages"]))
        }
        query => {
            let page = relay.get(&format!("{PATH}?{query}&after={cursor}")).await.json();
            (page.get("gap").cloned(), page["messages"].as_array().unwrap().first().cloned())
        }
    }
}

const TRANSPORTS: [&str; 5] = ["events", "lines", "poll", "wait=30", "order=asc"];

async fn a_trimmed_cursor_is_told_on_every_transport(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    let topic = topic("gaps");
    let ids = append_numbers(&ground.storage, &topic, 100).await;
    ground.storage.messages.trim(&topic, Trim::Keep(10)).await.unwrap();
    for transport in TRANSPORTS {
        let (gap, message) = ask(&relay, transport, &ids[19].to_string()).await;
        let gap = gap.unwrap_or_else(|| panic!("{transport}: no gap"));
        assert_eq!((&gap["topic"], &gap["reason"]), (&json!("gaps"), &json!("trimmed")), "{transport}");
        assert_eq!(gap["from"], ids[19].to_string(), "{transport}");
        assert_eq!(gap["to"], ids[90].to_string(), "{transport}");
        assert_eq!(number(&message.expect("a message")), 90, "{transport}");

        let (gap, message) = ask(&relay, transport, &ids[95].to_string()).await;
        assert_eq!(gap, None, "{transport}: nothing is missing");
        assert_eq!(number(&message.expect("a message")), 96, "{transport}");
    }
    relay.stop().await;
}

/// R25: cursors that nobody can have got.
async fn strange_cursors_are_refused_or_told(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    let ids = append_numbers(&ground.storage, &topic("gaps"), 3).await;
    let future = format!("{}-0", ids[2].ms + 3_600_000);
    // Nobody knows what such a cursor is of: the reader begins anew.
    let asking = TRANSPORTS.into_iter().flat_map(|transport| {
        let relay = &relay;
        [future.clone(), "18446744073709551615-18446744073709551615".to_owned()].map(|cursor| async move {
            let (gap, message) = ask(relay, transport, &cursor).await;
            let gap = gap.unwrap_or_else(|| panic!("{transport} {cursor}: no gap"));
            assert_eq!((&gap["reason"], &gap["from"]), (&json!("reset"), &json!(cursor)), "{transport}");
            assert_eq!(message.map(|message| number(&message)), Some(0), "{transport} {cursor}");
        })
    });
    futures_util::future::join_all(asking).await;
    for cursor in
        ["$", "-", "+", "%3E", "0x1-0", "1-", "-1", "18446744073709551616-0", "1-0-0", "last", "%00"]
    {
        for accept in ["application/json", "text/event-stream", "application/x-ndjson"] {
            let path = format!("{PATH}?after={cursor}");
            let answer = relay.send("GET", &path, &[("accept", accept)], b"").await;
            assert_eq!(answer.problem().field.as_deref(), Some("after"), "{cursor} {accept}");
        }
        let body = json!({"topics": ["gaps"], "since": {"gaps": cursor}, "timeout": 1}).to_string();
        let answer = relay.post("/messages/poll", body).await;
        assert_eq!(answer.problem().field.as_deref(), Some("since.gaps"), "{cursor}");
    }
    relay.stop().await;
}

/// R25: whatever is written as a cursor is a cursor or the fault of who wrote it, and never a question to
/// the storage.
async fn no_text_is_more_than_a_cursor_or_a_mistake(ground: &Ground) {
    let mut dice = Dice::cast();
    let relay = TestRelay::start(ground.storage.clone()).await;
    append_numbers(&ground.storage, &topic("gaps"), 3).await;
    let mut socket = WsClient::connect(relay.address).await;
    let alphabet = [
        "0",
        "1",
        "9",
        "18446744073709551615",
        "-",
        "-",
        ":",
        ".",
        "T",
        "Z",
        "+",
        "$",
        ">",
        "*",
        "(",
        "[",
        "ms",
        "h",
        "d",
        "earliest",
        "latest",
        " ",
        "\0",
        "\r\n",
        "\"",
        "é",
        "\u{1F30A}",
        "%",
        "STREAMS",
        "&",
    ];
    let (mut taken, mut refused) = (0, 0);
    let good = ["earliest", "latest", "0-0", "1-1", "-5m", "-10ms", "2020-01-01T00:00:00Z"];
    for attempt in 0..400 {
        let cursor: String = match attempt % 8 {
            0 => dice.pick(&good).to_owned(),
            _ => (0..=dice.roll(5)).map(|_| dice.pick(&alphabet)).collect(),
        };
        let mut encoded = String::new();
        for byte in cursor.bytes() {
            let _ = write!(encoded, "%{byte:02X}");
        }
        let page = relay.get(&format!("{PATH}?after={encoded}")).await;
        let text = page.text();
        assert!(!text.contains("ERR") && !text.contains("WRONGTYPE") && !text.contains("stream:"), "{text}");
        let is_taken = match page.status {
            200 => true,
            400 => {
                assert_eq!(page.problem().field.as_deref(), Some("after"), "{cursor:?}");
                false
            }
            _ => panic!("{cursor:?}: {page:?}"),
        };
        let accept = [("accept", "application/x-ndjson")];
        if !is_taken {
            let stream = relay.send("GET", &format!("{PATH}?after={encoded}"), &accept, b"").await;
            assert_eq!(stream.problem().field.as_deref(), Some("after"), "{cursor:?}");
            let body = json!({"topics": ["gaps"], "since": {"gaps": cursor}, "timeout": 1}).to_string();
            let poll = relay.post("/messages/poll", body).await;
            assert_eq!(poll.problem().field.as_deref(), Some("since.gaps"), "{cursor:?}");
        }
        // `last` is a word for the end on the WebSocket alone, and is not among these.
        let subscribe = json!({"type": "subscribe", "topics": ["gaps"], "offset": cursor}).to_string();
        socket.send(&subscribe).await;
        loop {
            let frame = socket.frame().await;
            match frame["type"].as_str() {
                Some("subscribed") => break assert!(is_taken, "{cursor:?}"),
                Some("error") => {
                    assert!(!is_taken, "{cursor:?}");
                    break assert_eq!(frame["details"]["field"], "offset", "{frame}");
                }
                Some("message" | "gap") => {}
                _ => panic!("{frame}"),
            }
        }
        (taken, refused) = (taken + usize::from(is_taken), refused + usize::from(!is_taken));
    }
    assert!(taken >= 50 && refused > 200, "{taken} taken, {refused} refused");
    relay.stop().await;
}

/// R22: readers that read slowly while the topic is trimmed under them.
async fn what_is_trimmed_under_a_reader_is_a_gap_and_never_silent(ground: &Ground) {
    const ROUNDS: u64 = 60;
    const BATCH: u64 = 100;
    let relay = TestRelay::start_with(ground.storage.clone(), |options| {
        options.http.subscriber_bytes_max = 8 * 1024;
    })
    .await;
    let topic = topic("gaps");
    relay.publish("gaps", "-1").await;
    let last = ROUNDS * BATCH - 1;
    let writing = async {
        for round in 0..ROUNDS {
            let lines = numbered_lines(round * BATCH..(round + 1) * BATCH);
            let headers = [("content-type", "application/x-ndjson")];
            assert_eq!(relay.send("POST", PATH, &headers, lines.as_bytes()).await.status, 207);
            ground.storage.messages.trim(&topic, Trim::Keep(70)).await.unwrap();
        }
    };
    // Each number is there, or between two that are there stands a gap that spans it.
    let lines = async {
        let mut coming = Coming::lines(relay.address, &format!("{PATH}?after=earliest")).await.unwrap();
        let (mut expected, mut gap) = (None, false);
        loop {
            let line = coming.line().await.unwrap().expect("it goes on");
            if line["type"] == "gap" {
                assert_eq!(line["reason"], "trimmed");
                gap = true;
                continue;
            }
            let Some(number) = line["payload"].as_u64() else { continue };
            match expected {
                Some(expected) if !gap => assert_eq!(number, expected, "no gap was told"),
                Some(expected) => assert!(number >= expected),
                None => {}
            }
            (expected, gap) = (Some(number + 1), false);
            if number == last {
                return;
            }
        }
    };
    let pages = async {
        let (mut cursor, mut expected, mut told) = ("earliest".to_owned(), None, false);
        loop {
            let page = relay.get(&format!("{PATH}?wait=10&limit=40&after={cursor}")).await.json();
            page["resume"].as_str().expect("where to go on").clone_into(&mut cursor);
            // A page that has met a second gap before any message ends with the first one alone.
            told |= page.get("gap").is_some();
            for message in page["messages"].as_array().unwrap() {
                let Some(number) = message["payload"].as_u64() else { continue };
                assert!(expected.is_none_or(|expected| number == expected || told), "{number} {expected:?}");
                (expected, told) = (Some(number + 1), false);
            }
            if expected == Some(last + 1) {
                return;
            }
        }
    };
    timeout(3 * STUCK, async { tokio::join!(writing, lines, pages) }).await.expect("all come to the end");
    relay.stop().await;
}

/// R26: the topic goes away and comes back.
async fn a_topic_that_is_made_again_is_told(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    let old = relay.publish("gaps", "0").await;
    let mut events = Coming::events(relay.address, PATH, &[]).await.unwrap();
    let mut lines = Coming::lines(relay.address, PATH).await.unwrap();
    relay.publish("gaps", "1").await;
    assert_eq!(events.message().await.unwrap().unwrap().json()["payload"], 1);
    assert_eq!(lines.line().await.unwrap().unwrap()["payload"], 1);
    let waiting = async {
        let body = json!({"topics": ["gaps"], "since": {"gaps": old}, "timeout": 20}).to_string();
        let first = relay.post("/messages/poll", body).await.json();
        assert_eq!(first["messages"][0]["payload"], 1);
        let body = json!({"topics": ["gaps"], "since": first["cursors"], "timeout": 20}).to_string();
        relay.post("/messages/poll", body).await.json()
    };
    let remaking = async {
        crate::support::eventually(STUCK, || async {
            relay.get("/messages/poll/stats").await.json()["active_waiters"] == 1
        })
        .await;
        assert_eq!(relay.send("DELETE", "/api/v1/topics/gaps", &[], b"").await.status, 204);
        relay.publish("gaps", "2").await;
    };
    let (answer, ()) = tokio::join!(waiting, remaking);
    assert_eq!(answer["gaps"][0]["reason"], "deleted", "{answer}");
    assert_eq!(answer["messages"][0]["payload"], 2);
    let gap = events.event().await.unwrap().unwrap();
    assert_eq!((gap.name.as_deref(), &gap.json()["reason"]), (Some("gap"), &json!("deleted")));
    assert_eq!(events.message().await.unwrap().unwrap().json()["payload"], 2);
    let gap = lines.line().await.unwrap().unwrap();
    assert_eq!((&gap["type"], &gap["reason"]), (&json!("gap"), &json!("deleted")));
    assert_eq!(lines.line().await.unwrap().unwrap()["payload"], 2);
    relay.stop().await;
}

on_both_backends! {
    a_trimmed_cursor_is_told_on_every_transport,
    strange_cursors_are_refused_or_told,
    no_text_is_more_than_a_cursor_or_a_mistake,
    what_is_trimmed_under_a_reader_is_a_gap_and_never_silent,
    a_topic_that_is_made_again_is_told,
}
