//! Keys of buckets, from outside: over HTTP, from the command line, over several nodes.

mod commands;
#[cfg(feature = "valkey")]
mod damaged;
mod expiring;
mod fences;
mod filling;
mod handover;
mod http;
mod rights;
mod several;
mod sockets;
mod watch;
mod wrong;

use serde_json::Value;

use crate::support::relay::{Answer, TestRelay};

/// Makes a test of every property in memory and on Valkey; without a server for it, the ground has said so.
macro_rules! on_both_backends {
    ($($name:ident),+ $(,)?) => {
        mod memory {
            super::on_both_backends! { @on crate::support::ground::Ground::memory(); $($name),+ }
        }

        #[cfg(feature = "valkey")]
        mod valkey {
            use crate::support::server::Kind;

            super::on_both_backends! { @on crate::support::ground::Ground::on(Kind::Valkey); $($name),+ }
        }
    };
    (@on $ground:expr; $($name:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(ground) = $ground.await {
                    super::$name(ground.storage.clone()).await;
                }
            }
        )+
    };
}
pub(crate) use on_both_backends;

const JSON: (&str, &str) = ("content-type", "application/json");

/// Puts JSON under a path below that of keys, with these headers.
async fn put(relay: &TestRelay, path: &str, headers: &[(&str, &str)], json: &str) -> Answer {
    let headers = [&[JSON], headers].concat();
    relay.send("PUT", &format!("/api/v1/keys/{path}"), &headers, json.as_bytes()).await
}

/// Gets a path below that of keys.
async fn get(relay: &TestRelay, path: &str) -> Answer {
    relay.get(&format!("/api/v1/keys/{path}")).await
}

/// Deletes a path below that of keys.
async fn delete(relay: &TestRelay, path: &str, headers: &[(&str, &str)]) -> Answer {
    relay.send("DELETE", &format!("/api/v1/keys/{path}"), headers, b"").await
}

/// Posts JSON to a path below that of keys.
async fn post(relay: &TestRelay, path: &str, headers: &[(&str, &str)], json: &str) -> Answer {
    let headers = [&[JSON], headers].concat();
    relay.send("POST", &format!("/api/v1/keys/{path}"), &headers, json.as_bytes()).await
}

/// Makes a bucket that keeps this, or replaces its settings.
async fn bucket(relay: &TestRelay, name: &str, settings: &str) -> Answer {
    relay.send("PUT", &format!("/api/v1/buckets/{name}"), &[JSON], settings.as_bytes()).await
}

/// Returns the revision that an answer has as its `ETag`, and checks that the two are one.
#[track_caller]
fn revision(answer: &Answer) -> String {
    let etag = answer.header("etag").unwrap_or_else(|| panic!("no ETag in {answer:?}"));
    let revision =
        etag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).expect("it is a strong one");
    if let Ok(Value::Object(body)) = serde_json::from_slice::<Value>(&answer.body)
        && let Some(told) = body.get("revision")
    {
        assert_eq!(told, revision, "{answer:?}");
    }
    revision.to_owned()
}

/// Checks that a condition did not hold, and returns the revision that there is.
#[track_caller]
fn not_so(answer: &Answer) -> Option<String> {
    let problem = answer.problem();
    assert_eq!((problem.status, problem.code.as_str()), (412, "precondition_failed"), "{answer:?}");
    problem.revision.map(|revision| revision.to_string())
}
