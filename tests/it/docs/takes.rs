//! The page on limits of applications, run against a real relay.

use super::{run_page, run_page_with_valkey};

#[tokio::test]
async fn the_page_on_limits_does_what_it_says() {
    run_page("docs/limits.md", &[]).await;
}

#[tokio::test]
async fn the_page_on_limits_does_what_it_says_with_valkey() {
    run_page_with_valkey("docs/limits.md").await;
}
