//! What the environment holds beside values: names that nothing reads, and variables that are set and empty.

use std::collections::BTreeMap;

use super::names::{self, PREFIX, Setting, known};
use super::{ConfigError, Source};

/// The variables of the process, or of a test.
pub type Environment = BTreeMap<String, String>;

/// Settings that can close a relay: an empty variable of them is an error, for it is most likely one that was to
/// hold something (`${VAR}` in a compose file, where nobody has set `VAR`), and the relay would be open without it.
const CLOSING: [&str; 7] = [
    "access",
    "admin_password",
    "admin_password_file",
    "jwt_issuers",
    "jwt_issuers_file",
    "oidc_providers",
    "oidc_providers_file",
];

/// Refuses an empty variable of a setting that can close the relay.
pub(super) fn refuse_empty(setting: &Setting, name: &str) -> Result<(), ConfigError> {
    if !CLOSING.contains(&setting.id) {
        return Ok(());
    }
    Err(ConfigError::Hidden {
        setting: setting.id,
        from: Source::Variable(name.to_owned()),
        rule: "is set and empty, and says who is let in: give the variable a value, or unset it".to_owned(),
    })
}

/// Returns the error of each variable that has our prefix and is not ours.
pub(super) fn unknown(environment: &Environment) -> Vec<ConfigError> {
    let is_unknown = |name: &&String| {
        let is_known = known().iter().any(|setting| setting.variables().any(|of| of == **name));
        let is_ours = is_known || names::BESIDE_SETTINGS.contains(&name.as_str());
        !is_ours && !names::is_service_link(name)
    };
    let ours = environment.keys().filter(|name| name.starts_with(PREFIX));
    let error = |name: &String| {
        let nearest = names::nearest_variable(name);
        ConfigError::UnknownVariable { name: name.clone(), nearest }
    };
    ours.filter(is_unknown).map(error).collect()
}

/// Returns a sentence for every group of variables that pulsar-relay honours and this version does not.
pub(super) fn ignored(environment: &Environment) -> Vec<String> {
    let mut groups: BTreeMap<&'static str, Vec<&str>> = BTreeMap::new();
    for name in environment.keys() {
        if let Some(meaning) = names::ignored_by_us(name) {
            groups.entry(meaning).or_default().push(name);
        }
    }
    let sentence = |(meaning, names): (&str, Vec<&str>)| {
        let verb = if names.len() == 1 { "is" } else { "are" };
        format!("{} {verb} ignored: {meaning}", names.join(", "))
    };
    groups.into_iter().map(sentence).collect()
}

/// Returns a sentence for every variable whose name is nearly that of a setting, or has the prefix of
/// pulsar-relay: nobody can say that it is a mistake.
pub(super) fn near_misses(environment: &Environment) -> impl Iterator<Item = String> + '_ {
    environment.keys().filter_map(|name| {
        if let Some(meant) = names::nearly(name) {
            return Some(format!("variable {name} is not read; if {meant} is meant, write that"));
        }
        names::is_unknown_of_pulsar(name).then(|| {
            format!("variable {name} is not read: no setting is called so; `tidemill config show` lists those that are")
        })
    })
}
