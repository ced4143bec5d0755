//! Bodies that were compressed on their way, both ways, and JSON as other programs write it.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use serde_json::json;
use tidemill::proto::Code;
use tidemill::storage::Storage;

use super::on_every_backend;
use crate::support::relay::{TestRelay, memory};

const JSON: &str = "application/json";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("a vector takes it");
    encoder.finish().expect("a vector takes it")
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("a vector takes it");
    encoder.finish().expect("a vector takes it")
}

/// What some clients call `deflate`: without a head.
fn raw_deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("a vector takes it");
    encoder.finish().expect("a vector takes it")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).expect("a vector takes it")
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(digit).collect()
}

/// `["packed", "packed", "packed"]` in brotli, made by another program.
fn brotli_of_list() -> Vec<u8> {
    unhex("8b0e805b227061636b6564222c20227061636b6564222c20227061636b6564225d03")
}

/// 64 MiB of blanks in brotli, made by another program.
fn brotli_bomb() -> Vec<u8> {
    unhex(
        "cfffff7ff82540e2b14020f7fe9ffffffff04b00c4610180eefd3fffffffe1970088c32200ddfbfffcffffc72f0110870500baf7ff",
    )
}

type Encode = fn(&[u8]) -> Vec<u8>;

const CODINGS: &[(&str, Encode)] = &[
    ("gzip", gzip),
    ("GZip", gzip),
    ("x-gzip", gzip),
    ("deflate", zlib),
    ("deflate", raw_deflate),
    ("zstd", zstd),
    ("identity, gzip", gzip),
    ("identity", <[u8]>::to_vec),
    ("", <[u8]>::to_vec),
];

async fn what_was_compressed_is_kept_as_it_was_before(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let words = format!("{{\"words\": [{}0]}}", "\"again\", ".repeat(500));
    for (coding, encode) in CODINGS {
        let send = async |path: &str, kind: &str, body: &str| {
            let headers = [("content-encoding", *coding), ("content-type", kind)];
            let answer = relay.send("POST", path, &headers, &encode(body.as_bytes())).await;
            assert!((200..300).contains(&answer.status), "{coding} {path}: {answer:?}");
            answer.json()
        };
        let kept = async |id: &serde_json::Value| {
            let id = id.as_str().expect("an id");
            relay.get(&format!("/api/v1/topics/packed/messages/{id}")).await
        };
        let described = format!(r#"{{"topic":"packed","payload":{words}}}"#);
        let one = send("/api/v1/messages", JSON, &described).await;
        assert!(kept(&one["message_id"]).await.text().contains(&words), "{coding}");
        let raw = send("/api/v1/topics/packed/messages", JSON, &words).await;
        assert!(kept(&raw["message_id"]).await.text().contains(&words), "{coding}");
        let bytes = send("/api/v1/topics/packed/messages", "application/octet-stream", "0123456").await;
        assert_eq!(kept(&bytes["message_id"]).await.json()["payload_base64"], "MDEyMzQ1Ng==", "{coding}");
        let bulk = format!(r#"{{"messages":[{described},{described}]}}"#);
        assert_eq!(send("/api/v1/messages/bulk", JSON, &bulk).await["summary"]["accepted"], 2);
        let lines = format!("{words}\n\n{words}\n");
        let lines = send("/api/v1/topics/packed/messages", "application/x-ndjson", &lines).await;
        assert_eq!(lines["summary"]["accepted"], 2);
        send("/api/v1/topics/packed/trim", JSON, r#"{"keep":0}"#).await;
        send("/messages/poll", JSON, r#"{"topics":["packed"],"since":{"packed":"0-0"},"timeout":1}"#).await;
    }
    let headers = [("content-encoding", "br"), ("content-type", JSON)];
    let path = "/api/v1/topics/packed/messages";
    let id = relay.send("POST", path, &headers, &brotli_of_list()).await.json()["message_id"].clone();
    let message = relay.get(&format!("{path}/{}", id.as_str().expect("an id"))).await.json();
    assert_eq!(message["payload"], json!(["packed", "packed", "packed"]));
    relay.stop().await;
}

async fn other_codings_and_broken_ones_are_told_and_nothing_is_kept(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    relay.publish("packed", "0").await;
    let path = "/api/v1/topics/packed/messages";
    for coding in ["compress", "aes128gcm", "gzip, gzip", "br, zstd", "gzip;q=1", "utf-8"] {
        for (path, body) in [(path, "1"), ("/api/v1/messages", "{}"), ("/api/v1/messages/bulk", "{}")] {
            let headers = [("content-encoding", coding), ("content-type", JSON)];
            let answer = relay.send("POST", path, &headers, body.as_bytes()).await;
            assert_eq!(answer.status, 415, "{coding} {path} {answer:?}");
            assert_eq!(answer.problem().code, Code::UnsupportedEncoding);
            assert_eq!(answer.header("accept-encoding"), Some("gzip, deflate, br, zstd"));
        }
    }
    let plain = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]".repeat(50);
    let whole: [(&str, Vec<u8>); 4] = [
        ("gzip", gzip(plain.as_bytes())),
        ("deflate", zlib(plain.as_bytes())),
        ("br", brotli_of_list()),
        ("zstd", zstd(plain.as_bytes())),
    ];
    // What is behind the end is not left out, however much there is of it, and wherever it lies.
    for (coding, once) in [
        ("deflate", zlib(b"[1]")),
        ("deflate", raw_deflate(b"[1]")),
        ("br", brotli_of_list()),
        ("zstd", zstd(b"[1]")),
    ] {
        for more in [&b"x"[..], b"{}", &[0; 10_000]] {
            for kind in ["application/x-ndjson", JSON, "text/plain"] {
                let headers = [("content-encoding", coding), ("content-type", kind)];
                let answer = relay.send("POST", path, &headers, &[&once, more].concat()).await;
                assert_eq!(answer.status, 400, "{coding} {kind} and {} bytes: {answer:?}", more.len());
                assert!(answer.problem().detail.contains("Content-Encoding"), "{answer:?}");
            }
        }
        if coding != "zstd" {
            let headers = [("content-encoding", coding), ("content-type", "application/x-ndjson")];
            let answer = relay.send("POST", path, &headers, &once.repeat(2)).await;
            assert_eq!(answer.status, 400, "{coding}: {answer:?}");
        }
    }
    for (coding, body) in &whole {
        let half = &body[..body.len() / 2];
        for wrong in [half, b"{\"plain\": true}", b"\xff\xff\xff\xff\xff\xff\xff\xff"] {
            let headers = [("content-encoding", *coding), ("content-type", "text/plain")];
            let answer = relay.send("POST", path, &headers, wrong).await;
            assert_eq!(answer.status, 400, "{coding} {wrong:?}: {answer:?}");
            assert!(answer.problem().detail.contains("Content-Encoding"), "{answer:?}");
        }
    }
    // A window that takes more memory than senders on the web may ask for.
    let mut wide = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
    wide.window_log(27).expect("it can be so wide");
    wide.write_all(b"1").expect("a vector takes it");
    wide.flush().expect("a vector takes it");
    wide.write_all(b"2").expect("a vector takes it");
    let wide = wide.finish().expect("a vector takes it");
    let headers = [("content-encoding", "zstd"), ("content-type", JSON)];
    let answer = relay.send("POST", path, &headers, &wide).await;
    assert_eq!(answer.problem().code, Code::InvalidRequest, "{answer:?}");
    assert_eq!(relay.get("/api/v1/topics/packed").await.json()["length"], 1);
    relay.stop().await;
}

on_every_backend![
    what_was_compressed_is_kept_as_it_was_before,
    other_codings_and_broken_ones_are_told_and_nothing_is_kept,
    json_is_read_as_other_programs_write_it,
];

/// Returns the most memory that this process has had, in bytes.
fn memory_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a process has a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[tokio::test]
async fn a_small_body_that_stands_for_a_huge_one_is_refused_while_it_is_decoded() {
    let relay =
        TestRelay::start_with(memory(), |options| options.http.body_bytes_max = 4 * 1024 * 1024).await;
    // Four gibibytes: a mebibyte after the other.
    let blanks = vec![b' '; 1024 * 1024];
    let huge: [(&str, Vec<u8>); 3] =
        [("gzip", gzip(&blanks).repeat(2_048)), ("zstd", zstd(&blanks).repeat(4_096)), ("br", brotli_bomb())];
    let peak = memory_peak();
    for (coding, body) in &huge {
        assert!(body.len() < 4 * 1024 * 1024, "{coding} has {} bytes", body.len());
        for (path, kind) in [
            ("/api/v1/messages", JSON),
            ("/api/v1/messages/bulk", JSON),
            ("/api/v1/topics/bomb/messages", "text/plain"),
            ("/api/v1/topics/bomb/messages", "application/x-ndjson"),
            ("/api/v1/topics", JSON),
        ] {
            let headers = [("content-encoding", *coding), ("content-type", kind)];
            let answer = relay.send("POST", path, &headers, body).await;
            assert_eq!(answer.problem().code, Code::TooLarge, "{coding} {path}: {answer:?}");
        }
    }
    let grown = memory_peak() - peak;
    assert!(grown < 64 * 1024 * 1024, "the relay has taken {grown} bytes more");
    assert_eq!(relay.get("/api/v1/topics/bomb").await.status, 404);
    relay.stop().await;
}

#[tokio::test]
async fn pages_and_listings_are_compressed_for_who_takes_them_so() {
    let relay = TestRelay::start(memory()).await;
    for number in 0..100 {
        relay
            .publish("pages", &format!(r#"{{"number":{number},"place":"65km SSW of Kodiak, Alaska"}}"#))
            .await;
    }
    for number in 0..20 {
        relay.post("/api/v1/topics", format!(r#"{{"topic_name":"t{number}"}}"#)).await;
    }
    for path in ["/api/v1/topics/pages/messages?limit=100", "/api/v1/topics", "/openapi.json", "/problems"] {
        let plain = relay.get(path).await;
        assert_eq!(plain.header("content-encoding"), None, "{path}");
        let varies = |answer: &crate::support::relay::Answer| {
            let mut vary = answer.headers.iter().filter(|(name, _)| name == "vary");
            vary.any(|(_, value)| value.eq_ignore_ascii_case("accept-encoding"))
        };
        assert!(varies(&plain), "{path}: a cache must not hand it to another client: {:?}", plain.headers);
        for accept in ["gzip", "br, gzip;q=0.8", "GZIP"] {
            let packed = relay.raw(ask(path, accept).as_bytes()).await;
            let head_end = packed.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
            let head = String::from_utf8_lossy(&packed[..head_end]).to_ascii_lowercase();
            assert!(head.contains("content-encoding: gzip"), "{path} {accept}: {head}");
            let body = unchunked(&packed[head_end + 4..]);
            assert!(body.len() * 2 < plain.body.len(), "{path}: {} of {}", body.len(), plain.body.len());
            let mut text = Vec::new();
            flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut text).expect("it is gzip");
            assert_eq!(text, plain.body, "{path}");
        }
        for accept in ["", "identity", "gzip;q=0", "zstd"] {
            let answer = relay.send("GET", path, &[("accept-encoding", accept)], b"").await;
            assert_eq!(
                (answer.header("content-encoding"), &answer.body),
                (None, &plain.body),
                "{path} {accept}"
            );
        }
    }
    // What is small, and what comes live, stays as it is.
    for (path, accept) in [
        ("/api/v1/topics/pages", "application/json"),
        ("/api/v1/topics/none", "application/json"),
        ("/health", "*/*"),
    ] {
        let answer = relay.send("GET", path, &[("accept-encoding", "gzip"), ("accept", accept)], b"").await;
        assert_eq!(answer.header("content-encoding"), None, "{path}");
        assert!(answer.text().starts_with('{'), "{path}");
    }
    for accept in ["text/event-stream", "application/x-ndjson"] {
        let path = "/api/v1/topics/pages/messages?after=earliest";
        let mut stream = relay.connect().await;
        let request = ask(path, "gzip").replace("connection: close", &format!("accept: {accept}"));
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.expect("it reads");
        let mut bytes = Vec::new();
        while !String::from_utf8_lossy(&bytes).contains("Kodiak") {
            let count = tokio::io::AsyncReadExt::read_buf(&mut stream, &mut bytes).await.expect("it comes");
            assert_ne!(count, 0, "the stream ended");
        }
        assert!(!String::from_utf8_lossy(&bytes).to_ascii_lowercase().contains("content-encoding"));
    }
    relay.stop().await;
}

fn ask(path: &str, encoding: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\naccept-encoding: {encoding}\r\nconnection: close\r\n\r\n"
    )
}

/// Returns a body that came in chunks.
fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|two| two == b"\r\n").expect("the size of a chunk");
        let size =
            std::str::from_utf8(&bytes[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.expect("a number");
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 2 + size + 2..];
    }
}

async fn json_is_read_as_other_programs_write_it(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let path = "/api/v1/topics/written/messages";
    // With a byte-order mark in front.
    for (path, kind, body) in [
        ("/api/v1/messages", JSON, "\u{feff}{\"topic\":\"written\",\"payload\":1}"),
        (path, JSON, "\u{feff}{\"a\":1}"),
        (path, "application/x-ndjson", "\u{feff}1\n2\n"),
        (path, "application/x-ndjson", "1\r\n\u{feff}2\r\n"),
        ("/api/v1/messages/bulk", JSON, "\u{feff}{\"messages\":[{\"topic\":\"written\",\"payload\":1}]}"),
        ("/api/v1/topics", JSON, "\u{feff}{\"topic_name\":\"marked\"}"),
        ("/messages/poll", JSON, "\u{feff}{\"topics\":[\"written\"],\"since\":{\"written\":\"0-0\"}}"),
    ] {
        let answer = relay.send("POST", path, &[("content-type", kind)], body.as_bytes()).await;
        assert!((200..300).contains(&answer.status), "{path} {body:?}: {answer:?}");
        assert!(!answer.text().contains("rejected\":1"), "{path} {body:?}: {answer:?}");
    }
    for (method, path, body) in [
        ("PUT", "/api/v1/topics/marked", "\u{feff}{\"description\":\"d\"}"),
        ("POST", "/api/v1/topics/marked/trim", "\u{feff}{\"keep\":1}"),
    ] {
        let answer = relay.send(method, path, &[("content-type", JSON)], body.as_bytes()).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    let page = relay.get("/api/v1/topics/written/messages?limit=100&order=asc").await;
    assert_eq!(page.json()["total"], 7);
    assert!(!page.text().contains('\u{feff}'), "{}", page.text());
    // Text is kept as it was sent. A frame is no file that an editor wrote.
    let answer = relay.send("POST", path, &[("content-type", "text/plain")], "\u{feff}a".as_bytes()).await;
    let id = answer.json()["message_id"].as_str().expect("an id").to_owned();
    assert_eq!(relay.get(&format!("{path}/{id}")).await.json()["payload_text"], "\u{feff}a");
    assert_eq!(relay.get(&format!("{path}/{id}/payload")).await.body, "\u{feff}a".as_bytes());
    let mut socket = crate::support::ws::WsClient::connect(relay.address).await;
    let refused = socket.ask("\u{feff}{\"type\":\"ping\"}", "error").await;
    assert_eq!(refused["details"]["code"], "invalid_json", "{refused}");
    // One value a line, by each of its names, both ways.
    for name in ["application/jsonl", "application/ndjson", "application/json-lines", "text/jsonl"] {
        let answer = relay.send("POST", path, &[("content-type", name)], b"1\n2\n").await;
        assert_eq!((answer.status, &answer.json()["summary"]["accepted"]), (207, &json!(2)), "{name}");
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: {name}\r\n\r\n");
        let mut stream = relay.connect().await;
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.expect("it reads");
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            bytes.push(tokio::io::AsyncReadExt::read_u8(&mut stream).await.expect("a head"));
        }
        let head = String::from_utf8_lossy(&bytes);
        assert!(head.contains("content-type: application/x-ndjson"), "{name}: {head}");
    }
    // In another charset than UTF-8.
    for charset in
        ["iso-8859-1", "\"UTF-16\"", "windows-1252", "UTF-16; charset=utf-8", "utf-8; Charset=\"UTF-16\""]
    {
        for (path, kind) in [
            ("/api/v1/messages", JSON),
            (path, JSON),
            (path, "application/geo+json"),
            (path, "application/x-ndjson"),
            ("/api/v1/messages/bulk", JSON),
            ("/api/v1/topics", JSON),
        ] {
            let kind = format!("{kind}; charset={charset}");
            let answer = relay.send("POST", path, &[("content-type", &kind)], b"1").await;
            assert_eq!(answer.status, 415, "{path} {kind}: {answer:?}");
            let name = if charset.contains("UTF-16") { "UTF-16" } else { charset };
            assert!(answer.problem().detail.contains(name), "{answer:?}");
        }
    }
    for charset in
        ["utf-8", "UTF-8", "\"utf-8\"", "us-ascii", "utf-8; charset=UTF8", "utf-8; a=\"; charset=utf-16\""]
    {
        let kind = format!("{JSON}; charset={charset}");
        let answer = relay.send("POST", path, &[("content-type", &kind)], b"1").await;
        assert_eq!(answer.status, 201, "{kind}: {answer:?}");
    }
    relay.stop().await;
}
