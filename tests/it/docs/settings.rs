//! The page of all settings, which is made from the code.

use std::fs;

use tidemill::config::{document, known};

use super::{root, text_of};
use crate::support::process::run;

const PAGE: &str = "docs/settings.md";

#[test]
fn every_setting_is_explained() {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(root().join(PAGE), document()).expect("the page can be written");
    }
    let written = fs::read_to_string(root().join(PAGE)).unwrap_or_default();
    assert!(written == document(), "{PAGE} is not up to date: run this test with UPDATE_DOCS=1");
    let rows = written.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, known().len());
}

#[test]
fn the_command_prints_the_page() {
    assert_eq!(run(&[], &["config", "doc"], "").stdout, text_of(PAGE));
}
