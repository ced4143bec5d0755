//! What the page on locks says.

use super::{run_page, run_page_with_valkey};

#[tokio::test]
async fn the_page_on_locks_does_what_it_says() {
    run_page("docs/locks.md", &[]).await;
}

#[tokio::test]
async fn the_page_on_locks_does_what_it_says_with_valkey() {
    run_page_with_valkey("docs/locks.md").await;
}
