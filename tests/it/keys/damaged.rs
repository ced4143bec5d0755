//! Values that were damaged or replaced on the server: they are refused on every way on which they are read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::task::spawn_blocking;

use super::{bucket, get, post, put, revision};
use crate::conformance::damage;
use crate::support::ground::Ground;
use crate::support::process::{Running, run};
use crate::support::relay::{Answer, TestRelay};
use crate::support::server::Kind;
use crate::support::watcher::{Form, Watcher};

const VALUES: &str = "bucket:{keys/b}:values";
const PAST: &str = "bucket:{keys/b}:past";

fn digest(value: &str) -> String {
    format!("sha-256=:{}:", BASE64.encode(Sha256::digest(value)))
}

#[track_caller]
fn is_damaged(answer: &Answer) {
    let problem = answer.problem();
    assert_eq!((problem.status, problem.code.as_str()), (500, "damaged"), "{answer:?}");
}

/// Returns the values of entries, where they are shown, and whether they are damaged.
fn shown(entries: &Value) -> Vec<(Value, bool)> {
    let one = |entry: &Value| (entry["value"].clone(), entry["damaged"] == true);
    entries.as_array().unwrap_or_else(|| panic!("a list, and no {entries}")).iter().map(one).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_is_not_what_was_put_is_shown_to_nobody() {
    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    let relay = TestRelay::start(ground.storage.clone()).await;
    bucket(&relay, "b", r#"{"history": 4}"#).await;
    let mut revisions = Vec::new();
    for value in ["1", "2", "3"] {
        let answer = put(&relay, "b/k", &[("repr-digest", &digest(value))], value).await;
        revisions.push(revision(&answer));
        assert_eq!(get(&relay, "b/k").await.header("repr-digest"), Some(&*digest(value)));
    }
    let refused = put(&relay, "b/k", &[("repr-digest", &digest("4"))], "5").await.problem();
    assert_eq!((refused.status, refused.field.as_deref()), (400, Some("Repr-Digest")));
    for (at, value) in ["1", "2", "3"].into_iter().enumerate() {
        let answer = get(&relay, &format!("b/k?revision={}", revisions[at])).await;
        assert_eq!((answer.text(), answer.header("repr-digest")), (value, Some(&*digest(value))));
    }
    // The newest one.
    damage(ground.server(), VALUES, "k", "7").await;
    is_damaged(&get(&relay, "b/k").await);
    is_damaged(&get(&relay, "b/k?fill=1s").await);
    is_damaged(&get(&relay, &format!("b/k?revision={}", revisions[2])).await);
    is_damaged(&post(&relay, "b/k/touch", &[], r#"{"return": "value"}"#).await);
    assert_eq!(shown(&get(&relay, "b?values=true").await.json()), [(Value::Null, true)]);
    let history = get(&relay, "b/k?view=history").await.json();
    assert_eq!(shown(&history["revisions"]), [(Value::Null, true), (json!(2), false), (json!(1), false)]);
    for form in Form::ALL {
        let path = "/api/v1/keys/b";
        let mut watcher = Watcher::open(relay.address, path, form, "").await.expect("a watch");
        let frames = watcher.up_to("synced").await;
        assert_eq!(
            (&frames[0].data["damaged"], frames[0].data.get("value")),
            (&json!(true), None),
            "{frames:?}"
        );
    }
    // From the command line, too.
    let url = format!("http://{}", relay.address);
    let told = spawn_blocking(move || {
        let variables = [("TIDEMILL_URL", &*url)];
        let listed = run(&variables, &["keys", "list", "b", "--values"], "").lines()[1].to_owned();
        (listed, Running::start(&variables, &["keys", "watch", "b"]).line())
    });
    let (listed, watched) = told.await.expect("it runs to its end");
    assert!(listed.trim_end().ends_with("(damaged)"), "{listed}");
    assert!(watched.trim_end().ends_with("(damaged)"), "{watched}");
    let sound = get(&relay, "b/k?fallback=parent").await;
    assert_eq!((sound.text(), revision(&sound)), ("2", revisions[1].clone()));
    // One that was replaced together with its digest: the one behind it knows better.
    let field = format!("k/{}", revisions[1]);
    let record = ground.server().command(&["HGET", PAST, &field]).await.text();
    let written =
        |value: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Sha256::digest(value));
    let forged = record.replace(&format!(" {}.", written("2")), &format!(" {}.", written("8")));
    assert_ne!(record, forged);
    ground.server().command(&["HSET", PAST, &field, &forged]).await;
    damage(ground.server(), PAST, &field, "8").await;
    is_damaged(&get(&relay, &format!("b/k?revision={}", revisions[1])).await);
    let history = get(&relay, "b/k?view=history").await.json();
    assert_eq!(shown(&history["revisions"]), [(Value::Null, true), (Value::Null, true), (json!(1), false)]);
    let sound = get(&relay, "b/k?fallback=parent").await;
    assert_eq!((sound.text(), revision(&sound)), ("1", revisions[0].clone()));
    // None is left.
    damage(ground.server(), PAST, &format!("k/{}", revisions[0]), "9").await;
    is_damaged(&get(&relay, "b/k?fallback=parent").await);
    // What is put anew is sound.
    put(&relay, "b/k", &[], "10").await;
    assert_eq!(get(&relay, "b/k").await.text(), "10");
    relay.stop().await;
}
