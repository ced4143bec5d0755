//! The rules of layout: what files and folders may be called, how a file opens, and how long it is.

use std::path::Path;

/// Names of files and folders that say nothing of what is in them.
const NAMES_FORBIDDEN: &[&str] = &["mod", "util", "utils", "common", "helper", "helpers", "misc"];

/// Lines after which a file has to justify itself.
const LINES_MAX: usize = 500;

/// The line that justifies a long file.
const LONG_BECAUSE: &str = "//! Long because: ";

/// Returns what the rules say against a file.
pub(super) fn broken(path: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in path.components() {
        let name = part.as_os_str().to_string_lossy();
        let name = name.strip_suffix(".rs").unwrap_or(&name);
        if NAMES_FORBIDDEN.contains(&name) {
            found.push(format!("`{name}` does not say what it holds"));
        }
    }
    let first = text.lines().next().unwrap_or_default();
    if !first.starts_with("//! ") {
        found.push("does not open with `//!`: say what the file owns, and what it must not know".to_owned());
    }
    let lines = text.lines().count();
    if lines > LINES_MAX && !text.lines().any(|line| line.starts_with(LONG_BECAUSE)) {
        found.push(format!("has {lines} lines; split it, or justify it with a line `{LONG_BECAUSE}…`"));
    }
    found
}

#[test]
fn the_layout_is_checked() {
    let broken = |path: &str, text: &str| broken(Path::new(path), text).len();
    let long = "//! Owns a lot.\n".to_owned() + &"\n".repeat(LINES_MAX);
    let justified = format!("//! Owns a lot.\n{LONG_BECAUSE}it is a table.\n{}", "\n".repeat(LINES_MAX));
    assert_eq!(broken("relay/publish.rs", "//! Owns publishing.\n"), 0);
    assert_eq!(broken("relay/mod.rs", "//! Owns publishing.\n"), 1);
    assert_eq!(broken("utils/publish.rs", "//! Owns publishing.\n"), 1);
    assert_eq!(broken("relay/publish.rs", "use std::fmt;\n"), 1);
    assert_eq!(broken("relay/publish.rs", ""), 1);
    assert_eq!(broken("relay/publish.rs", &long), 1);
    assert_eq!(broken("relay/publish.rs", &justified), 0);
}
