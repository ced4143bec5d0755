//! The page on exports, which needs the commands of a build with Valkey.

#![cfg(feature = "valkey")]

use super::run_page;

#[tokio::test]
async fn the_page_on_exports_does_what_it_says() {
    run_page("docs/export.md", &[]).await;
}
