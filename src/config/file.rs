//! The configuration file, and the files that settings are read from.
//!
//! It must not know which of several sources wins.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use super::ConfigError;
use super::names::{self, known};

/// Largest configuration file or file with a secret: far more than either needs, so that a wrong
/// path (a device, a dump) ends in an error.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

fn read_table(path: &Path) -> Result<toml::Table, ConfigError> {
    let what = "configuration file".to_owned();
    let text = read_text(path).map_err(|cause| ConfigError::Unreadable { what, path: path.into(), cause })?;
    // Only the message: the full text of the error repeats the line, which may hold a password.
    text.parse().map_err(|error: toml::de::Error| ConfigError::NotToml {
        path: path.into(),
        line: 1 + error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count()),
        message: not_toml(&error, &text),
    })
}

/// Returns the values of a file, as text; what is wrong with it is added to `errors`.
pub(super) fn read(path: &Path, errors: &mut Vec<ConfigError>) -> BTreeMap<&'static str, String> {
    let mut values = BTreeMap::new();
    let table = match read_table(path) {
        Ok(table) => table,
        Err(error) => {
            errors.push(error);
            return values;
        }
    };
    for (key, value) in table {
        if is_section(&value) {
            errors.push(ConfigError::Section { path: path.into(), section: key });
            continue;
        }
        let Some(setting) = known().iter().find(|setting| setting.id == key) else {
            let nearest = names::nearest_key(&key);
            errors.push(ConfigError::UnknownKey { path: path.into(), key, nearest });
            continue;
        };
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(choice) => choice.to_string(),
            toml::Value::Float(number) => number.to_string(),
            toml::Value::Datetime(time) => time.to_string(),
            toml::Value::Array(_) | toml::Value::Table(_) => {
                errors.push(ConfigError::List { path: path.into(), key });
                continue;
            }
        };
        // As in the environment; the sample file shows so what may stay unset.
        if !text.is_empty() {
            values.insert(setting.id, text);
        }
    }
    values
}

/// Returns what is wrong with a text that is not TOML. What the reader says of a text without quotes helps nobody.
fn not_toml(error: &toml::de::Error, text: &str) -> String {
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text[..start].rfind('\n').map_or(0, |end| end + 1);
    let line = text[line..].lines().next().unwrap_or_default();
    // The value is not repeated: it may be a password.
    let is_bare = line.split_once('=').is_some_and(|(_, value)| {
        let value = value.trim_start();
        !value.starts_with(['"', '\'', '[', '{']) && !value.is_empty()
    });
    match (is_bare, line.split_once('=')) {
        (true, Some((key, _))) => {
            format!("{} (a text stands in quotes: {} = \"…\")", error.message(), key.trim())
        }
        _ => error.message().to_owned(),
    }
}

/// Returns whether a value is a table, or a list of them, as `[[key]]` writes it.
fn is_section(value: &toml::Value) -> bool {
    let is_table = toml::Value::is_table;
    is_table(value) || value.as_array().is_some_and(|items| items.iter().any(is_table))
}

/// Reads a file of at most [`FILE_BYTES_MAX`] bytes of UTF-8.
pub(super) fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let length = std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if length as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "is larger than 1 MiB"));
    }
    Ok(text)
}
