//! The table of what the log tells of who did what, against the code that tells it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{root, text_of};

/// Events that are no changes: log-ins and refusals.
const OTHERS: [&str; 4] =
    ["logged in", "log-in refused", "refused", "a refresh token was used twice: the log-in is over"];

/// Adds the texts of the changes that files of this folder tell of.
fn collect(folder: &Path, told: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, told);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).expect("a source");
            let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
            let code = code.collect::<Vec<_>>().join("\n");
            told.extend(code.split("changed!(").skip(1).map(|call| third(call).to_owned()));
        }
    }
}

/// Returns what stands as the third argument of a call, without its quotes.
fn third(call: &str) -> &str {
    let (mut depth, mut commas) = (0, Vec::new());
    for (at, letter) in call.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => commas.push(at),
            _ => {}
        }
        if commas.len() == 3 {
            break;
        }
    }
    call[commas[1] + 1..commas[2]].trim().trim_matches('"')
}

#[test]
fn the_table_of_the_audit_has_every_event() {
    let mut told = BTreeSet::from(OTHERS.map(str::to_owned));
    collect(&root().join("src"), &mut told);
    let page = text_of("docs/access.md");
    let (_, table) = page.split_once("| event | level |").expect("the table");
    let (table, _) = table.split_once("\n\n").expect("its end");
    let events = table.lines().skip(2).flat_map(|row| {
        let (_, row) = row.split_once("| ").expect("a row");
        let (events, _) = row.split_once(" |").expect("a cell");
        events.split('`').skip(1).step_by(2).map(str::to_owned)
    });
    assert_eq!(events.collect::<BTreeSet<_>>(), told);
}
