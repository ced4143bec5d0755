//! The sources of the workspace as a tree of crates and modules, and where the names lead that they use.
//!
//! It reads the manifests for what is a crate, so that nobody has to list it a second time. It knows no
//! rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::source::{self, Source};

/// `use`s that one name is followed through. There are no more in any sane tree.
const FOLLOWED_MAX: usize = 16;

/// All crates of the workspace.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) crates: Vec<Crate>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Crate {
    /// Its name, as paths have it.
    pub(super) name: String,
    /// The crates that it depends on, as paths have them.
    pub(super) dependencies: BTreeSet<String>,
    /// Those that its tests depend on as well.
    test_dependencies: BTreeSet<String>,
    pub(super) files: Vec<File>,
    /// The file of each module, by its place in `files`. Of `lib.rs` and `main.rs` the former is the root.
    modules: BTreeMap<String, usize>,
}

/// A source file.
#[derive(Debug)]
pub(super) struct File {
    /// Its path below the root of the repository.
    pub(super) path: String,
    pub(super) module: String,
    pub(super) source: Source,
    /// Whether it is compiled for tests alone.
    pub(super) test: bool,
}

impl Tree {
    /// Reads the workspace in this folder.
    pub(super) fn read(root: &Path) -> Self {
        let manifest = manifest_in(root);
        let members = manifest["workspace"]["members"].as_array().expect("a workspace has members");
        let members = members.iter().map(|member| member.as_str().expect("members are folders"));
        let folders = std::iter::once("").chain(members);
        let crates = folders.map(|folder| Crate::read(root, &root.join(folder))).collect();
        Self { crates }
    }

    /// Puts a path of `file` in full: through what the file has imported, down to the name of a crate.
    /// `None` where it begins with a name of the file itself, or of the standard library.
    pub(super) fn resolve(&self, file: &File, words: &[String]) -> Option<Vec<String>> {
        let mut words = words.to_vec();
        for _ in 0..FOLLOWED_MAX {
            let (first, rest) = words.split_first()?;
            if self.crates.iter().any(|it| it.name == *first) {
                return Some(self.through_the_root(words));
            }
            let imports = || file.source.imports.iter().filter(|import| import.name == *first);
            let import = imports().find(|import| !import.path.test).or_else(|| imports().next());
            let next: Vec<_> = if file.source.modules.iter().any(|module| module.name == *first) {
                file.module.split("::").map(str::to_owned).chain(words.iter().cloned()).collect()
            } else if let Some(import) = import.filter(|import| import.path.words[0] != *first) {
                import.path.words.iter().chain(rest).cloned().collect()
            } else {
                return self.crate_of(&file.module).depends_on(first).then_some(words);
            };
            words = next;
        }
        None
    }

    /// Returns the crate of a module.
    pub(super) fn crate_of(&self, module: &str) -> &Crate {
        self.crates.iter().find(|it| is_in(module, &it.name)).expect("every module is of a crate")
    }

    /// Returns the module that a full path leads into; `None` where that is not in the workspace.
    pub(super) fn module_in(&self, words: &[String]) -> Option<String> {
        let of = self.crates.iter().find(|it| it.name == words[0])?;
        (1..=words.len())
            .rev()
            .map(|length| words[..length].join("::"))
            .find(|it| of.modules.contains_key(it))
    }

    /// Follows another crate that a crate's root has a name for, as in `pub use tidemill_proto as proto`.
    fn through_the_root(&self, words: Vec<String>) -> Vec<String> {
        let root = self.crates.iter().find(|it| it.name == words[0]).and_then(Crate::root);
        let import = root.zip(words.get(1)).and_then(|(root, name)| {
            let is_crate = |name: &String| *name != words[0] && self.crates.iter().any(|it| it.name == *name);
            let mut imports = root.source.imports.iter().filter(|import| import.name == *name);
            imports.find(|import| is_crate(&import.path.words[0]))
        });
        match import {
            Some(import) => import.path.words.iter().chain(&words[2..]).cloned().collect(),
            None => words,
        }
    }

    /// Returns the file, by its place in its crate, that has the name at the end of a full path of its own
    /// crate: through modules, and through what they have imported from others.
    pub(super) fn file_of(&self, of: &Crate, words: &[String]) -> Option<usize> {
        let mut words = words.to_vec();
        for _ in 0..FOLLOWED_MAX {
            if words.first() != Some(&of.name) {
                return None;
            }
            let (at, length) = (1..=words.len())
                .rev()
                .find_map(|length| Some((*of.modules.get(&words[..length].join("::"))?, length)))?;
            let file = &of.files[at];
            let import = words.get(length).and_then(|name| {
                file.source.imports.iter().find(|import| import.name == *name && !import.path.test)
            });
            let Some(import) = import else { return Some(at) };
            let Some(mut next) = self.resolve(file, &import.path.words) else { return Some(at) };
            next.extend_from_slice(&words[length + 1..]);
            if next == words {
                return Some(at);
            }
            words = next;
        }
        None
    }
}

impl Crate {
    /// Reads the crate in this folder.
    fn read(root: &Path, folder: &Path) -> Self {
        let manifest = manifest_in(folder);
        let name = manifest["package"]["name"].as_str().expect("a package has a name").replace('-', "_");
        let dependencies =
            ["dependencies", "dev-dependencies"].map(|section| dependencies_in(&manifest, section));
        let source = folder.join("src");
        let files = rust_files(&source).into_iter().map(|path| {
            let text = fs::read_to_string(&path).expect("sources are UTF-8");
            let below = path.strip_prefix(&source).expect("the file was found below the folder");
            let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            (shown, module_of(&name, below), text)
        });
        Self::new(&name, dependencies, files.collect())
    }

    /// Returns a crate of these files: path, module and text of each.
    pub(super) fn new(
        name: &str,
        [dependencies, test_dependencies]: [BTreeSet<String>; 2],
        files: Vec<(String, String, String)>,
    ) -> Self {
        let files = files.into_iter().map(|(path, module, text)| {
            let source = source::read(&text, &module);
            File { path, test: source.test, module, source }
        });
        let mut it = Self {
            name: name.to_owned(),
            dependencies,
            test_dependencies,
            files: files.collect(),
            modules: BTreeMap::new(),
        };
        // The root's other file, `main.rs`, is nobody's module.
        it.files.sort_by_key(|file| file.path.ends_with("main.rs"));
        for (at, file) in it.files.iter().enumerate() {
            it.modules.entry(file.module.clone()).or_insert(at);
        }
        for at in 0..it.files.len() {
            it.files[at].test |= it.is_declared_for_tests(&it.files[at].module);
        }
        it
    }

    /// Whether a module, or one around it, was declared for tests alone.
    fn is_declared_for_tests(&self, module: &str) -> bool {
        let Some((parent, name)) = module.rsplit_once("::") else { return false };
        let declared = self.modules.get(parent).is_some_and(|at| {
            self.files[*at].source.modules.iter().any(|module| module.name == name && module.test)
        });
        declared || self.is_declared_for_tests(parent)
    }

    fn depends_on(&self, name: &String) -> bool {
        self.dependencies.contains(name) || self.test_dependencies.contains(name)
    }

    fn root(&self) -> Option<&File> {
        self.modules.get(&self.name).map(|at| &self.files[*at])
    }
}

/// Returns whether `path` is `module` or lies below it.
pub(super) fn is_in(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Returns the module of a file, by its path below the folder of the crate's root.
pub(super) fn module_of(crate_name: &str, below: &Path) -> String {
    let below = below.with_extension("");
    let parts = below.iter().map(|part| part.to_string_lossy().into_owned());
    let root = [Path::new("lib"), Path::new("main")].contains(&below.as_path());
    let parts = parts.filter(|_| !root);
    std::iter::once(crate_name.to_owned()).chain(parts).collect::<Vec<_>>().join("::")
}

/// Returns all Rust files below a folder, in the order of their paths, but for what was built, and hidden
/// folders.
pub(super) fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for entry in entries {
            let path = entry.expect("a folder of the repository can be read").path();
            if path.is_dir() {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn manifest_in(folder: &Path) -> toml::Table {
    let text = fs::read_to_string(folder.join("Cargo.toml")).expect("a crate has a manifest");
    text.parse().expect("cargo has read it")
}

/// Returns the names, as paths have them, of what a manifest depends on by this section.
fn dependencies_in(manifest: &toml::Table, section: &str) -> BTreeSet<String> {
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let targets = targets.into_iter().flat_map(toml::Table::values).filter_map(toml::Value::as_table);
    let tables = std::iter::once(manifest).chain(targets);
    let sections = tables.filter_map(|table| table.get(section).and_then(toml::Value::as_table));
    sections.flat_map(toml::Table::keys).map(|name| name.replace('-', "_")).collect()
}

#[test]
fn the_wire_contract_depends_on_no_runtime() {
    let tree = Tree::read(Path::new(env!("CARGO_MANIFEST_DIR")));
    let proto = tree.crate_of("tidemill_proto");
    for name in ["tokio", "axum", "hyper", "reqwest"] {
        assert!(!proto.dependencies.contains(name), "proto depends on {name}");
    }
}
