//! The rooms of the architecture: reads the sources and fails where one room names another that it
//! must not know, or where a file breaks the rules of layout.
//!
//! It reads text, not syntax trees: comments and literals are blanked out, `use` trees are spread out,
//! and every path that starts with `crate`, `super`, `self` or the name of a crate is looked at. It
//! knows nothing of what the code does.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

mod source;

use source::paths_in;

/// A room and what must not be named in it.
struct Rule {
    /// The module, and all modules below it.
    room: &'static str,
    /// Modules below the room for which the rule does not hold.
    except: &'static [&'static str],
    /// Paths that must not be named, nor anything below them.
    forbidden: &'static [&'static str],
    /// Why.
    reason: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        room: "tidemill_proto",
        except: &[],
        forbidden: &["tokio", "axum", "hyper", "tower", "reqwest", "glide", "tidemill"],
        reason: "a client can depend on the wire contract alone: it does no I/O",
    },
    Rule {
        room: "tidemill",
        except: &["tidemill::storage::valkey"],
        forbidden: &["glide", "glide_core", "redis"],
        reason: "the client library of Valkey is a preview, named in storage/valkey alone",
    },
    Rule {
        room: "tidemill::storage",
        except: &[],
        forbidden: &[
            "tidemill::http",
            "tidemill::relay",
            "tidemill::server",
            "tidemill::cli",
            "tidemill::config",
            "axum",
            "hyper",
            "clap",
        ],
        reason: "a backend knows the contract and tidemill-proto only",
    },
    Rule {
        room: "tidemill::storage::memory",
        except: &[],
        forbidden: &["tidemill::storage::valkey"],
        reason: "backends do not know each other",
    },
    Rule {
        room: "tidemill::storage::valkey",
        except: &[],
        forbidden: &["tidemill::storage::memory"],
        reason: "backends do not know each other",
    },
    Rule {
        room: "tidemill::http",
        except: &[],
        forbidden: &[
            "tidemill::storage",
            "tidemill::server",
            "tidemill::cli",
            "tidemill_client",
            "tidemill::ws",
        ],
        reason: "handlers reach the storage through the relay, and know no other transport",
    },
    Rule {
        room: "tidemill::ws",
        except: &[],
        forbidden: &[
            "tidemill::storage",
            "tidemill::server",
            "tidemill::cli",
            "tidemill_client",
            "tidemill::http",
        ],
        reason: "sessions reach the storage through the relay, and know no other transport",
    },
    Rule {
        room: "tidemill::relay",
        except: &[],
        forbidden: &[
            "tidemill::http",
            "tidemill::ws",
            "tidemill::server",
            "tidemill::cli",
            "tidemill_client",
            "tidemill::storage::memory",
            "tidemill::storage::valkey",
            "axum",
            "hyper",
        ],
        reason: "the domain knows neither its transports nor a particular backend",
    },
    Rule {
        room: "tidemill::link",
        except: &[],
        forbidden: &[
            "tidemill::http",
            "tidemill::ws",
            "tidemill::relay",
            "tidemill::server",
            "tidemill::cli",
            "tidemill_client",
            "tidemill::storage",
            "axum",
            "hyper",
        ],
        reason: "a connection does not know what is written to it, nor where it came from",
    },
    Rule {
        room: "tidemill::config",
        except: &[],
        forbidden: &["tidemill::http", "tidemill::relay", "tidemill::server", "axum", "hyper"],
        reason: "settings are read before there is anything to set",
    },
    Rule {
        room: "tidemill_client",
        except: &[],
        forbidden: &["tidemill", "glide", "axum", "hyper"],
        reason: "a client knows the wire contract and no room of the relay",
    },
    Rule {
        room: "tidemill::server",
        except: &[],
        forbidden: &["tidemill_client", "tidemill::cli"],
        reason: "a relay is nobody's client",
    },
    Rule {
        room: "tidemill::clock",
        except: &[],
        forbidden: &[
            "tidemill::http",
            "tidemill::relay",
            "tidemill::server",
            "tidemill::cli",
            "tidemill::config",
            "tidemill::storage",
        ],
        reason: "the clock does not know what the time is used for",
    },
];

/// Names of files and folders that say nothing of what is in them.
const NAMES_FORBIDDEN: &[&str] = &["mod", "util", "utils", "common", "helper", "helpers", "misc"];

/// Lines after which a file has to justify itself.
const LINES_MAX: usize = 500;

/// The line that justifies a long file.
const LONG_BECAUSE: &str = "//! Long because: ";

/// A folder with sources, and the module that its root file is.
const ROOTS: &[(&str, Option<&str>)] = &[
    ("src", Some("tidemill")),
    ("client/src", Some("tidemill_client")),
    ("proto/src", Some("tidemill_proto")),
    ("proto/tests", None),
    ("tests", None),
    ("examples", None),
    ("bench", None),
];

/// Returns whether `path` is `module` or lies below it.
fn is_in(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Returns what the rules say against a file of `module` that names `paths`.
fn broken_rules(module: &str, paths: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for rule in RULES.iter().filter(|rule| is_in(module, rule.room)) {
        if rule.except.iter().any(|except| is_in(module, except)) {
            continue;
        }
        for path in paths {
            if rule.forbidden.iter().any(|forbidden| is_in(path, forbidden)) {
                found.push(format!("names `{path}`, but {}", rule.reason));
            }
        }
    }
    found
}

/// Returns what the rules of layout say against a file.
fn broken_layout(path: &Path, text: &str) -> Vec<String> {
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

/// Returns the module of a file, by its path below the folder of the crate's root.
fn module_of(crate_name: &str, below: &Path) -> String {
    let mut module = crate_name.to_owned();
    let parts: Vec<_> =
        below.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts == ["lib"] || parts == ["main"] {
        return module;
    }
    for part in parts {
        let _ = write!(module, "::{part}");
    }
    module
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a folder of the repository can be read").path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn every_room_knows_only_what_it_may() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut broken = Vec::new();
    let mut files_seen = 0;
    for (folder, crate_name) in ROOTS {
        let folder = root.join(folder);
        let mut files = Vec::new();
        rust_files(&folder, &mut files);
        for file in files {
            files_seen += 1;
            let text = fs::read_to_string(&file).expect("sources are UTF-8");
            let below = file.strip_prefix(&folder).expect("the file was found below the folder");
            let mut found = broken_layout(below, &text);
            if let Some(crate_name) = crate_name {
                let module = module_of(crate_name, below);
                found.extend(broken_rules(&module, &paths_in(&text, &module)));
            }
            let shown = file.strip_prefix(root).unwrap_or(&file).display();
            broken.extend(found.into_iter().map(|sentence| format!("{shown}: {sentence}")));
        }
    }
    assert!(files_seen > 20, "only {files_seen} files were found: the test looks in the wrong place");
    assert!(broken.is_empty(), "{} broken rules:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn no_crate_brings_what_its_users_must_not_build() {
    for (folder, forbidden) in [
        ("proto", &["tokio", "axum", "hyper", "reqwest"][..]),
        ("client", &["tidemill", "axum", "hyper", "reqwest", "utoipa", "glide", "clap"]),
    ] {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join("Cargo.toml");
        let manifest = fs::read_to_string(manifest).expect("the crate has a manifest");
        for line in manifest.lines() {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            assert!(!forbidden.contains(&name), "{folder} depends on {name}");
        }
    }
}

/// Returns the sentences against `text` as a file of `module`.
fn check(module: &str, text: &str) -> Vec<String> {
    broken_rules(module, &paths_in(text, module))
}

#[test]
fn a_forbidden_use_is_found_however_it_is_written() {
    for text in [
        "use crate::storage::Storage;",
        "use crate::{relay::Relay, storage::{Range, Trim}};",
        "use crate::\n    storage\n    ::Storage as S;",
        "fn f(s: &crate::storage::Storage) {}",
        "pub(crate) use super::storage;",
        "use super::storage::memory;",
        "use tidemill::storage::Storage;",
        "fn f() { let x = crate::storage::memory::Memory::new(); }",
        "use {std::fmt, crate::storage};",
        "mod tests { use crate::storage::*; }",
        "use ::tidemill::storage;",
        "use crate::r#storage::Storage;",
    ] {
        assert!(!check("tidemill::http", text).is_empty(), "in {text}");
    }
    assert_eq!(check("tidemill::http::pages", "use super::super::storage::Range;").len(), 1);
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
        "use crate::storage_words::Word;",
        "use crate::relay::storage::Word;",
        "use other::crate_storage::Word;",
    ] {
        assert_eq!(check("tidemill::http", text), Vec::<String>::new(), "in {text}");
    }
}

#[test]
fn each_room_has_its_rule() {
    let broken = |module: &str, text: &str| !check(module, text).is_empty();
    assert!(broken("tidemill_proto::topic", "use tokio::sync::Mutex;"));
    assert!(broken("tidemill_proto", "use axum::Router;"));
    assert!(broken("tidemill::storage::memory", "use crate::storage::valkey::Lane;"));
    assert!(broken("tidemill::storage::valkey::lane", "use crate::storage::memory::Ring;"));
    assert!(broken("tidemill::storage::valkey", "use crate::http::Router;"));
    assert!(broken("tidemill::storage", "use crate::relay::Relay;"));
    assert!(broken("tidemill::relay", "use crate::http::Router;"));
    assert!(broken("tidemill::relay::publish", "use crate::storage::memory::Memory;"));
    assert!(broken("tidemill::server", "use glide::GlideClient;"));
    assert!(broken("tidemill::storage::memory", "fn f() { glide::cmd(\"PING\"); }"));
    assert!(!broken("tidemill::storage::valkey::lane", "use glide::GlideClient;"));
    assert!(!broken("tidemill::server", "use crate::storage::memory::Memory;"));
    assert!(!broken("tidemill::relay", "use crate::storage::{Storage, StorageError};"));
    assert!(!broken("tidemill::http", "use crate::relay::Relay;"));
    assert!(broken("tidemill::http", "use crate::ws::Ws;"));
    assert!(broken("tidemill_client::engine", "use tidemill::relay::Failure;"));
    assert!(broken("tidemill::server", "use tidemill_client::Client;"));
    assert!(!broken("tidemill::cli::tail", "use tidemill_client::Client;"));
    assert!(broken("tidemill::ws::session", "use crate::http::Metrics;"));
}

#[test]
fn the_layout_is_checked() {
    let broken = |path: &str, text: &str| broken_layout(Path::new(path), text).len();
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

#[test]
fn modules_follow_from_paths() {
    assert_eq!(module_of("tidemill", Path::new("lib.rs")), "tidemill");
    assert_eq!(module_of("tidemill", Path::new("storage.rs")), "tidemill::storage");
    assert_eq!(module_of("tidemill", Path::new("storage/valkey/lane.rs")), "tidemill::storage::valkey::lane");
}
