//! Exporting and importing, as an operator does: all that topics and buckets carry goes through a file or a pipe.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use super::{all_of, asked, fill, on, parsed, told};
use crate::support::process::{Ended, Running, number_lines, run, run_line};
use crate::support::server::{Kind, Server};

async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(act).await.expect("no panic")
}

async fn run_in(folder: &tempfile::TempDir, line: String) -> Ended {
    let folder = folder.path().to_owned();
    blocking(move || run_line(&line, &folder)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_a_relay_goes_through_a_file_to_a_server_and_through_a_pipe_back_again() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let url = format!("valkey://127.0.0.1:{}", server.port());
    let (first, second, third) = (on(None).await, on(Some(&url)).await, on(None).await);
    fill(first.address()).await;
    let before = all_of(first.address()).await;
    let folder = tempfile::tempdir().expect("a folder");

    let export = format!("tidemill export --from {} --output all.tidemill", first.url);
    let done = run_in(&folder, export.clone()).await;
    let lines = done.lines();
    assert!(lines.len() == 1 && lines[0].starts_with("exported: "), "{done:?}");
    assert!(lines[0].contains(", 4 of 4 topics done, 1 of 1 bucket done (2 keys)"), "{done:?}");
    let path = folder.path().join("all.tidemill");
    assert_eq!(fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o600);
    assert!(!folder.path().join("all.tidemill.part").exists());
    let refused = run_in(&folder, export.clone()).await;
    assert!(refused.error(2).contains("all.tidemill is there already"), "{refused:?}");
    let again = run_in(&folder, format!("{export} --overwrite -o json")).await;
    assert_eq!(parsed(again.lines().last().expect("a line"))["done"], true);

    let import = |more: &str| format!("tidemill import --to {url} all.tidemill {more}");
    let would = run_in(&folder, import("--dry-run -o json")).await;
    let planned: Vec<Value> = would.lines().iter().map(|line| parsed(line)).collect();
    assert!(planned.iter().all(|one| one["action"] == "would be copied"), "{planned:?}");
    assert_eq!(planned.len(), 5);
    let names = told(second.address(), json!({"topic_names": {"prefix": "", "after": null}})).await;
    assert_eq!(names["topic_names"], json!([]), "nothing is done");

    let done = run_in(&folder, import("")).await;
    assert!(done.lines().last().expect("a line").starts_with("imported: "), "{done:?}");
    let about = "by Tidemill 0.1.0; 4 topics with ";
    assert!(done.stderr.contains(about) && done.stderr.contains("1 bucket with 2 keys"), "{done:?}");
    assert_eq!(all_of(second.address()).await, before);

    let pipe = format!("tidemill export --from {url} --output - | tidemill import --to {} -", third.url);
    let done = run_in(&folder, pipe).await;
    assert!(done.stdout.starts_with("imported: ") && done.stderr.contains("exported: "), "{done:?}");
    assert_eq!(all_of(third.address()).await, before);

    // What is there already is left alone, and what is something else is not overwritten unless that is said.
    let to_third = format!("tidemill import --to {} all.tidemill", third.url);
    let again = run_in(&folder, format!("{to_third} -o json")).await;
    assert_eq!(parsed(again.lines().last().expect("a line"))["messages"], 0);
    asked(third.address(), "DELETE", "/api/v1/topics/done", "").await;
    asked(third.address(), "POST", "/api/v1/messages", r#"{"topic":"done","payload":"mine"}"#).await;
    let refused = run_in(&folder, format!("{to_third} -o json")).await;
    assert!(refused.error(1).contains("`done` is at the target already"), "{refused:?}");
    let in_the_way = run_in(&folder, format!("{to_third} --dry-run")).await;
    assert_eq!(in_the_way.code, Some(3), "{in_the_way:?}");
    let done = run_in(&folder, format!("{to_third} --overwrite")).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(all_of(third.address()).await, before);
    blocking(move || drop((first, second, third))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_cut_off_or_damaged_changes_nothing_and_the_place_is_told() {
    let (first, second) = (on(None).await, on(None).await);
    let url = [("TIDEMILL_URL".to_owned(), first.url.clone())];
    blocking(move || {
        let url = [(url[0].0.as_str(), url[0].1.as_str())];
        run(&url, &["publish", "orders"], &number_lines(3_000)).lines();
        run(&url, &["publish", "more"], &number_lines(10)).lines();
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let all = folder.path().join("all");
    run_in(&folder, format!("tidemill export --from {} --output all", first.url)).await.lines();
    let whole = fs::read(&all).expect("the file");
    let refused = async |bytes: &[u8]| {
        fs::write(&all, bytes).expect("the file");
        let mut all = Vec::new();
        for from in ["all", "- <all", "/dev/stdin <all"] {
            let ended = run_in(&folder, format!("tidemill import --to {} {from}", second.url)).await;
            all.push(ended.error(1).to_owned());
        }
        all
    };
    for error in refused(&whole[..whole.len() / 2]).await {
        assert!(
            error.starts_with("nothing is imported: ") && error.contains("it is cut off at byte"),
            "{error}"
        );
    }
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for error in refused(&flipped).await {
        assert!(error.contains("it is damaged in record"), "{error}");
    }
    for error in refused(b"{}\n").await {
        assert!(error.contains("it is no export of Tidemill"), "{error}");
    }
    let names = told(second.address(), json!({"topic_names": {"prefix": "", "after": null}})).await;
    assert_eq!(names["topic_names"], json!([]), "nothing is done");
    blocking(move || drop((first, second))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_broken_off_leaves_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    // Nobody answers there.
    let away = format!("http://127.0.0.1:{}", crate::support::server::free_port());
    let failed = run_in(&folder, format!("tidemill export --from {away} --output all --patience 0")).await;
    assert!(failed.error(1).starts_with("nothing is exported; "), "{failed:?}");
    let path = folder.path().join("all").to_str().expect("UTF-8").to_owned();
    let from = away.clone();
    let ended = blocking(move || {
        let mut export = Running::start(&[], &["export", "--from", &from, "--output", &path, "-o", "json"]);
        assert_eq!(parsed(&export.line())["done"], false);
        export.interrupt();
        export.end()
    })
    .await;
    assert_eq!(ended.code, Some(130), "{ended:?}");
    let relay = on(None).await;
    let missing = run_in(&folder, format!("tidemill export --from {} nosuch --output all", relay.url)).await;
    assert!(missing.error(1).contains("the source has no topic `nosuch`"), "{missing:?}");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    blocking(move || drop(relay)).await;
}
