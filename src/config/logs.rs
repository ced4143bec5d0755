//! How much is logged, and how.

use clap::ValueEnum;

/// What the modules of the relay begin with in its log.
const OWN: &str = "tidemill";

/// How much is logged. Python's names for the levels are taken too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// What needs someone to act
    #[value(alias = "critical")]
    Error,
    /// What may need someone to act
    #[value(alias = "warning")]
    Warn,
    /// What the relay did
    Info,
    /// How it did it
    Debug,
    /// Every step
    Trace,
}

impl LogLevel {
    /// Returns the word that stands for the level.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        <Self as ValueEnum>::from_str(text.trim(), true).ok()
    }
}

/// How it is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise
    Auto,
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// How much is logged: of the relay, and of modules of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevels {
    /// Of all of which nothing else is said.
    pub level: LogLevel,
    /// Of modules with all below them, by their paths, as in `tidemill::storage`.
    pub modules: Vec<(String, LogLevel)>,
}

impl LogLevels {
    /// Returns the word that stands for the level of all of which nothing else is said.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        self.level.as_str()
    }
}

/// A text does not say how much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum LogLevelsError {
    /// It has something else than levels.
    #[error(
        "is no level; write one of error, warn, info, debug, trace, and behind it, with commas, those of modules, as in `info,tidemill::storage=debug`"
    )]
    Level,
    /// It names what is not of the relay.
    #[error(
        "names what is no module of the relay, as `tidemill::storage` is; of libraries no more than warnings is logged, as some write what they read"
    )]
    Module,
}

/// Parses a level, and behind it those of modules, with commas between them.
pub(super) fn parse_levels(text: &str) -> Result<LogLevels, LogLevelsError> {
    let mut parts = text.split(',');
    let level = parts.next().and_then(LogLevel::parse).ok_or(LogLevelsError::Level)?;
    let module = |part: &str| {
        let (module, level) = part.split_once('=').ok_or(LogLevelsError::Level)?;
        let module = module.trim();
        let is_own = module == OWN || module.strip_prefix(OWN).is_some_and(|rest| rest.starts_with("::"));
        let is_path = module.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':'));
        if !is_own || !is_path {
            return Err(LogLevelsError::Module);
        }
        Ok((module.to_owned(), LogLevel::parse(level).ok_or(LogLevelsError::Level)?))
    };
    Ok(LogLevels { level, modules: parts.map(module).collect::<Result<_, _>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_one_and_those_of_modules() {
        let storage = || ("tidemill::storage".to_owned(), LogLevel::Debug);
        for (text, level, modules) in [
            ("info", LogLevel::Info, vec![]),
            ("WARNING", LogLevel::Warn, vec![]),
            ("info,tidemill::storage=debug", LogLevel::Info, vec![storage()]),
            ("warn , tidemill::storage = DEBUG", LogLevel::Warn, vec![storage()]),
        ] {
            assert_eq!(parse_levels(text), Ok(LogLevels { level, modules }), "{text}");
        }
        for text in ["", "loud", "tidemill::storage=debug", "info,", "info,debug", "info,tidemill=loud"] {
            assert_eq!(parse_levels(text), Err(LogLevelsError::Level), "{text}");
        }
        for text in ["info,hyper=trace", "info,tidemillx=debug", "info,tidemill::[a]=debug", "info,=debug"] {
            assert_eq!(parse_levels(text), Err(LogLevelsError::Module), "{text}");
        }
    }
}
