//! What can be wrong with the settings, told by setting, source and rule. No error repeats a secret.

use std::fmt;
use std::path::PathBuf;

use super::Settings;

/// Where a value came from. Earlier sources win over later ones, in the order below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A flag, named with its dashes.
    Flag(String),
    /// A variable of the environment.
    Variable(String),
    /// A key of the configuration file.
    File(PathBuf, String),
    /// Nobody set it.
    Default,
    /// Nobody set it, and the default was lowered to the bound that another setting is.
    Lowered(&'static str),
}

/// Where a value came from, and how it may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Where it came from.
    pub source: Source,
    /// The value as it was written; `***` for a secret.
    pub shown: String,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::File(path, key) => write!(f, "file {}, key {key}", path.display()),
            Self::Default => f.write_str("default"),
            Self::Lowered(bound) => write!(f, "default, lowered to {bound}"),
        }
    }
}

/// One of two settings that do not go together.
#[derive(Debug)]
pub struct Side {
    /// The setting, with its value unless it is a secret.
    pub setting: String,
    /// Where the value came from.
    pub from: Source,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (from {})", self.setting, self.from)
    }
}

impl ConfigError {
    /// Returns the error of two settings, each with its source.
    pub(super) fn relation(left: (String, Source), relation: &'static str, right: (String, Source)) -> Self {
        let side = |(setting, from)| Side { setting, from };
        Self::Relation { sides: Box::new([side(left), side(right)]), relation }
    }
}

/// Says which name was meant, or else where all of them stand.
fn known_instead(nearest: Option<&str>) -> String {
    nearest.map_or_else(
        || "`tidemill config show` lists those that are".to_owned(),
        |nearest| format!("the nearest known one is {nearest}"),
    )
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value breaks a rule.
    #[error("{setting} (from {from}): `{value}` {rule}")]
    Value {
        /// The setting.
        setting: &'static str,
        /// Where the value came from.
        from: Source,
        /// The value, or `***`.
        value: String,
        /// The rule, as the end of a sentence.
        rule: String,
    },
    /// A value whose text is not repeated breaks a rule.
    #[error("{setting} (from {from}) {rule}")]
    Hidden {
        /// The setting.
        setting: &'static str,
        /// Where the value came from.
        from: Source,
        /// The rule, as the end of a sentence.
        rule: String,
    },
    /// Two values do not go together.
    #[error("{} {relation} {}", sides[0], sides[1])]
    Relation {
        /// The two, in the order of the sentence.
        sides: Box<[Side; 2]>,
        /// What is wrong between them.
        relation: &'static str,
    },
    /// A variable with our prefix that no setting has.
    #[error("variable {name} is not known; {}", known_instead(nearest.as_deref()))]
    UnknownVariable {
        /// The variable.
        name: String,
        /// The known name that is most like it, if one is.
        nearest: Option<String>,
    },
    /// A key of the file that no setting has.
    #[error("key `{key}` of {} is not known; {}", path.display(), known_instead(nearest.as_deref()))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The known key that is most like it, if one is.
        nearest: Option<String>,
    },
    /// The file has sections.
    #[error("`[{section}]` in {}: settings stand at the top level, without `[{section}]`", path.display())]
    Section {
        /// The file.
        path: PathBuf,
        /// The first section, or table.
        section: String,
    },
    /// A key of the file holds a list.
    #[error("key `{key}` of {} holds a list; every setting is one text, number or boolean", path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// The configuration file is not TOML.
    #[error("{}, line {line}: not TOML: {message}", path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What the reader of TOML says about it.
        message: String,
    },
    /// A file cannot be read.
    #[error("{what} {} cannot be read", path.display())]
    Unreadable {
        /// What the file was wanted for.
        what: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The backend is not part of this build.
    #[error(
        "storage_backend (from {from}) is valkey, but this build of Tidemill has no Valkey backend; build it with the cargo feature `valkey`"
    )]
    NoValkey {
        /// Where the value came from.
        from: Source,
    },
}

/// All that is wrong with the settings.
#[derive(Debug)]
pub struct Faults {
    /// What is wrong: one thing at least.
    pub errors: Vec<ConfigError>,
    /// What is only to be looked at, in sentences.
    pub warnings: Vec<String>,
}

impl Faults {
    /// Returns the first thing that is wrong.
    pub(super) fn first(mut self) -> ConfigError {
        self.errors.swap_remove(0)
    }
}

impl Settings {
    /// Returns where a setting's value came from.
    #[must_use]
    pub fn source(&self, id: &str) -> Source {
        self.origins.get(id).map_or(Source::Default, |origin| origin.source.clone())
    }

    /// Returns the error of a setting that breaks a rule, which does not repeat its value.
    pub(super) fn breaks(&self, setting: &'static str, rule: impl Into<String>) -> ConfigError {
        ConfigError::Hidden { setting, from: self.source(setting), rule: rule.into() }
    }
}
