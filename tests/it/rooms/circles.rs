//! Circles between files: which of them take names from each other, directly or through others.
//!
//! The head of a folder (`relay.rs` beside `relay/`) may name the files in it, which is what it is for,
//! while they take names from it; all else is an arrow. Tests are left out.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::{Crate, Tree, is_in};

/// Which files take which names from which: by their places in the crate.
pub(super) type Arrows = BTreeMap<(usize, usize), BTreeSet<String>>;

/// Returns the arrows between the files of a crate.
pub(super) fn arrows(tree: &Tree, of: &Crate) -> Arrows {
    let mut arrows = Arrows::new();
    for (from, file) in of.files.iter().enumerate().filter(|(_, file)| !file.test) {
        for path in file.source.paths.iter().filter(|path| !path.test) {
            let Some(words) = tree.resolve(file, &path.words) else { continue };
            let Some(to) = tree.file_of(of, &words) else { continue };
            if to == from || is_in(&of.files[to].module, &file.module) {
                continue;
            }
            let name = words.last().cloned().unwrap_or_default();
            arrows.entry((from, to)).or_default().insert(name);
        }
    }
    arrows
}

/// Returns the circles, each as a sentence for every arrow in it.
pub(super) fn circles(tree: &Tree, of: &Crate) -> Vec<Vec<String>> {
    let arrows = arrows(tree, of);
    let reached: Vec<_> = (0..of.files.len()).map(|from| reached(&arrows, from)).collect();
    let mut circles = Vec::new();
    let mut seen = BTreeSet::new();
    for from in 0..of.files.len() {
        if !reached[from].contains(&from) || seen.contains(&from) {
            continue;
        }
        let circle: BTreeSet<_> =
            reached[from].iter().copied().filter(|to| reached[*to].contains(&from)).collect();
        let inside = arrows.iter().filter(|((a, b), _)| circle.contains(a) && circle.contains(b));
        circles.push(
            inside
                .map(|((a, b), names)| {
                    let names: Vec<_> = names.iter().map(String::as_str).collect();
                    format!("{} takes {} from {}", of.files[*a].path, names.join(", "), of.files[*b].path)
                })
                .collect(),
        );
        seen.extend(circle);
    }
    circles
}

/// Returns all files that one comes to along the arrows.
fn reached(arrows: &Arrows, from: usize) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(at) = open.pop() {
        for (_, to) in arrows.range((at, 0)..(at + 1, 0)).map(|(arrow, _)| *arrow) {
            if reached.insert(to) {
                open.push(to);
            }
        }
    }
    reached
}
