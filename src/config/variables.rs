//! What the environment holds beside values: names that nothing reads, and variables that are set and empty.

use std::collections::BTreeMap;

use super::names::{self, CONFIG_VARIABLE, PREFIX, Setting, known};
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

/// Returns the error of each variable whose prefix is nearly ours, and that most likely says who is let in, where nothing else
/// says it (`is_set`): the relay would be open without it. Others are warned about.
pub(super) fn mistyped_closing(environment: &Environment, is_set: impl Fn(&str) -> bool) -> Vec<ConfigError> {
    let closes = |variable: &str| {
        let setting = known().iter().find(|setting| setting.variable == variable);
        let closing = setting.map(|setting| setting.id).filter(|id| CLOSING.contains(id));
        // What stands in a file may say it, too.
        let id = closing.or((variable == CONFIG_VARIABLE).then_some(CONFIG_VARIABLE));
        id.is_some_and(|id| !is_set(id))
    };
    let error = |name: &String| {
        let nearest = names::meant_by_nearly_ours(name).filter(|variable| closes(variable))?;
        Some(ConfigError::UnknownVariable { name: name.clone(), nearest: Some(nearest) })
    };
    environment.keys().filter_map(error).collect()
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
/// pulsar-relay, or nearly ours: nobody can say that it is a mistake.
pub(super) fn near_misses(environment: &Environment) -> impl Iterator<Item = String> + '_ {
    environment.keys().filter_map(|name| {
        let meant = names::meant_by_nearly_ours(name).or_else(|| names::nearly(name));
        if let Some(meant) = meant {
            return Some(format!("variable {name} is not read; if {meant} is meant, write that"));
        }
        (names::is_unknown_of_pulsar(name) || names::is_nearly_ours(name)).then(|| {
            format!("variable {name} is not read: no setting is called so; `tidemill config show` lists those that are")
        })
    })
}
