//! Settings in print: every one with its value and source, and a sample file made from the defaults.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Setting, Settings, TAKEN_OVER, known};

/// Columns at which the sample file breaks its comments.
const COLUMNS: usize = 100;

/// A setting as `config show` prints it.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// The name.
    pub name: &'static str,
    /// The value as it was written, `***` for a secret, or nothing where it is not set.
    pub value: Option<String>,
    /// Where the value came from.
    pub source: String,
    /// The variable that sets it.
    pub variable: &'static str,
}

/// Returns every setting with its value and source. Secrets are `***`.
#[must_use]
pub fn show(settings: &Settings) -> Vec<Shown> {
    let shown = |setting: &'static Setting| {
        let origin = settings.origins.get(setting.id);
        Shown {
            name: setting.id,
            value: origin.map(|origin| origin.shown.clone()).or_else(|| setting.default.clone()),
            source: settings.source(setting.id).to_string(),
            variable: &setting.variable,
        }
    };
    known().iter().map(shown).collect()
}

/// Returns a configuration file in which every setting stands, commented out, at its default.
#[must_use]
pub fn sample() -> String {
    let mut out = String::from(
        "# Settings of Tidemill. A flag wins over a variable, which wins over this file.\n\
         # Lines that start with `#` and a name show the default; remove the `#` to set it.\n\
         # Start with: tidemill serve --config <this file>\n",
    );
    let mut heading = "";
    for setting in by_heading() {
        if setting.heading != heading {
            heading = &setting.heading;
            let _ = write!(out, "\n# == {heading} ==\n");
        }
        let variable = format!("Variable {}, flag {}.", setting.variable, setting.flag);
        let choices = match setting.choices.as_slice() {
            [] => String::new(),
            choices => format!(" One of {}.", choices.join(", ")),
        };
        out.push('\n');
        for line in wrap(&format!("{}.{choices} {variable}", setting.help)) {
            let _ = writeln!(out, "# {line}");
        }
        let default = setting.default.as_deref().map_or_else(|| "\"\"".to_owned(), literal);
        let _ = writeln!(out, "#{} = {default}", setting.id);
    }
    out
}

/// Returns the table of all settings, as Markdown.
#[must_use]
pub fn document() -> String {
    let mut out = String::from(
        "# Settings\n\n\
         Every setting of a relay, as `tidemill config doc` prints them. How they are written, and where they are read, says \
         [Operations](operations.md#settings). The key in the file is the flag without its dashes in front, and with `_` in place \
         of `-` (`drain_ms` for `--drain-ms`). What is marked ↻ is taken over [without a \
         restart](operations.md#change-settings-while-it-runs), and so is what the files of `VALKEY_PASSWORD_FILE` and \
         `TIDEMILL_VALKEY_SENTINEL_PASSWORD_FILE` hold.\n",
    );
    let mut heading = "";
    for setting in by_heading() {
        if setting.heading != heading {
            heading = &setting.heading;
            let _ = write!(out, "\n## {heading}\n\n| variable | flag | default | |\n|---|---|---|---|\n");
        }
        let default = setting.default.as_ref().map_or_else(String::new, |text| format!("`{text}`"));
        let choices = match setting.choices.as_slice() {
            [] => String::new(),
            choices => format!(" One of `{}`.", choices.join("`, `")),
        };
        let help = setting.help.replace('|', "\\|");
        let mark = if TAKEN_OVER.contains(&setting.id) { " ↻" } else { "" };
        let _ = writeln!(
            out,
            "| `{}`{mark} | `{}` | {default} | {help}.{choices} |",
            setting.variable, setting.flag
        );
    }
    out
}

/// Returns all settings, those of one group together, and groups in the order in which they come first.
fn by_heading() -> Vec<&'static Setting> {
    let mut headings: Vec<&str> = Vec::new();
    for setting in known() {
        if !headings.contains(&&*setting.heading) {
            headings.push(&setting.heading);
        }
    }
    let of = |heading| known().iter().filter(move |setting| setting.heading == heading);
    headings.into_iter().flat_map(of).collect()
}

/// Returns a value as TOML writes it.
fn literal(text: &str) -> String {
    let is_bare = text.parse::<i64>().is_ok() || text.parse::<bool>().is_ok();
    if is_bare { text.to_owned() } else { toml::Value::String(text.to_owned()).to_string() }
}

fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.len() + 1 + word.len() <= COLUMNS - 2 {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}
