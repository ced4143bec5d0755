//! The console in a real browser: values of keys, which it changes without losing what nobody has changed, and texts,
//! which it shows as they were typed.

use serde_json::{Value, json};
use tidemill::proto::Timestamp;

use super::console::Shown;
use crate::access::closed::JSON;
use crate::support::eventually;
use crate::support::relay::{Answer, STUCK};

/// Sends bytes as the administrator.
async fn sends(shown: &Shown, method: &str, path: &str, kind: &str, body: &[u8]) -> Answer {
    let headers = [("content-type", kind), ("authorization", shown.root.as_str())];
    let answer = shown.relay.send(method, path, &headers, body).await;
    assert!((200..300).contains(&answer.status), "{method} {path}: {answer:?}");
    answer
}

async fn key(shown: &Shown, name: &str) -> Answer {
    sends(shown, "GET", &format!("/api/v1/keys/b/{name}"), "text/plain", b"").await
}

/// Returns when a key ends, in milliseconds.
fn end(answer: &Answer) -> u64 {
    let text = answer.header("tidemill-expires-at").expect("a time");
    Timestamp::parse(text).expect("a time").as_millis()
}

/// Does something in the form, and puts it: until the page has another revision.
async fn puts(shown: &mut Shown, script: &str) {
    shown
        .does(&format!(
            "const revision = () => document.querySelector('dd code').textContent; const old = revision();
             {script} await press('Put it'); await until('it is put', () => revision() !== old);"
        ))
        .await;
}

/// Chooses a file of these bytes.
fn file(bytes: &[u8], kind: &str) -> String {
    format!(
        "const chosen = new DataTransfer();
         chosen.items.add(new File([new Uint8Array({})], 'a', {{ type: {} }}));
         const input = document.querySelector('input[type=file]');
         input.files = chosen.files;
         input.dispatchEvent(new Event('change'));",
        json!(bytes),
        json!(kind)
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_loses_no_byte_that_nobody_has_changed() {
    let Some(mut shown) = Shown::open().await else { return };
    let all: Vec<u8> = (0..=255).collect();
    let values: [(&str, &str, &[u8]); 7] = [
        ("bytes", "application/octet-stream", &all),
        ("picture", "image/png", b"\x89PNG\r\n"),
        ("called-text", "text/plain", b"abc\xff\xfe"),
        ("crlf", "text/plain", b"one\r\ntwo\r\n"),
        ("mixed", "text/plain; charset=utf-8", b"one\r\ntwo\nthree\rfour"),
        ("marked", "text/csv", b"\xef\xbb\xbfa;b"),
        ("json", "application/json", b"{\"a\":1, \"a\":2,\"n\":1.50}"),
    ];
    for (name, kind, value) in values {
        sends(&shown, "PUT", &format!("/api/v1/keys/b/{name}?ttl=1h&owner=ann"), kind, value).await;
    }
    shown.log_in("root").await;
    for (name, kind, value) in values {
        let before = key(&shown, name).await;
        shown.at(&format!("#/keys/b/{name}"), "Put it").await;
        let is_text = shown.tools.run("!!document.querySelector('main textarea')").await;
        assert_eq!(is_text, json!(!["bytes", "picture", "called-text"].contains(&name)), "{name}");
        // Without a change nothing is put.
        shown.does("await press('Put it'); await shows('Nothing was changed');").await;
        assert_eq!(key(&shown, name).await.header("etag"), before.header("etag"), "{name}");
        // With another owner it has the same bytes, type and time.
        puts(&mut shown, "await fill('Owner', 'bob');").await;
        let after = key(&shown, name).await;
        assert_eq!((after.body.as_slice(), after.header("content-type")), (value, Some(kind)), "{name}");
        assert_eq!(after.header("tidemill-owner"), Some("bob"), "{name}");
        assert!(end(&before).abs_diff(end(&after)) < 10_000, "{name}: {before:?} {after:?}");
    }
    let changes = [
        ("crlf", "one\\nthree\\n", "one\r\nthree\r\n"),
        ("mixed", "one\\ntwo\\nfive", "one\ntwo\nfive"),
        ("marked", "\\ufeffa;c", "\u{feff}a;c"),
    ];
    for (name, typed, value) in changes {
        shown.at(&format!("#/keys/b/{name}"), "Put it").await;
        puts(&mut shown, &format!("await fill('Value', '{typed}');")).await;
        assert_eq!(key(&shown, name).await.text(), value, "{name}");
    }
    // A file takes the place of what is no text, and of what is.
    for name in ["bytes", "json"] {
        shown.at(&format!("#/keys/b/{name}"), "Put it").await;
        let choose = file(&[0, 255, 13, 10], "image/gif");
        puts(&mut shown, &choose).await;
        shown.does("await shows('It is image/gif');").await;
        let after = key(&shown, name).await;
        assert_eq!(
            (after.body.as_slice(), after.header("content-type")),
            (&[0, 255, 13, 10][..], Some("image/gif"))
        );
    }
    // What it hands out as a file is what there is.
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    shown.tools.save_into(folder.path()).await;
    shown.at("#/keys/b/called-text", "Download (5 B)").await;
    shown.does("await press('Download (5 B)');").await;
    let saved = folder.path().join("b-called-text");
    eventually(STUCK, async || std::fs::read(&saved).is_ok_and(|bytes| bytes == b"abc\xff\xfe")).await;
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_keeps_time_and_owner_unless_they_are_changed() {
    let Some(mut shown) = Shown::open().await else { return };
    shown.asks("PUT", "/api/v1/buckets/b", json!({ "ttl": "30m" })).await;
    sends(&shown, "PUT", "/api/v1/keys/b/k?ttl=2h&owner=ann&fresh=10m", JSON.1, b"1").await;
    let before = key(&shown, "k").await;
    shown.log_in("root").await;
    shown.at("#/keys/b/k", "as long as the bucket says (30 min)").await;
    puts(&mut shown, "await fill('Value', '2');").await;
    let after = key(&shown, "k").await;
    assert_eq!((after.text(), after.header("tidemill-owner")), ("2", Some("ann")));
    assert!(end(&before).abs_diff(end(&after)) < 10_000, "{before:?} {after:?}");
    assert!(after.header("tidemill-fresh-until").is_some(), "{after:?}");
    // What is emptied is as the bucket says, and nobody's.
    puts(&mut shown, "await fill('It lives for', ''); await fill('Owner', '');").await;
    let after = key(&shown, "k").await;
    assert_eq!(after.header("tidemill-owner"), None);
    assert!(end(&after) < end(&before) - 60 * 60 * 1_000, "{before:?} {after:?}");
    puts(&mut shown, "await fill('It lives for', '3h');").await;
    assert!(end(&key(&shown, "k").await) > end(&before));
    shown.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_are_shown_as_they_were_typed() {
    let Some(mut shown) = Shown::open().await else { return };
    let path = "/api/v1/topics/t/messages";
    let twice = br#"{"a":1,"a":2,"n":1.50,"big":12345678901234567890,"e":[],"o":{ }}"#;
    sends(&shown, "POST", path, JSON.1, twice).await;
    sends(&shown, "POST", path, JSON.1, "\"left \u{202e}thgir\"".as_bytes()).await;
    let body = "{\"topic\":\"t\",\"payload_text\":\"bell \\u0007\",\"metadata\":{\"m\":1,\"m\":2.0}}";
    sends(&shown, "POST", "/api/v1/messages", JSON.1, body.as_bytes()).await;
    sends(&shown, "PUT", "/api/v1/keys/b/twice", JSON.1, twice).await;
    sends(&shown, "PUT", "/api/v1/presence/lobby/ann", JSON.1, twice).await;
    shown.log_in("root").await;
    let lines = "{\n  \"a\": 1,\n  \"a\": 2,\n  \"n\": 1.50,\n  \"big\": 12345678901234567890,\n  \"e\": [],\n  \"o\": {}\n}";
    let shows_lines = format!(
        "await until('it is as it was typed', () => [...document.querySelectorAll('pre')].some(pre => pre.textContent === {}));",
        json!(lines)
    );
    for (page, text) in [("#/topic/t", "As it was kept"), ("#/keys/b", "twice"), ("#/presence/lobby", "ann")]
    {
        shown.at(page, text).await;
        shown.does(&shows_lines).await;
    }
    shown.at("#/topic/t", "As it was kept").await;
    shown.does("await shows('left U+202Ethgir'); await shows('bell U+0007');").await;
    shown.does("await press('Metadata'); await shows('\"m\": 1,'); await shows('\"m\": 2.0');").await;
    // Nothing of it is left where it could turn something around.
    let left = "document.body.textContent.includes('\\u202e') || [...document.querySelectorAll('[title]')].some(each => each.title.includes('\\u202e'))";
    assert_eq!(shown.tools.run(left).await, json!(false));
    // As they come, too.
    shown.at("#/topic/t/live", "Live; 0 came").await;
    sends(&shown, "POST", path, JSON.1, twice).await;
    shown.does(&shows_lines).await;
    let asked: Value = shown.tools.run("wrong").await;
    assert_eq!(asked, json!([]));
    shown.close().await;
}
