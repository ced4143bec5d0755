//! Suggestions for names that are unknown.

/// Least likeness at which a suggestion helps more than it misleads.
const LIKENESS_MIN: f64 = 0.7;

/// Returns the end of a sentence that suggests the name nearest to `unknown`, or lists all of them.
pub(super) fn nearest(unknown: &str, names: &[&str]) -> String {
    let likeness = |name: &&str| strsim::jaro_winkler(unknown, name);
    let best = names.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match best.filter(|name| likeness(name) >= LIKENESS_MIN) {
        Some(name) => format!("; did you mean `{name}`?"),
        None if names.is_empty() => String::new(),
        None => format!("; known are `{}`", names.join("`, `")),
    }
}
