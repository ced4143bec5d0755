//! Loading: which of flag, variable, file and default a value is taken from, and what must hold
//! between values.
//!
//! Everything that was set, wherever, is turned into the flag it stands for and read by the one
//! parser of the command line, so that a rule is the same for every source.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::names::{CONFIG_VARIABLE, SECRETS, Setting, known};
use super::variables::{self, Environment};
use super::{Backend, ConfigError, Faults, Origin, Settings, Source, Written, file, modules};

/// What the file ranks: behind the flag and every name of a variable.
const FILE_RANK: u8 = 4;

/// Smallest bound on headers: the HTTP library takes no smaller buffer.
const HEADERS_BYTES_MIN: usize = 8 * 1024;

/// What the command line says about settings. `Debug` shows no values.
#[derive(Clone, Default)]
pub struct Flags {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// Values as they were written, by setting.
    pub values: BTreeMap<&'static str, String>,
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.values.keys().collect();
        f.debug_struct("Flags").field("config", &self.config).field("values", &ids).finish()
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("PATH")
            .value_parser(clap::value_parser!(PathBuf))
            .help(format!(
                "A TOML file with settings; `tidemill config init` writes one [env: {CONFIG_VARIABLE}]"
            ));
        let command = Settings::augment_args(command.arg(config));
        known().iter().fold(command, |command, setting| command.mut_arg(setting.id, |arg| tell(arg, setting)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// Adds the variable's name to both helps of a flag.
fn tell(arg: Arg, setting: &Setting) -> Arg {
    let note = format!("[env: {}]", setting.variable);
    let long = arg.get_long_help().map(|help| format!("{help}\n\n{note}"));
    let short = format!("{} {note}", setting.help);
    match long {
        Some(long) => arg.help(short).long_help(long),
        None => arg.help(short),
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |id: &str| {
            // A command may take some of the settings alone.
            let is_taken = matches.try_contains_id(id).is_ok();
            let is_given = is_taken && matches.value_source(id) == Some(ValueSource::CommandLine);
            is_given.then(|| matches.get_raw(id)).flatten().and_then(Iterator::last)
        };
        let values = known().iter().filter_map(|setting| {
            given(setting.id).map(|value| (setting.id, value.to_string_lossy().into_owned()))
        });
        Ok(Self { values: values.collect(), config: given("config").map(PathBuf::from) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A value that was set, as text.
struct Given {
    text: String,
    source: Source,
    /// Smaller wins.
    rank: u8,
}

type Values = BTreeMap<&'static str, Given>;

impl Settings {
    /// Loads the settings: what a flag does not say is taken from the environment, then from the
    /// file that `--config` or `TIDEMILL_CONFIG` names, then from the defaults. An empty variable
    /// or key counts as unset, but for variables of settings that can close a relay: they are refused. There is
    /// no file that is read without being named.
    ///
    /// # Errors
    /// The first thing that is wrong, with its setting and source.
    pub fn load(flags: &Flags, environment: &Environment) -> Result<Self, ConfigError> {
        Self::examine(flags, environment).map_err(Faults::first)
    }

    /// Does what [`load`](Self::load) does, and goes on where something is wrong.
    ///
    /// # Errors
    /// All that is wrong. What must hold between settings is looked at where each is right by itself.
    pub fn examine(flags: &Flags, environment: &Environment) -> Result<Self, Faults> {
        let mut errors = variables::unknown(environment);
        let mut warnings = variables::ignored(environment);
        warnings.extend(variables::near_misses(environment));
        let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        let path = flags.config.clone().or_else(|| variable(CONFIG_VARIABLE).map(PathBuf::from));
        let file = path.map(|path| (file::read(&path, &mut errors), path));

        let mut values = Values::new();
        for setting in known() {
            match find(setting, flags, environment, file.as_ref(), &mut warnings) {
                Ok(Some(given)) => {
                    values.insert(setting.id, given);
                }
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        let has_file = file.is_some();
        let is_set = |id: &str| if id == CONFIG_VARIABLE { has_file } else { values.contains_key(id) };
        errors.extend(variables::mistyped_closing(environment, is_set));
        for id in SECRETS {
            if let Err(error) = read_secret(id, &mut values) {
                errors.push(error);
            }
        }
        let parsed = match parse(&values, |_| true) {
            Ok(settings) if errors.is_empty() => settings,
            Ok(_) => return Err(Faults { errors, warnings }),
            Err(_) => {
                let alone = |setting: &Setting| parse(&values, |id| id == setting.id).err();
                errors.extend(known().iter().filter_map(alone));
                return Err(Faults { errors, warnings });
            }
        };
        parsed.between(values, warnings)
    }

    /// Looks at what must hold between settings of which each is right by itself.
    fn between(mut self, values: Values, warnings: Vec<String>) -> Result<Self, Faults> {
        self.written = Written::new(values.iter().map(|(id, given)| (*id, given.text.clone())));
        self.origins = values.into_iter().map(|(id, given)| (id, origin(id, given))).collect();
        self.warnings = warnings;
        let mut errors: Vec<_> = self.check().err().into_iter().collect();
        match self.check_access() {
            Ok(warnings) => self.warnings.extend(warnings),
            Err(error) => errors.push(error),
        }
        let silent = self.log_level.modules.iter().filter_map(|(module, _)| modules::silent(module));
        let from = self.source("log_level");
        self.warnings.extend(silent.map(|what| format!("log_level (from {from}) {what}")));
        #[cfg(feature = "valkey")]
        {
            errors.extend(self.check_memory().err());
            self.warnings.extend(self.unused_server());
            if self.storage_backend == Backend::Valkey {
                errors.extend(self.valkey_target().and_then(|target| self.placement(&target)).err());
                self.warnings.extend(self.valkey_warnings());
            }
        }
        if cfg!(not(feature = "valkey")) && self.storage_backend == Backend::Valkey {
            errors.push(ConfigError::NoValkey { from: self.source("storage_backend") });
        }
        if errors.is_empty() { Ok(self) } else { Err(Faults { errors, warnings: self.warnings }) }
    }

    /// Checks what must hold between settings. A default gives way to what was set.
    fn check(&mut self) -> Result<(), ConfigError> {
        let bounds: [Bound; 7] = [
            Bound::new(
                "max_body_bytes",
                |s| &mut s.max_body_bytes,
                "inflight_bytes_max",
                |s| s.inflight_bytes_max,
            ),
            Bound::new(
                "payload_bytes_max",
                |s| &mut s.payload_bytes_max,
                "max_body_bytes",
                |s| s.max_body_bytes,
            ),
            Bound::new(
                "payload_bytes_max",
                |s| &mut s.payload_bytes_max,
                "publish_queue_bytes_max",
                |s| s.publish_queue_bytes_max,
            ),
            Bound::new(
                "payload_bytes_max",
                |s| &mut s.payload_bytes_max,
                "memory_bytes_max",
                |s| s.memory_bytes_max,
            ),
            Bound::new(
                "value_bytes_max",
                |s| &mut s.beside.value_bytes_max,
                "max_body_bytes",
                |s| s.max_body_bytes,
            ),
            Bound::new(
                "value_bytes_max",
                |s| &mut s.beside.value_bytes_max,
                "memory_bytes_max",
                |s| s.memory_bytes_max,
            ),
            Bound::new(
                "connections_per_address_max",
                |s| &mut s.connections_per_address_max,
                "connections_max",
                |s| s.connections_max,
            ),
        ];
        for bound in bounds {
            bound.apply(self)?;
        }
        for (one, other, is_alone) in [
            ("tls_cert", "tls_key", self.tls_cert.is_some() && self.tls_key.is_none()),
            ("tls_key", "tls_cert", self.tls_key.is_some() && self.tls_cert.is_none()),
        ] {
            if is_alone {
                let rule = format!("needs {other} beside it");
                return Err(self.breaks(one, rule));
            }
        }
        for (setting, bytes) in
            [("payload_bytes_max", self.payload_bytes_max), ("value_bytes_max", self.beside.value_bytes_max)]
        {
            let rule = "is more than 512MiB, the largest value that a Valkey server takes";
            self.rule(setting, bytes <= super::PAYLOAD_BYTES_MAX, rule)?;
        }
        self.check_durability()?;
        let headers = self.headers_bytes_max;
        self.rule(
            "headers_bytes_max",
            headers >= HEADERS_BYTES_MIN,
            "is less than 8KiB, the least that HTTP needs",
        )
    }

    fn rule(&self, setting: &'static str, holds: bool, rule: &str) -> Result<(), ConfigError> {
        if holds {
            return Ok(());
        }
        let value = self.origins.get(setting).map(|origin| origin.shown.clone()).unwrap_or_default();
        Err(ConfigError::Value { setting, from: self.source(setting), value, rule: rule.to_owned() })
    }
}

/// One setting must not be larger than another.
struct Bound {
    small: &'static str,
    small_of: fn(&mut Settings) -> &mut usize,
    large: &'static str,
    large_of: fn(&Settings) -> usize,
}

impl Bound {
    const fn new(
        small: &'static str,
        small_of: fn(&mut Settings) -> &mut usize,
        large: &'static str,
        large_of: fn(&Settings) -> usize,
    ) -> Self {
        Self { small, small_of, large, large_of }
    }

    fn apply(&self, settings: &mut Settings) -> Result<(), ConfigError> {
        let limit = (self.large_of)(settings);
        let value = *(self.small_of)(settings);
        if value <= limit {
            return Ok(());
        }
        let (small_from, large_from) = (settings.source(self.small), settings.source(self.large));
        if matches!(small_from, Source::Default | Source::Lowered(_)) {
            *(self.small_of)(settings) = limit;
            let origin = Origin { source: Source::Lowered(self.large), shown: limit.to_string() };
            settings.origins.insert(self.small, origin);
            return Ok(());
        }
        let left = (format!("{} = {value}", self.small), small_from);
        let right = (format!("{} = {limit}", self.large), large_from);
        Err(ConfigError::relation(left, "is more than", right))
    }
}

/// The settings of somebody who set nothing.
impl Default for Settings {
    fn default() -> Self {
        parse(&Values::new(), |_| true).expect("every default obeys the rule of its setting")
    }
}

/// Finds the value of the first source that has one.
fn find(
    setting: &Setting,
    flags: &Flags,
    environment: &Environment,
    file: Option<&(BTreeMap<&'static str, String>, PathBuf)>,
    warnings: &mut Vec<String>,
) -> Result<Option<Given>, ConfigError> {
    if let Some(text) = flags.values.get(setting.id) {
        return Ok(Some(Given { text: text.clone(), source: Source::Flag(setting.flag.clone()), rank: 0 }));
    }
    for (name, rank) in setting.variables().zip(1..) {
        let Some((name, text)) = environment.get_key_value(&name) else { continue };
        if text.is_empty() {
            variables::refuse_empty(setting, name)?;
            continue;
        }
        // Kubernetes sets VALKEY_PORT to such a text for every pod beside a service called `valkey`.
        if name.ends_with("VALKEY_PORT") && text.starts_with("tcp://") {
            let warning = format!(
                "variable {name} is ignored: its value starts with tcp://, as Kubernetes writes it for a service of that name"
            );
            warnings.push(warning);
            continue;
        }
        return Ok(Some(Given { text: text.clone(), source: Source::Variable(name.clone()), rank }));
    }
    Ok(file.and_then(|(values, path)| {
        let source = Source::File(path.clone(), setting.id.to_owned());
        values.get(setting.id).map(|text| Given { text: text.clone(), source, rank: FILE_RANK })
    }))
}

/// Replaces `<id>_file` by what the file holds, unless the secret itself was set by a stronger source.
fn read_secret(id: &'static str, values: &mut Values) -> Result<(), ConfigError> {
    let Some(setting) = known().iter().find(|setting| setting.id.strip_suffix("_file") == Some(id)) else {
        return Ok(());
    };
    let Some(file) = values.get(setting.id) else { return Ok(()) };
    if let Some(value) = values.get(id) {
        if value.rank == file.rank {
            let (one, other) = (value.source.clone(), file.source.clone());
            let (one, other) = ((id.to_owned(), one), (setting.id.to_owned(), other));
            return Err(ConfigError::relation(one, "cannot be set together with", other));
        }
        if value.rank < file.rank {
            return Ok(());
        }
    }
    let path = PathBuf::from(&file.text);
    let what = format!("{} (from {}):", setting.id, file.source);
    let text = file::read_text(&path).map_err(|cause| ConfigError::Unreadable { what, path, cause })?;
    let text = text.trim_end_matches(['\r', '\n']).to_owned();
    let (source, rank) = (file.source.clone(), file.rank);
    if text.is_empty() {
        return Err(ConfigError::Hidden {
            setting: setting.id,
            from: source,
            rule: "names an empty file".to_owned(),
        });
    }
    values.insert(id, Given { text, source, rank });
    Ok(())
}

/// Parses those values whose settings are meant.
fn parse(values: &Values, is_meant: impl Fn(&str) -> bool) -> Result<Settings, ConfigError> {
    let command = Settings::augment_args(Command::new("tidemill").no_binary_name(true));
    let meant = known().iter().filter(|setting| is_meant(setting.id));
    let flags = meant.filter_map(|setting| {
        values.get(setting.id).map(|given| OsString::from(format!("{}={}", setting.flag, given.text)))
    });
    let parsed = command.try_get_matches_from(flags).and_then(|matches| Settings::from_arg_matches(&matches));
    parsed.map_err(|error| explain(&error, values))
}

/// Says with the name and source of a setting what the parser says about a flag.
fn explain(error: &clap::Error, values: &Values) -> ConfigError {
    let argument = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => argument.as_str(),
        _ => "",
    };
    // It reads `--flag <VALUE>` or `--flag[=<VALUE>]`.
    let end = argument.find(|c: char| !(c == '-' || c.is_ascii_alphanumeric())).unwrap_or(argument.len());
    let setting = known().iter().find(|setting| setting.flag == argument[..end]);
    let Some((setting, given)) = setting.and_then(|setting| Some((setting, values.get(setting.id)?))) else {
        // Only values are handed over, each under its own flag, so it is always a value that is wrong.
        let rule = error.kind().to_string();
        return ConfigError::Hidden { setting: "settings", from: Source::Default, rule };
    };
    let rule = match (setting.choices.as_slice(), std::error::Error::source(error)) {
        ([], None) => "is not valid".to_owned(),
        ([], Some(_)) if setting.default.as_deref().is_some_and(|text| text.parse::<bool>().is_ok()) => {
            "is not a boolean; write true or false".to_owned()
        }
        ([], Some(cause)) => {
            let cause = cause.to_string();
            // Our own forms give the end of a sentence; clap's repeat the value or stand alone.
            match cause.strip_prefix(&given.text) {
                Some(rest) => rest.trim().to_owned(),
                None if ["is ", "has ", "names "].iter().any(|verb| cause.starts_with(verb)) => cause,
                None => format!("is not valid: {cause}"),
            }
        }
        (choices, _) => format!("is none of {}", choices.join(", ")),
    };
    let from = given.source.clone();
    if setting.is_secret {
        return ConfigError::Hidden { setting: setting.id, from, rule };
    }
    ConfigError::Value { setting: setting.id, from, value: given.text.clone(), rule }
}

fn origin(id: &str, given: Given) -> Origin {
    let shown = if SECRETS.contains(&id) { redacted(id, &given.text) } else { given.text };
    Origin { source: given.source, shown }
}

/// Returns what may be shown of a secret: of the URL of a server all but the password.
fn redacted(id: &str, text: &str) -> String {
    #[cfg(feature = "valkey")]
    if ["valkey_url", "redis_url"].contains(&id)
        && let Ok(target) = crate::storage::valkey::Target::parse(text)
    {
        return if target.password.is_some() { target.redacted() } else { text.to_owned() };
    }
    let _ = (id, text);
    "***".to_owned()
}
