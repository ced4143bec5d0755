//! Circles between files: which of them take names from each other, directly or through others.
//!
//! The head of a folder (`relay.rs` beside `relay/`) may name the files in it, which is what it is for,
//! while they take names from it; all else is an arrow. Tests are left out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::tree::{Crate, Tree, is_in};

/// Names that files of the real tree take from others: what is not found here would not be found in a
/// circle either.
pub(super) const KNOWN_ARROWS: &[(&str, &str, &str)] = &[
    ("src/relay/live/feed.rs", "src/relay/live/ring.rs", "Ring"),
    // Through the heads of two folders.
    ("src/http/lines.rs", "src/relay/live/item.rs", "Item"),
    // Through the head of its own.
    ("src/relay/live/feeds.rs", "src/relay/failure.rs", "Failure"),
    ("src/storage/memory.rs", "src/storage/error.rs", "StorageError"),
    ("proto/src/frame.rs", "proto/src/message.rs", "MessageRef"),
];

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

/// Returns the circles: of files that are tied together by several, a shortest one, with a sentence for
/// each of its arrows.
pub(super) fn circles(tree: &Tree, of: &Crate) -> Vec<Vec<String>> {
    let arrows = arrows(tree, of);
    let mut tied = BTreeSet::new();
    let mut circles = Vec::new();
    for at in 0..of.files.len() {
        if tied.contains(&at) || way_back(&arrows, at).is_none() {
            continue;
        }
        let together = together_with(&arrows, at);
        let ways = together.iter().filter_map(|at| way_back(&arrows, *at));
        let shortest = ways.min_by_key(Vec::len).unwrap_or_default();
        let sentence = |pair: &[usize]| {
            let names: Vec<_> = arrows[&(pair[0], pair[1])].iter().map(String::as_str).collect();
            let [from, to] = [pair[0], pair[1]].map(|at| &of.files[at].path);
            format!("{from} takes {} from {to}", names.join(", "))
        };
        circles.push(shortest.windows(2).map(sentence).collect());
        tied.extend(together);
    }
    circles
}

/// Returns the shortest way from a file along the arrows back to itself, with the file at both ends.
fn way_back(arrows: &Arrows, start: usize) -> Option<Vec<usize>> {
    let mut came_from = BTreeMap::new();
    let mut open = VecDeque::from([start]);
    while let Some(at) = open.pop_front() {
        for to in next(arrows, at) {
            if came_from.contains_key(&to) {
                continue;
            }
            came_from.insert(to, at);
            if to == start {
                let mut way = vec![start];
                let mut back = at;
                while back != start {
                    way.push(back);
                    back = came_from[&back];
                }
                way.push(start);
                way.reverse();
                return Some(way);
            }
            open.push_back(to);
        }
    }
    None
}

/// Returns the files from which a way leads to this one, and to which one leads from it.
fn together_with(arrows: &Arrows, at: usize) -> BTreeSet<usize> {
    let there = reached(arrows, at);
    there.into_iter().filter(|other| reached(arrows, *other).contains(&at)).collect()
}

fn reached(arrows: &Arrows, from: usize) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(at) = open.pop() {
        open.extend(next(arrows, at).filter(|to| reached.insert(*to)));
    }
    reached
}

fn next(arrows: &Arrows, at: usize) -> impl Iterator<Item = usize> {
    arrows.range((at, 0)..(at + 1, 0)).map(|((_, to), _)| *to)
}
