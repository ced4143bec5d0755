//! Keys in a file: read at start, and again when it changes.

use std::path::Path;
use std::time::Duration;

use tidemill::access::{Issuer, Issuers, Refusal, Verdict};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::signer::{Signer, payload, set};
use super::{ISSUER, now};
use crate::support::eventually;

/// Longer than the pause between two readings.
const PAUSE: Duration = Duration::from_secs(6);

/// How long a reading may take.
const SOON: Duration = Duration::from_secs(10);

/// Puts another text into a file at once, as secrets are mounted.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

fn is_taken(issuers: &Issuers, token: &str) -> bool {
    matches!(issuers.verify(token, now()), Verdict::Verified(_))
}

#[tokio::test]
async fn a_file_that_changes_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let (old, new, third) = (Signer::curve("old"), Signer::edwards("new"), Signer::curve("third"));
    std::fs::write(&path, &old.verifies).unwrap();
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let issuer = Issuer::parse(&format!("{ISSUER};aud=tidemill;file={}", path.display())).unwrap();
    let issuers = Issuers::start(vec![issuer], &tracker, &stop).unwrap();
    let [of_old, of_new, of_third] = [&old, &new, &third].map(|signer| signer.sign(&payload()));
    assert!(is_taken(&issuers, &of_old));
    assert_eq!(issuers.check(&of_new, now()).await, Err(Refusal::Algorithm));

    // Both, as PEM. What comes at once is not read at once.
    replace(&path, &format!("{}{}", old.verifies, new.verifies));
    assert!(!is_taken(&issuers, &of_new));
    pass(PAUSE).await;
    eventually(SOON, || async { is_taken(&issuers, &of_new) }).await;
    assert!(is_taken(&issuers, &of_old));

    // Another form, without the old key: what was remembered of it is forgotten.
    replace(&path, &set(&[&new]));
    pass(PAUSE).await;
    eventually(SOON, || async { !is_taken(&issuers, &of_old) }).await;
    assert!(is_taken(&issuers, &of_new));

    // A token with an unknown key does not wait for the next reading, if the last one is some time ago.
    assert_eq!(issuers.check(&of_third, now()).await, Err(Refusal::Key));
    replace(&path, &set(&[&new, &third]));
    pass(PAUSE).await;
    issuers.check(&of_third, now()).await.unwrap();

    // What cannot be read leaves the keys as they are, and is told until it can.
    for nonsense in ["", "{", "nonsense", "{\"keys\": []}", &"x".repeat(2 * 1024 * 1024)] {
        replace(&path, nonsense);
        pass(PAUSE).await;
        eventually(SOON, || async { issuers.states()[0].failure.is_some() }).await;
        assert!(is_taken(&issuers, &of_new));
    }
    std::fs::remove_file(&path).unwrap();
    pass(PAUSE).await;
    let is_gone = |failure: &String| failure.contains("cannot be read");
    eventually(SOON, || async { issuers.states()[0].failure.as_ref().is_some_and(is_gone) }).await;
    assert!(is_taken(&issuers, &of_new));
    replace(&path, &set(&[&old]));
    pass(PAUSE).await;
    eventually(SOON, || async { is_taken(&issuers, &of_old) }).await;
    let state = &issuers.states()[0];
    assert_eq!((&*state.issuer, state.keys, &state.failure), (ISSUER, 1, &None));

    stop.cancel();
    tracker.close();
    tracker.wait().await;
}
