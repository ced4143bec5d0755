//! What each room may use, as a list for each, and what the sources say against it.
//!
//! It knows no room of the real tree.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::{Crate, File, Tree, is_in};

/// A room: a module with all below it that is no room of its own, or a whole crate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) name: &'static str,
    /// The rooms that it may use.
    pub(super) rooms: &'static [&'static str],
    /// Those that may be used as well by what is compiled for tests.
    pub(super) tests: &'static [&'static str],
    /// The crates from elsewhere that it may use. In tests, those for tests are free.
    pub(super) crates: &'static [&'static str],
    /// Why it may use no more.
    pub(super) because: &'static str,
}

/// A crate that only some files may name.
#[derive(Clone, Copy, Debug)]
pub(super) struct NamedIn {
    pub(super) name: &'static str,
    pub(super) files: &'static [&'static str],
    pub(super) because: &'static str,
}

/// What a file takes from outside its room.
struct Use {
    what: What,
    /// The path, in full.
    path: String,
    test: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Room(&'static str),
    /// A module of the workspace that is in no room.
    NoRoom,
    /// A crate from elsewhere.
    Crate(String),
    /// The same, for tests alone.
    CrateForTests,
}

/// Returns the room of a module. The root of a crate that has rooms is in a room with nothing else.
pub(super) fn room_of(rooms: &[Room], module: &str) -> Option<Room> {
    let is_its = |room: &&Room| {
        let has_rooms = || rooms.iter().any(|other| other.name != room.name && is_in(other.name, room.name));
        let is_root = !room.name.contains("::") && has_rooms();
        if is_root { module == room.name } else { is_in(module, room.name) }
    };
    rooms.iter().filter(is_its).max_by_key(|room| room.name.len()).copied()
}

/// Returns what is wrong, a sentence for each.
pub(super) fn broken(tree: &Tree, rooms: &[Room], named_in: &[NamedIn]) -> Vec<String> {
    let mut broken = BTreeSet::new();
    let mut used = BTreeMap::<_, BTreeSet<What>>::new();
    let mut named = BTreeSet::new();
    let mut forbidden = BTreeMap::<_, BTreeSet<String>>::new();
    for file in tree.crates.iter().flat_map(|it| &it.files) {
        let path = &file.path;
        let Some(room) = room_of(rooms, &file.module) else {
            broken.insert(format!("{path}: `{}` is in no room: give its room a line", file.module));
            continue;
        };
        let used = used.entry(room.name).or_default();
        for it in uses(tree, rooms, room, file) {
            let may = match &it.what {
                What::Room(other) => room.rooms.contains(other) || it.test && room.tests.contains(other),
                What::NoRoom => false,
                What::Crate(name) => room.crates.contains(&name.as_str()),
                What::CrateForTests => it.test,
            };
            if !may {
                forbidden
                    .entry((path, room.name, it.what.clone(), it.test))
                    .or_default()
                    .insert(it.path.clone());
            }
            for rule in named_in.iter().filter(|rule| is_in(&it.path, rule.name)) {
                named.insert((rule.name, path.as_str()));
                if !rule.files.contains(&path.as_str()) {
                    broken.insert(format!("{path}: names `{}`: {}", rule.name, rule.because));
                }
            }
            used.insert(it.what);
        }
    }
    for ((path, name, what, test), paths) in forbidden {
        let of = match what {
            What::Room(of) => format!("`{of}`"),
            What::NoRoom => "a module without a room".to_owned(),
            What::Crate(of) => format!("the crate `{of}`"),
            What::CrateForTests => "a crate for tests".to_owned(),
        };
        let paths = paths.into_iter().collect::<Vec<_>>().join("`, `");
        let test = if test { " in its tests" } else { "" };
        let because = room_of(rooms, name).map_or("", |room| room.because);
        broken
            .insert(format!("{path}: names `{paths}` of {of}, which `{name}` may not use{test}: {because}"));
    }
    for room in rooms {
        broken.extend(too_much(room, used.get(room.name)));
    }
    for rule in named_in {
        for file in rule.files.iter().filter(|file| !named.contains(&(rule.name, file))) {
            broken.insert(format!("{file}: may name `{}` and does not: take it from the list", rule.name));
        }
    }
    broken.into_iter().chain(rooms_in_circles(rooms)).collect()
}

/// Returns what a room's line has that its files have no use for: a door that stands open.
fn too_much(room: &Room, used: Option<&BTreeSet<What>>) -> Vec<String> {
    let Some(used) = used else { return vec![format!("`{}` has a line, and no file", room.name)] };
    let rooms = room.rooms.iter().chain(room.tests).filter(|other| !used.contains(&What::Room(other)));
    let crates = room.crates.iter().filter(|name| !used.contains(&What::Crate((**name).to_owned())));
    rooms
        .chain(crates)
        .map(|name| format!("`{}` may use `{name}` and does not: take it from its line", room.name))
        .collect()
}

/// Returns what a crate depends on, and names in nothing but its tests.
pub(super) fn idle_dependencies(tree: &Tree, of: &Crate) -> Vec<String> {
    let paths = of.files.iter().filter(|file| !file.test).flat_map(|file| {
        let paths = file.source.paths.iter().filter(|path| !path.test);
        paths.filter_map(|path| tree.resolve(file, &path.words))
    });
    let named: BTreeSet<_> = paths.map(|words| words[0].clone()).collect();
    let idle = of.dependencies.difference(&named);
    idle.map(|name| format!("`{}` depends on `{name}`, which nothing but tests may name", of.name)).collect()
}

fn uses(tree: &Tree, rooms: &[Room], own: Room, file: &File) -> Vec<Use> {
    let of = tree.crate_of(&file.module);
    let mut uses = Vec::new();
    for path in &file.source.paths {
        let Some(words) = tree.resolve(file, &path.words) else { continue };
        let what = if let Some(module) = tree.module_in(&words) {
            match room_of(rooms, &module) {
                Some(room) if room.name == own.name => continue,
                Some(room) => What::Room(room.name),
                None => What::NoRoom,
            }
        } else if of.dependencies.contains(&words[0]) {
            What::Crate(words[0].clone())
        } else {
            What::CrateForTests
        };
        uses.push(Use { what, path: words.join("::"), test: path.test || file.test });
    }
    uses
}

/// Returns the rooms from which a way along the lines leads back to themselves.
fn rooms_in_circles(rooms: &[Room]) -> Vec<String> {
    let next = |name: &str| rooms.iter().find(|room| room.name == name).map_or(&[][..], |room| room.rooms);
    let leads_back = |room: &&Room| {
        let mut reached = BTreeSet::new();
        let mut open = room.rooms.to_vec();
        while let Some(name) = open.pop() {
            if reached.insert(name) {
                open.extend(next(name));
            }
        }
        reached.contains(room.name)
    };
    let found = rooms.iter().filter(leads_back);
    found.map(|room| format!("`{}` uses rooms that use it, directly or through others", room.name)).collect()
}
