//! The variables of OpenTelemetry that are heeded, and what they may say.
//!
//! They are those of every program that traces, so they are no settings of the relay: no flag and no file has them.

use std::collections::BTreeMap;
use std::time::Duration;

use opentelemetry_sdk::trace::{Sampler, ShouldSample};
use percent_encoding::percent_decode_str;
use reqwest::header::{HeaderName, HeaderValue};

use super::sampling::LinkedOr;

pub(super) const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
/// Those of which there is one for traces alone.
const EITHER: [(&str, &str); 4] = [
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"),
    ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"),
    ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"),
];
const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
/// Most spans that may wait: each takes about a kibibyte.
const QUEUE_MAX: u64 = 100_000;
const TIMEOUT_MS: u64 = 10_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A variable that says what it cannot.
#[derive(Debug, thiserror::Error)]
#[error("{variable} (from the environment) {rule}")]
pub struct TracesError {
    variable: &'static str,
    rule: String,
}

impl TracesError {
    pub(super) fn new(variable: &'static str, rule: impl Into<String>) -> Self {
        Self { variable, rule: rule.into() }
    }
}

/// How a process traces.
#[derive(Debug)]
pub struct TracesSettings {
    pub(super) sampler: Box<dyn ShouldSample>,
    /// Whether the environment says what the service is called.
    pub(super) is_named: bool,
    pub(super) queue_max: usize,
    pub(super) batch_max: usize,
    pub(super) delay: Duration,
    /// How long the collector may take for an answer.
    pub(super) timeout: Duration,
}

/// The variables, where an empty one is none.
struct Variables<'a>(&'a BTreeMap<String, String>);

impl<'a> Variables<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).map(|text| text.trim()).filter(|text| !text.is_empty())
    }

    fn number(&self, name: &'static str, default: u64, [min, max]: [u64; 2]) -> Result<u64, TracesError> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| (min..=max).contains(number));
        let rule = || format!("must be a whole number from {min} to {max}, and is `{text}`");
        number.ok_or_else(|| TracesError::new(name, rule()))
    }

    fn size(&self, name: &'static str, default: u64) -> Result<usize, TracesError> {
        Ok(usize::try_from(self.number(name, default, [1, QUEUE_MAX])?).unwrap_or(usize::MAX))
    }

    /// Returns what one of a pair says, and which of them; that for traces alone wins.
    fn either(&self, (own, all): (&'static str, &'static str)) -> Option<(&'static str, &'a str)> {
        [own, all].into_iter().find_map(|name| Some((name, self.get(name)?)))
    }

    fn one_of(&self, name: &'static str, known: &[&str]) -> Result<(), TracesError> {
        match self.get(name) {
            Some(text) if !known.contains(&text) => Err(not_among(name, text, known)),
            _ => Ok(()),
        }
    }
}

impl TracesSettings {
    /// Returns how a process with these variables traces; `None` if it does not.
    ///
    /// # Errors
    /// The first variable that says what it cannot. Where nothing is traced, none is looked at but those that say so.
    pub fn read(environment: &BTreeMap<String, String>) -> Result<Option<Self>, TracesError> {
        Self::examine(environment).map_err(|mut errors| errors.swap_remove(0))
    }

    /// Does what [`read`](Self::read) does, and goes on where something is wrong.
    ///
    /// # Errors
    /// All variables that say what they cannot: one at least.
    pub fn examine(environment: &BTreeMap<String, String>) -> Result<Option<Self>, Vec<TracesError>> {
        let variables = Variables(environment);
        let is_on = match variables.is_on() {
            Ok(false) => return Ok(None),
            Ok(true) => Ok(()),
            Err(error) => Err(error),
        };
        let [_, timeout, ..] = EITHER.map(|pair| variables.either(pair));
        let timeout =
            timeout.map_or(Ok(TIMEOUT_MS), |(name, _)| variables.number(name, TIMEOUT_MS, [1, DAY_MS]));
        let queue_max = variables.size("OTEL_BSP_MAX_QUEUE_SIZE", 2_048);
        let batch_max = variables.size("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512);
        let delay = variables.number("OTEL_BSP_SCHEDULE_DELAY", 5_000, [1, DAY_MS]);
        let (told, sampler) = (variables.check(), sampler(&variables));
        match (is_on, told.as_slice(), timeout, queue_max, batch_max, delay, sampler) {
            (Ok(()), [], Ok(timeout), Ok(queue_max), Ok(batch_max), Ok(delay), Ok(sampler)) => {
                Ok(Some(Self {
                    sampler,
                    is_named: variables.names_service(),
                    queue_max,
                    batch_max: batch_max.min(queue_max),
                    delay: Duration::from_millis(delay),
                    timeout: Duration::from_millis(timeout),
                }))
            }
            (is_on, _, timeout, queue_max, batch_max, delay, sampler) => {
                let first = is_on.err().into_iter().chain(told);
                let numbers = [timeout.err(), queue_max.err(), batch_max.err(), delay.err()];
                Err(first.chain(numbers.into_iter().flatten()).chain(sampler.err()).collect())
            }
        }
    }
}

impl Variables<'_> {
    /// Returns whether they have the process trace.
    fn is_on(&self) -> Result<bool, TracesError> {
        if [TRACES_ENDPOINT, ENDPOINT].iter().all(|name| self.get(name).is_none()) {
            return Ok(false);
        }
        match self.get("OTEL_SDK_DISABLED") {
            Some(text) if text.eq_ignore_ascii_case("true") => return Ok(false),
            Some(text) if !text.eq_ignore_ascii_case("false") => {
                return Err(not_among("OTEL_SDK_DISABLED", text, &["true", "false"]));
            }
            _ => {}
        }
        self.one_of("OTEL_TRACES_EXPORTER", &["otlp", "none"])?;
        Ok(self.get("OTEL_TRACES_EXPORTER") != Some("none"))
    }

    /// Returns what is wrong with those that are neither a number nor say which spans are kept.
    fn check(&self) -> Vec<TracesError> {
        let mut errors = Vec::new();
        for name in [TRACES_ENDPOINT, ENDPOINT] {
            let Some(text) = self.get(name) else { continue };
            let url = url::Url::parse(text).ok();
            if !url.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
                errors.push(TracesError::new(name, "must be a URL, as in `http://collector:4318`"));
            }
        }
        let [protocol, _, compression, headers] = EITHER.map(|pair| self.either(pair));
        if let Some((name, text)) = protocol
            && text != "http/protobuf"
        {
            let rule =
                format!("must be `http/protobuf`, and is `{text}`: the relay sends spans in no other way");
            errors.push(TracesError::new(name, rule));
        }
        errors.extend(compression.and_then(|(name, _)| self.one_of(name, &["gzip", "none"]).err()));
        if let Some((name, text)) = headers
            && !pairs(text).all(|pair| pair.is_some_and(|(name, value)| is_header(&name, &value)))
        {
            // What they say is secret.
            let rule = "must be names and values, as in `api-key=123,tenant=a`";
            errors.push(TracesError::new(name, rule));
        }
        if let Some(text) = self.get(ATTRIBUTES)
            && !pairs(text).all(|pair| pair.is_some())
        {
            let rule = format!(
                "must be names and values, as in `deployment.environment.name=test`, and is `{text}`"
            );
            errors.push(TracesError::new(ATTRIBUTES, rule));
        }
        errors
    }

    /// Returns whether they say what the service is called.
    fn names_service(&self) -> bool {
        let is_name = |pair: &str| pair.split('=').next().is_some_and(|name| name.trim() == "service.name");
        self.get("OTEL_SERVICE_NAME").is_some()
            || self.get(ATTRIBUTES).is_some_and(|text| text.split(',').any(is_name))
    }
}

/// Returns the names and values of a list; `None` for what is none of it. What is written as `%2C` stands for a comma.
fn pairs(text: &str) -> impl Iterator<Item = Option<(String, Vec<u8>)>> {
    text.split(',').map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        let mut written = value.split('%').skip(1);
        let is_whole = written.all(|behind| {
            behind.get(..2).is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
        });
        let decoded: Vec<u8> = percent_decode_str(value).collect();
        (!name.is_empty() && is_whole && std::str::from_utf8(&decoded).is_ok())
            .then(|| (name.to_owned(), decoded))
    })
}

fn is_header(name: &str, value: &[u8]) -> bool {
    HeaderName::from_bytes(name.as_bytes()).is_ok() && HeaderValue::from_bytes(value).is_ok()
}

fn sampler(variables: &Variables<'_>) -> Result<Box<dyn ShouldSample>, TracesError> {
    const NAME: &str = "OTEL_TRACES_SAMPLER";
    const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
    const KNOWN: [&str; 6] = [
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ];
    let ratio = || match variables.get(ARGUMENT) {
        None => Ok(Sampler::TraceIdRatioBased(1.0)),
        Some(text) => match text.parse() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(Sampler::TraceIdRatioBased(ratio)),
            _ => Err(TracesError::new(ARGUMENT, format!("must be a number from 0 to 1, and is `{text}`"))),
        },
    };
    let under = |root| Box::new(LinkedOr(Sampler::ParentBased(Box::new(root))));
    Ok(match variables.get(NAME).unwrap_or("parentbased_always_on") {
        "always_on" => Box::new(Sampler::AlwaysOn),
        "always_off" => Box::new(Sampler::AlwaysOff),
        "traceidratio" => Box::new(ratio()?),
        "parentbased_always_on" => under(Sampler::AlwaysOn),
        "parentbased_always_off" => under(Sampler::AlwaysOff),
        "parentbased_traceidratio" => under(ratio()?),
        text => return Err(not_among(NAME, text, &KNOWN)),
    })
}

fn not_among(name: &'static str, text: &str, known: &[&str]) -> TracesError {
    TracesError::new(name, format!("must be one of `{}`, and is `{text}`", known.join("`, `")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<TracesSettings>, String> {
        let environment =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        TracesSettings::read(&environment).map_err(|error| error.to_string())
    }

    #[test]
    fn a_process_traces_where_there_is_a_collector_and_nothing_says_otherwise() {
        let collector = (ENDPOINT, "http://collector:4318");
        assert!(read(&[]).expect("nothing").is_none());
        assert!(read(&[(ENDPOINT, "")]).expect("nothing").is_none());
        assert!(read(&[("OTEL_TRACES_SAMPLER", "nonsense")]).expect("not looked at").is_none());
        assert!(read(&[collector]).expect("on").is_some());
        assert!(read(&[(TRACES_ENDPOINT, "https://collector/v1/traces")]).expect("on").is_some());
        assert!(read(&[collector, ("OTEL_SDK_DISABLED", "TRUE")]).expect("off").is_none());
        assert!(read(&[collector, ("OTEL_TRACES_EXPORTER", "none")]).expect("off").is_none());
        let settings = read(&[collector, ("OTEL_BSP_MAX_QUEUE_SIZE", "7")]).expect("on").expect("settings");
        assert_eq!((settings.queue_max, settings.batch_max, settings.is_named), (7, 7, false));
        let named = [collector, ("OTEL_RESOURCE_ATTRIBUTES", "a=b, service.name=relay")];
        assert!(read(&named).expect("on").expect("settings").is_named);
    }

    #[test]
    fn what_a_variable_cannot_say_is_named() {
        for (name, value) in [
            ("OTEL_SDK_DISABLED", "yes"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            (TRACES_ENDPOINT, "collector:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "soon"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%0d%0aX-Other:1"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api key=1"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=%zz"),
            ("OTEL_RESOURCE_ATTRIBUTES", ",,="),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=%zz"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=1,b"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
        ] {
            let error = read(&[(ENDPOINT, "http://a:1"), (name, value)]).expect_err(name);
            assert!(error.starts_with(name), "{error}");
            assert!(name != "OTEL_EXPORTER_OTLP_HEADERS" || !error.contains(value), "{error}");
        }
        let ratio = [
            (ENDPOINT, "http://a:1"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ];
        assert!(read(&ratio).expect_err("too much").starts_with("OTEL_TRACES_SAMPLER_ARG"));
    }
}
