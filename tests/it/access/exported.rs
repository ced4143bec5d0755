//! Users, tokens and roles through a file: asked for, as hashes, and none in the place of another unless that is said.

use std::path::Path;

use crate::support::process::{Ended, Relay, run, run_line};
use crate::support::relay::try_send;
use crate::support::server::{Kind, Server};

/// Runs commands about a storage.
fn at(server: &Server, arguments: &[&str], input: &str) -> Ended {
    let url = format!("valkey://127.0.0.1:{}", server.port());
    run(&[("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &url)], arguments, input)
}

fn line(server: &Server, folder: &Path, line: &str) -> Ended {
    let url = format!("valkey://127.0.0.1:{}", server.port());
    run_line(&line.replace("URL", &url), folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_brought_where_that_is_asked_for_and_none_is_replaced_unsaid() {
    let Some(first) = Server::start(Kind::Valkey, &[]).await else { return };
    let Some(second) = Server::start(Kind::Valkey, &[]).await else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    at(&first, &["role", "set", "crew", "allow publish,read orders.*"], "").lines();
    at(&first, &["user", "add", "ada", "--role", "admin"], "battery staple\n").lines();
    let made = at(&first, &["token", "new", "shop", "--rule", "allow publish,read *"], "");
    let token = made.lines()[0].to_owned();

    // Not unless it is asked for.
    line(&first, folder, "tidemill export --from URL --output without.tidemill").lines();
    let none = line(&second, folder, "tidemill import --to URL --access without.tidemill");
    assert!(none.code == Some(2) && none.stderr.contains("no users, tokens and roles"), "{none:?}");
    line(&first, folder, "tidemill export --from URL --access --output all.tidemill").lines();
    let file = std::fs::read(folder.join("all.tidemill")).expect("the file");
    let text = zstd_of(folder, "all.tidemill");
    assert!(text.contains("user/ada") && text.contains("$argon2id$"), "{text}");
    for secret in ["battery staple", &token] {
        assert!(!text.contains(secret) && !String::from_utf8_lossy(&file).contains(secret));
    }
    let left_out = line(&second, folder, "tidemill import --to URL all.tidemill");
    assert!(left_out.stderr.contains("are left out; --access brings them"), "{left_out:?}");
    assert_eq!(at(&second, &["user", "list"], "").lines().len(), 1, "a heading alone");

    let would = line(&second, folder, "tidemill import --to URL --access --dry-run all.tidemill");
    assert!(would.lines().contains(&"user ada: would be brought"), "{would:?}");
    assert_eq!(at(&second, &["user", "list"], "").lines().len(), 1);
    let done = line(&second, folder, "tidemill import --to URL --access all.tidemill");
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stderr.contains("brought 3 users, tokens and roles"), "{done:?}");
    let again = line(&second, folder, "tidemill import --to URL --access all.tidemill");
    assert!(again.stderr.contains("brought 0 users, tokens and roles; 3 were there already"), "{again:?}");

    // What people and programs have is good there.
    let url = format!("valkey://127.0.0.1:{}", second.port());
    let variables = [("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &*url), ("TIDEMILL_ACCESS", "closed")];
    let relay = Relay::ready_at("127.0.0.1:0", &variables, &[]).await;
    let shown = format!("Bearer {token}");
    let headers = [("authorization", &*shown), ("content-type", "application/json")];
    let answer = try_send(relay.address(), "POST", "/api/v1/topics/orders/messages", &headers, b"1").await;
    assert_eq!(answer.expect("an answer").status, 201);
    let listed = relay.run(&["user", "list", "--user", "ada"], "battery staple\n");
    assert_eq!(listed.lines().len(), 2, "{listed:?}");

    // Another of the same name is in the way, and then nothing is brought.
    at(&first, &["user", "password", "ada"], "another staple\n").lines();
    at(&first, &["user", "add", "bob"], "a third staple\n").lines();
    line(&first, folder, "tidemill export --from URL --access --overwrite --output all.tidemill").lines();
    let would = line(&second, folder, "tidemill import --to URL --access --dry-run all.tidemill -o json");
    assert_eq!(would.code, Some(3), "{would:?}");
    assert!(would.stdout.contains(r#"{"access":"user/ada","action":"in the way: needs --overwrite"}"#));
    let refused = line(&second, folder, "tidemill import --to URL --access all.tidemill");
    assert!(
        refused.code == Some(1) && refused.stderr.contains("user ada is at the target already"),
        "{refused:?}"
    );
    assert_eq!(at(&second, &["user", "list"], "").lines().len(), 2, "bob is not there, either");
    let replaced = line(&second, folder, "tidemill import --to URL --access --overwrite all.tidemill");
    assert_eq!(replaced.code, Some(0), "{replaced:?}");
    assert_eq!(at(&second, &["user", "list"], "").lines().len(), 3);
    drop(relay);

    // A relay gives no hashes away.
    let open = tokio::task::spawn_blocking(|| Relay::start(&[], &[])).await.expect("it starts");
    let refused = open.run(&["export", "--from", &open.url, "--access", "--output", "-"], "");
    assert!(refused.error(2).contains("gives no hashes"), "{refused:?}");
}

/// Returns the text of all records.
fn zstd_of(folder: &Path, name: &str) -> String {
    let file = std::fs::File::open(folder.join(name)).expect("the file");
    let text = zstd::stream::decode_all(file).expect("frames of zstd");
    String::from_utf8(text).expect("UTF-8")
}
