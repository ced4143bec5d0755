//! The page on leases.

use super::{run_page, run_page_with_valkey};

#[tokio::test]
async fn the_page_on_leases_does_what_it_says() {
    run_page("docs/leases.md", &[]).await;
}

#[tokio::test]
async fn the_page_on_leases_does_what_it_says_with_valkey() {
    run_page_with_valkey("docs/leases.md").await;
}
