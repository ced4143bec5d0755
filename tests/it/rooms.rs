//! The rooms of the architecture: reads the sources and fails where a room uses what is not in its line,
//! where files know each other in a circle, or where a file breaks the rules of layout.
//!
//! Long because: it is the list of all rooms, with a line for each thing that one may use.
//!
//! It reads text, not syntax trees: comments and literals are blanked out, `use` trees are spread out,
//! and every path is followed to the crate or the file that it leads to. It knows nothing of what the
//! code does.
//!
//! | file | owns |
//! |---|---|
//! | `source` | what one file names |
//! | `tree` | the crates of the workspace, and where names lead |
//! | `allowed` | what the lines below say against the tree |
//! | `named` | crates that a few files alone may name |
//! | `circles` | which files know each other in a circle |
//! | `layout` | names, openings and lengths of files |
//! | `made_up` | trees with faults, each of which must be found |

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

mod allowed;
mod circles;
mod layout;
mod made_up;
mod named;
mod source;
mod tree;

use allowed::Room;
use circles::KNOWN_ARROWS;
use named::NAMED_IN;
use tree::{Tree, rust_files};

/// All rooms. Whoever adds a room or a crate adds a line; what is not in a line may not be used.
const ROOMS: &[Room] = &[
    Room {
        name: "tidemill_proto",
        rooms: &[],
        tests: &[],
        crates: &[
            "arrayvec",
            "base64",
            "bincode",
            "itoa",
            "jiff",
            "serde",
            "serde_json",
            "thiserror",
            "utoipa",
        ],
        because: "a client can depend on the wire contract alone: it does no I/O",
    },
    Room {
        name: "tidemill",
        rooms: &["tidemill::cli", "tidemill_proto"],
        tests: &[],
        crates: &["tikv_jemallocator"],
        because: "the program's entry does nothing but run a command, with the allocator that it chooses",
    },
    Room {
        name: "tidemill_resp",
        rooms: &[],
        tests: &[],
        crates: &["bytes", "itoa", "memchr", "thiserror"],
        because: "the form of commands and replies is the same whoever has the connection: it does no I/O",
    },
    Room {
        name: "tidemill::access",
        rooms: &[
            "tidemill::chance",
            "tidemill::clock",
            "tidemill::metrics",
            "tidemill::storage",
            "tidemill::thinned",
            "tidemill_proto",
        ],
        tests: &[],
        crates: &[
            "arc_swap",
            "argon2",
            "aws_lc_rs",
            "base64",
            "bytes",
            "crc32fast",
            "futures_util",
            "hex",
            "jsonwebtoken",
            "oauth2",
            "parking_lot",
            "reqwest",
            "rustix",
            "secrecy",
            "serde",
            "serde_json",
            "sha2",
            "thiserror",
            "thread_priority",
            "tokio",
            "tokio_util",
            "tracing",
            "url",
        ],
        because: "who may do what does not depend on what is done, nor on how it was asked for",
    },
    Room {
        name: "tidemill::limits",
        rooms: &[
            "tidemill::access",
            "tidemill::chance",
            "tidemill::metrics",
            "tidemill::storage",
            "tidemill_proto",
        ],
        tests: &[],
        crates: &[
            "arc_swap",
            "futures_util",
            "parking_lot",
            "secrecy",
            "sha2",
            "tokio",
            "tokio_util",
            "tracing",
        ],
        because: "how much may be done does not depend on what is done, nor on how it was asked for",
    },
    Room {
        name: "tidemill::thinned",
        rooms: &[],
        tests: &[],
        crates: &["parking_lot", "tokio"],
        because: "how often something is told does not depend on what it is",
    },
    Room {
        name: "tidemill::traces",
        rooms: &["tidemill::chance", "tidemill_proto"],
        tests: &[],
        crates: &[
            "async_trait",
            "bytes",
            "memchr",
            "opentelemetry",
            "opentelemetry_http",
            "opentelemetry_otlp",
            "opentelemetry_sdk",
            "parking_lot",
            "percent_encoding",
            "pin_project_lite",
            "reqwest",
            "thiserror",
            "tracing",
            "url",
        ],
        because: "a span does not know what is done in it",
    },
    Room {
        name: "tidemill::slow",
        rooms: &["tidemill_proto"],
        tests: &[],
        crates: &["parking_lot", "pin_project_lite", "tokio"],
        because: "how long something took does not depend on what it is",
    },
    Room {
        name: "tidemill::budget",
        rooms: &[],
        tests: &[],
        crates: &["futures_util", "thiserror", "tokio"],
        because: "a budget counts bytes, whoever holds them",
    },
    Room { name: "tidemill::chance", rooms: &[], tests: &[], crates: &[], because: "chance knows nobody" },
    Room {
        name: "tidemill::metrics",
        rooms: &["tidemill_proto"],
        tests: &[],
        crates: &["metrics", "metrics_exporter_prometheus", "parking_lot"],
        because: "what is counted is a name and a number, whoever counts",
    },
    Room {
        name: "tidemill::cli",
        rooms: &[
            "tidemill_bench",
            "tidemill_client",
            "tidemill::chance",
            "tidemill::clock",
            "tidemill::config",
            "tidemill::copying",
            "tidemill::server",
            "tidemill::storage",
            "tidemill::storage::valkey",
            "tidemill_proto",
            "tidemill_tls",
            "tidemill::traces",
        ],
        tests: &[],
        crates: &[
            "async_trait",
            "base64",
            "clap",
            "clap_complete",
            "clap_mangen",
            "futures_util",
            "indicatif",
            "listenfd",
            "reqwest",
            "rustix",
            "sd_notify",
            "secrecy",
            "serde",
            "serde_json",
            "thiserror",
            "tokio",
            "tokio_util",
            "tracing",
            "tracing_subscriber",
            "url",
        ],
        because: "a command starts a relay or is a client of one, and looks into neither",
    },
    Room {
        name: "tidemill_client",
        rooms: &["tidemill_proto", "tidemill_tls"],
        tests: &[],
        crates: &[
            "base64",
            "bytes",
            "futures_util",
            "reqwest",
            "secrecy",
            "serde",
            "serde_json",
            "thiserror",
            "tokio",
            "tokio_tungstenite",
            "tokio_util",
            "url",
        ],
        because: "a client knows the wire contract and no room of the relay",
    },
    Room {
        name: "tidemill::clock",
        rooms: &["tidemill_proto"],
        tests: &[],
        crates: &[],
        because: "the clock does not know what the time is used for",
    },
    Room {
        name: "tidemill::console",
        rooms: &[],
        tests: &[],
        crates: &[],
        because: "the console asks the relay what everybody may ask: it is a page, and knows nobody",
    },
    Room {
        name: "tidemill::features",
        rooms: &[],
        tests: &[],
        crates: &[],
        because: "what can be switched off is named once, for all who ask",
    },
    Room {
        name: "tidemill::copying",
        rooms: &["tidemill::chance", "tidemill::clock", "tidemill::storage", "tidemill_proto"],
        tests: &[],
        crates: &[
            "async_trait",
            "bytes",
            // Of exports, which are files.
            "crc32fast",
            "futures_util",
            "parking_lot",
            "serde",
            "serde_json",
            "tempfile",
            "thiserror",
            "tokio",
            "zstd",
        ],
        because: "what is copied does not depend on where it lies",
    },
    Room {
        name: "tidemill::config",
        rooms: &[
            "tidemill::access",
            "tidemill::features",
            "tidemill::limits",
            "tidemill::storage",
            "tidemill::storage::valkey",
            "tidemill_proto",
        ],
        tests: &[],
        crates: &["clap", "secrecy", "serde", "serde_json", "strsim", "thiserror", "toml", "url"],
        because: "settings are read before there is anything to set",
    },
    Room {
        name: "tidemill::server",
        rooms: &[
            "tidemill::access",
            "tidemill::chance",
            "tidemill::clock",
            "tidemill::config",
            "tidemill::features",
            "tidemill::http",
            "tidemill::limits",
            "tidemill::link",
            "tidemill::metrics",
            "tidemill::relay",
            "tidemill::slow",
            "tidemill::storage",
            "tidemill::storage::memory",
            "tidemill::storage::valkey",
            "tidemill::ws",
            "tidemill_proto",
            "tidemill_tls",
        ],
        tests: &[],
        crates: &[
            "async_trait",
            "axum",
            "bytes",
            "httparse",
            "hyper",
            "hyper_util",
            "parking_lot",
            "rustix",
            "secrecy",
            "serde_json",
            "thiserror",
            "tokio",
            "tokio_util",
            "tracing",
        ],
        because: "a relay is nobody's client, and no command",
    },
    Room {
        name: "tidemill::http",
        rooms: &[
            "tidemill::access",
            "tidemill::budget",
            "tidemill::chance",
            "tidemill::console",
            "tidemill::features",
            "tidemill::limits",
            "tidemill::link",
            "tidemill::metrics",
            "tidemill::relay",
            "tidemill::slow",
            "tidemill_proto",
            "tidemill::traces",
        ],
        tests: &["tidemill::clock", "tidemill::storage"],
        crates: &[
            "arc_swap",
            "axum",
            "base64",
            "brotli_decompressor",
            "flate2",
            "futures_util",
            "http_body_util",
            "httparse",
            "httpdate",
            "hyper",
            "hyper_util",
            "itoa",
            "memchr",
            "parking_lot",
            "secrecy",
            "serde",
            "serde_json",
            "serde_path_to_error",
            "sha2",
            "strsim",
            "thiserror",
            "tokio",
            "tokio_util",
            "tower_http",
            "tracing",
            "url",
            "utoipa",
            "utoipa_axum",
            "utoipa_swagger_ui",
            "zstd",
        ],
        because: "handlers reach the storage through the relay, and know no other transport",
    },
    Room {
        name: "tidemill::ws",
        rooms: &[
            "tidemill::access",
            "tidemill::budget",
            "tidemill::chance",
            "tidemill::limits",
            "tidemill::link",
            "tidemill::metrics",
            "tidemill::relay",
            "tidemill::slow",
            "tidemill_proto",
            "tidemill::traces",
        ],
        tests: &[],
        crates: &[
            "axum",
            "base64",
            "bytes",
            "futures_util",
            "serde_json",
            "tokio",
            "tokio_tungstenite",
            "tracing",
        ],
        because: "sessions reach the storage through the relay, and know no other transport",
    },
    Room {
        name: "tidemill::link",
        rooms: &["tidemill_tls"],
        tests: &[],
        crates: &["bytes", "parking_lot", "socket2", "tokio", "tokio_util"],
        because: "a connection does not know what is written to it, nor where it came from",
    },
    Room {
        name: "tidemill::relay",
        rooms: &[
            "tidemill::access",
            "tidemill::budget",
            "tidemill::chance",
            "tidemill::clock",
            "tidemill::copying",
            "tidemill::features",
            "tidemill::limits",
            "tidemill::slow",
            "tidemill::storage",
            "tidemill::thinned",
            "tidemill_proto",
            "tidemill::traces",
        ],
        tests: &[],
        crates: &[
            // Of cursors, which are texts.
            "base64",
            "bytes",
            // When recurring messages come.
            "croner",
            "futures_util",
            "jiff",
            "memchr",
            "parking_lot",
            "serde_json",
            "sha2",
            "tokio",
            "tokio_util",
            "tracing",
        ],
        because: "the domain knows neither its transports nor a particular backend",
    },
    Room {
        name: "tidemill::storage",
        rooms: &["tidemill_proto"],
        tests: &["tidemill::clock", "tidemill::storage::memory"],
        crates: &["async_trait", "bytes", "parking_lot", "sha2", "thiserror"],
        because: "the contract knows no backend, and nobody who uses it",
    },
    Room {
        name: "tidemill::storage::memory",
        rooms: &["tidemill::chance", "tidemill::clock", "tidemill::storage", "tidemill_proto"],
        tests: &[],
        crates: &["async_trait", "bytes", "parking_lot", "thiserror", "tokio"],
        because: "a backend knows the contract and tidemill-proto, and no other backend",
    },
    Room {
        name: "tidemill::storage::valkey",
        rooms: &[
            "tidemill::chance",
            "tidemill::clock",
            "tidemill::slow",
            "tidemill::storage",
            "tidemill_proto",
            "tidemill_resp",
            "tidemill_tls",
            "tidemill::traces",
        ],
        tests: &[],
        crates: &[
            "arc_swap",
            "async_trait",
            "base64",
            "bytes",
            "futures_util",
            "glide",
            "hex",
            "parking_lot",
            "secrecy",
            "serde",
            "serde_json",
            "sha1",
            // In its tests.
            "tempfile",
            "thiserror",
            "tokio",
            "tokio_util",
            "tracing",
        ],
        because: "a backend knows the contract, tidemill-proto and how its times are told, and no other backend",
    },
    Room {
        name: "tidemill_bench",
        rooms: &["tidemill_proto", "tidemill_resp"],
        tests: &[],
        crates: &[
            "clap",
            "futures_util",
            "hdrhistogram",
            "httparse",
            "indicatif",
            "memchr",
            "parking_lot",
            "serde",
            "serde_json",
            "thiserror",
            "tokio",
            "url",
        ],
        because: "load comes from outside, in the form of the wire",
    },
    Room {
        name: "tidemill_tls",
        rooms: &[],
        tests: &[],
        crates: &[
            "parking_lot",
            "rustls",
            "rustls_platform_verifier",
            "thiserror",
            "tokio",
            "tokio_rustls",
            "x509_parser",
        ],
        because: "a connection is encrypted alike, whoever speaks over it",
    },
    Room {
        name: "tidemill_peers",
        rooms: &[],
        tests: &[],
        crates: &["axum", "clap", "serde_json", "tokio"],
        because: "what stands beside other servers in a comparison is no part of the relay",
    },
];

fn tree() -> Tree {
    Tree::read(Path::new(env!("CARGO_MANIFEST_DIR")))
}

#[test]
fn every_room_uses_only_what_it_may() {
    let broken = allowed::broken(&tree(), ROOMS, NAMED_IN);
    assert!(broken.is_empty(), "{} broken rules:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn every_dependency_is_used() {
    let tree = tree();
    let idle: Vec<_> = tree.crates.iter().flat_map(|of| allowed::idle_dependencies(&tree, of)).collect();
    assert!(idle.is_empty(), "{}", idle.join("\n"));
}

#[test]
fn files_do_not_know_each_other_in_a_circle() {
    let tree = tree();
    let circles: Vec<_> = tree.crates.iter().flat_map(|of| circles::circles(&tree, of)).collect();
    let told: Vec<_> = circles.iter().map(|circle| circle.join("\n")).collect();
    assert!(circles.is_empty(), "{} circles:\n{}", circles.len(), told.join("\n\n"));
}

#[test]
fn the_arrows_between_files_are_seen() {
    let tree = tree();
    let mut seen = BTreeSet::new();
    for of in &tree.crates {
        for ((from, to), names) in circles::arrows(&tree, of) {
            let paths = [from, to].map(|at| of.files[at].path.as_str());
            assert!(paths.iter().all(|path| !path.ends_with("/tests.rs")), "of tests: {paths:?}");
            seen.extend(names.into_iter().map(|name| (paths[0], paths[1], name)));
        }
    }
    for (from, to, name) in KNOWN_ARROWS {
        assert!(seen.contains(&(from, to, (*name).to_owned())), "{from} takes {name} from {to}");
    }
    assert!(seen.len() > 1_000, "only {} names were followed: the test looks in the wrong place", seen.len());
}

#[test]
fn every_file_keeps_to_the_layout() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut broken = Vec::new();
    let mut files_seen = 0;
    for file in rust_files(root) {
        files_seen += 1;
        let text = fs::read_to_string(&file).expect("sources are UTF-8");
        let below = file.strip_prefix(root).expect("the file was found below the folder");
        let found = layout::broken(below, &text);
        broken.extend(found.into_iter().map(|sentence| format!("{}: {sentence}", below.display())));
    }
    assert!(files_seen > 200, "only {files_seen} files were found: the test looks in the wrong place");
    assert!(broken.is_empty(), "{} broken rules:\n{}", broken.len(), broken.join("\n"));
}
