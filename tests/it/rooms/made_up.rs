//! Made-up trees, and what must be found in them: a checker that finds nothing keeps nothing apart.

use std::collections::BTreeSet;
use std::path::Path;

use super::allowed::{self, NamedIn, Room, room_of};
use super::circles::circles;
use super::tree::{Crate, Tree, module_of};

const BECAUSE: &str = "it is a test";

const fn room(name: &'static str, rooms: &'static [&'static str], crates: &'static [&'static str]) -> Room {
    Room { name, rooms, tests: &[], crates, because: BECAUSE }
}

const ROOMS: &[Room] = &[
    room("made", &["made::http", "wire"], &[]),
    room("made::http", &["made::relay", "wire"], &["axum"]),
    Room { tests: &["made::storage::memory"], ..room("made::relay", &["made::storage", "wire"], &[]) },
    room("made::storage", &["wire"], &[]),
    room("made::storage::memory", &["made::storage"], &[]),
    room("wire", &[], &["serde"]),
];

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Returns a crate of files below its `src`, each with its text.
fn krate(name: &str, files: &[(&str, &str)]) -> Crate {
    let files = files.iter().map(|(below, text)| {
        (format!("{name}/{below}"), module_of(name, Path::new(below)), (*text).to_owned())
    });
    let dependencies = [names(&["axum", "serde", "glide", "wire"]), names(&["proptest"])];
    Crate::new(name, dependencies, files.collect())
}

/// Returns a tree in which all is well, but for what `file`, of the room `http`, says.
fn tree_with(file: &str) -> Tree {
    let files = [
        ("lib.rs", "pub mod http; pub mod relay; pub mod storage; pub use wire as words; use http::Server;"),
        ("http.rs", "mod pages; use crate::relay::Relay; use crate::words::Name; use axum::Router;"),
        ("http/pages.rs", file),
        (
            "relay.rs",
            "use wire::Name; use crate::storage::{Storage}; #[cfg(test)] use crate::storage::memory;",
        ),
        ("storage.rs", "pub mod memory; use wire::{Name};"),
        ("storage/memory.rs", "use super::Storage;"),
    ];
    let wire =
        [("lib.rs", "use serde::Serialize; pub use name::Name; mod name;"), ("name.rs", "use super::*;")];
    Tree { crates: vec![krate("made", &files), krate("wire", &wire)] }
}

fn broken(file: &str) -> Vec<String> {
    allowed::broken(&tree_with(file), ROOMS, &[])
}

#[test]
fn where_all_is_allowed_nothing_is_found() {
    assert_eq!(broken(""), Vec::<String>::new());
}

#[test]
fn a_forbidden_use_is_found_however_it_is_written() {
    for text in [
        "use crate::storage::Storage;",
        "use crate::{relay::Relay, storage::{Range, Trim}};",
        "use crate::\n    storage\n    ::Storage as S;",
        "fn f(s: &crate::storage::Storage) {}",
        "pub(crate) use super::super::storage;",
        "use super::super::storage::memory;",
        "use made::storage::Storage;",
        "fn f() { let x = crate::storage::memory::Memory::new(); }",
        "use {std::fmt, crate::storage};",
        "mod tests { use crate::storage::*; }",
        "#[cfg(test)] mod tests { use crate::storage::*; }",
        "use ::made::storage;",
        "use crate::r#storage::Storage;",
        "use crate as all; fn f(s: all::storage::Storage) {}",
        "mod inside { use super::super::super::storage::Range; }",
        "fn f<'a>(x: &'a crate::storage::Range) {}",
        "#[derive(crate::storage::Derive)] struct S;",
    ] {
        let found = broken(text);
        assert!(
            found.iter().any(|it| it.starts_with("made/http/pages.rs: names `made::storage")),
            "in {text}: {found:?}"
        );
    }
    for text in ["use serde::Serialize;", "fn f() { ::glide::cmd() }", "use proptest::prelude::*;"] {
        assert_eq!(broken(text).len(), 1, "in {text}");
    }
    let root = "use crate::Everything;";
    assert_eq!(
        broken(root),
        [
            "made/http/pages.rs: names `made::Everything` of `made`, which `made::http` may not use: it is a test"
        ]
    );
}

#[test]
fn what_only_looks_like_a_forbidden_use_is_not_found() {
    for text in [
        "//! Knows nothing of crate::storage.",
        "/* crate::storage /* crate::storage */ crate::storage */",
        "const S: &str = \"crate::storage\";",
        "const S: &str = r##\"crate::storage \"# crate::storage\"##;",
        "const S: &[u8] = b\"\\\"crate::storage\";",
        "const Q: char = '\"'; use crate::relay::Relay; const R: char = '\"';",
        "fn f<'a>(x: &'a crate::relay::Relay) {}",
        "use crate::relay::storage::Word;",
        "use other::crate_storage::Word;",
        "use std::storage::Word;",
        "use axum::Router as serde; fn f() { serde::new() }",
        "use super::Words; use crate::words::Name;",
        "#[cfg(test)] mod tests { use proptest::prelude::*; }",
    ] {
        assert_eq!(broken(text), Vec::<String>::new(), "in {text}");
    }
    // A longer name is another one.
    let found = broken("use crate::storage_words::Word;");
    assert!(found.len() == 1 && found[0].contains("of `made`, which"), "{found:?}");
    assert!(room_of(ROOMS, "made::storage_words").is_none());
}

#[test]
fn a_room_without_a_line_a_line_without_a_room_and_a_door_that_stands_open_are_found() {
    let mut tree = tree_with("");
    let files = [("lib.rs", "pub mod audit; use http::Server; mod http;"), ("audit.rs", ""), ("http.rs", "")];
    tree.crates[0] = krate("made", &files);
    let found = allowed::broken(&tree, ROOMS, &[]);
    for sentence in [
        "made/audit.rs: `made::audit` is in no room: give its room a line",
        "`made::relay` has a line, and no file",
        "`made::http` may use `made::relay` and does not: take it from its line",
        "`made::http` may use `axum` and does not: take it from its line",
    ] {
        assert!(found.iter().any(|it| it == sentence), "{sentence}: {found:?}");
    }
    assert!(!found.iter().any(|it| it.starts_with("`made` may use `made::http`")), "{found:?}");
}

#[test]
fn a_use_of_a_room_without_a_line_is_found() {
    let mut tree = tree_with("");
    let files = [
        ("lib.rs", "pub mod http; mod audit; use http::S;"),
        ("http.rs", "use crate::audit::Log;"),
        ("audit.rs", ""),
    ];
    tree.crates[0] = krate("made", &files);
    let found = allowed::broken(&tree, ROOMS, &[]);
    assert!(found.iter().any(|it| it.starts_with("made/http.rs: names `made::audit::Log`")), "{found:?}");
}

#[test]
fn what_tests_may_use_the_rest_of_their_room_may_not() {
    let with = |relay: &str, tests: &str| {
        let mut tree = tree_with("");
        let files = [
            ("lib.rs", ""),
            ("relay.rs", relay),
            ("relay/tests.rs", tests),
            ("relay/tests/inner.rs", tests),
            ("storage.rs", ""),
            ("storage/memory.rs", ""),
        ];
        tree.crates[0] = krate("made", &files);
        let found = allowed::broken(&tree, ROOMS, &[]);
        found.iter().filter(|it| it.contains("names `made::storage::memory")).count()
    };
    let name = "use crate::storage::memory::Memory;";
    assert_eq!(with("#[cfg(test)] mod tests;", name), 0);
    assert_eq!(with("mod tests;", name), 2);
    assert_eq!(with("mod tests;", &format!("#![cfg(test)] {name}")), 0);
    assert_eq!(
        with(&format!("#[cfg(test)] fn f(x: [u8; 2]) {{}} {name}"), ""),
        1,
        "behind what is for tests"
    );
    assert_eq!(with(&format!("#[cfg(not(test))] {name}"), ""), 1);
    assert_eq!(with(&format!("#[cfg(all(test, unix))] {name}"), ""), 0);
}

#[test]
fn rooms_that_may_use_each_other_are_found() {
    let two = [room("a", &["b"], &[]), room("b", &["a"], &[])];
    let three =
        [room("a", &["b"], &[]), room("b", &["c"], &[]), room("c", &["a"], &[]), room("d", &["a"], &[])];
    let in_circles = |rooms: &[Room]| {
        let found = allowed::broken(&Tree::default(), rooms, &[]);
        found.iter().filter(|it| it.ends_with("uses rooms that use it, directly or through others")).count()
    };
    assert_eq!((in_circles(&two), in_circles(&three), in_circles(ROOMS)), (2, 3, 0));
}

#[test]
fn a_crate_is_named_in_its_files_alone() {
    let named = |files: &'static [&'static str], pages: &str| {
        let rule = NamedIn { name: "axum", files, because: BECAUSE };
        allowed::broken(&tree_with(pages), ROOMS, &[rule])
    };
    assert_eq!(named(&["made/http.rs"], ""), Vec::<String>::new());
    assert_eq!(
        named(&["made/http.rs"], "use axum::Json;"),
        ["made/http/pages.rs: names `axum`: it is a test"]
    );
    assert_eq!(
        named(&["made/http.rs", "made/http/pages.rs"], ""),
        ["made/http/pages.rs: may name `axum` and does not: take it from the list"]
    );
}

#[test]
fn a_dependency_that_nothing_but_tests_names_is_found() {
    let idle = |file: &str| allowed::idle_dependencies(&tree_with(file), &tree_with(file).crates[0]);
    let unused = |name| format!("`made` depends on `{name}`, which nothing but tests may name");
    assert_eq!(idle("use serde::Serialize; fn f() { glide::cmd() }"), Vec::<String>::new());
    assert_eq!(idle("#[derive(serde::Serialize)] struct S;"), [unused("glide")]);
    assert_eq!(
        idle("#[cfg(test)] use serde::Serialize; //! glide::cmd()"),
        [unused("glide"), unused("serde")]
    );
}

/// Returns the circles of a crate with these files.
fn circles_of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let tree = Tree { crates: vec![krate("made", files)] };
    circles(&tree, &tree.crates[0])
}

#[test]
fn circles_are_found_with_what_ties_them() {
    let two = [
        ("a.rs", "use super::b::{B, b};"),
        ("b.rs", "fn f() { crate::a::a() }"),
        ("c.rs", "use super::a::A;"),
    ];
    assert_eq!(
        circles_of(&two),
        [["made/a.rs takes B, b from made/b.rs", "made/b.rs takes a from made/a.rs"]]
    );
    // Through the names that heads have for what is in their folders, and through a module's own name.
    let three = [
        ("lib.rs", "mod room; mod other; pub use other::deep::Deep as Shallow;"),
        ("room.rs", "mod x; mod y; pub(super) use y::{Y as Why};"),
        ("room/x.rs", "use super::Why;"),
        ("room/y.rs", "use crate::Shallow;"),
        ("other.rs", "pub mod deep;"),
        ("other/deep.rs", "use crate::room; fn f(x: room::x::X) {}"),
    ];
    let found = circles_of(&three);
    assert_eq!(found.len(), 1, "{found:?}");
    for arrow in [
        "made/room/x.rs takes Why from made/room/y.rs",
        "made/room/y.rs takes Shallow from made/other/deep.rs",
        "made/other/deep.rs takes X from made/room/x.rs",
    ] {
        assert!(found[0].iter().any(|it| it == arrow), "{arrow}: {found:?}");
    }
    let twice = [
        ("a.rs", "use super::b::B;"),
        ("b.rs", "use super::a::A;"),
        ("c.rs", "use super::d::D;"),
        ("d.rs", "use super::c::C;"),
    ];
    assert_eq!(circles_of(&twice).len(), 2);
    // A head that takes a name from elsewhere which leads back to it.
    let head = [
        ("a.rs", "mod part; use super::b::B;"),
        ("a/part.rs", "use super::A;"),
        ("b.rs", "use super::a::part::P;"),
    ];
    assert_eq!(circles_of(&head).len(), 1);
}

#[test]
fn what_is_no_circle_is_not_found() {
    for files in [
        // The head of a folder, and what is in it.
        &[("a.rs", "mod b; use b::B; fn f() { b::f() }"), ("a/b.rs", "use super::A;")][..],
        // One way, by two ways.
        &[("a.rs", "use super::{b::B, c::C};"), ("b.rs", "use super::c::C;"), ("c.rs", "")],
        // In tests.
        &[("a.rs", "use super::b::B;"), ("b.rs", "#[cfg(test)] mod tests { use super::super::a::A; }")],
        &[
            ("a.rs", "use super::b::B; #[cfg(test)] mod tests;"),
            ("a/tests.rs", "use super::*;"),
            ("b.rs", ""),
        ],
        // In words.
        &[("a.rs", "use super::b::B;"), ("b.rs", "//! crate::a::A\nconst S: &str = \"crate::a::A\";")],
        // Itself.
        &[("a.rs", "use self::inner::A; mod inner { use super::B; }")],
    ] {
        assert_eq!(circles_of(files), Vec::<Vec<String>>::new(), "in {files:?}");
    }
}

#[test]
fn modules_follow_from_paths() {
    assert_eq!(module_of("tidemill", Path::new("lib.rs")), "tidemill");
    assert_eq!(module_of("tidemill", Path::new("storage.rs")), "tidemill::storage");
    assert_eq!(module_of("tidemill", Path::new("storage/valkey/lane.rs")), "tidemill::storage::valkey::lane");
}
