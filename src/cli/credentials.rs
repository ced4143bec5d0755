//! What a command says of who calls: a token, or a user's name and password.
//!
//! It must not know what is asked for.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use secrecy::{ExposeSecret as _, SecretString};

use super::CliError;
use crate::config::{Environment, TOKEN_FILE_VARIABLE, TOKEN_VARIABLE};

const TOKEN_HELP: &str = "The token or JWT that says who calls. Other users of the machine can see flags: with `@PATH` it is read from a file [env: TIDEMILL_TOKEN, TIDEMILL_TOKEN_FILE]";

/// How commands say who calls.
pub(super) const WAYS: &str = "say who calls with --token @PATH, or TIDEMILL_TOKEN";

/// How commands say it that take a user's name and password, too.
pub(super) const WAYS_WITH_USER: &str = "say who calls with --token @PATH, TIDEMILL_TOKEN, or --user NAME";

/// Returns what a relay tells who has not said who calls, with what to write on the command line in place of what
/// to send.
pub(super) fn advised(told: &str, ways: &str) -> String {
    let what = told.split_once("; ").map_or(told, |(what, _)| what);
    format!("{what}; {ways}")
}

/// The flag with a token.
#[derive(Debug, clap::Args)]
pub(super) struct TokenFlag {
    /// The token.
    #[arg(long, value_name = "TOKEN", help = TOKEN_HELP, value_parser = parse, global = true)]
    token: Option<Token>,
}

/// A token, and the file that it was read from.
#[derive(Clone, Debug)]
pub(super) struct Token {
    text: SecretString,
    file: Option<String>,
}

/// Reads a token, or the file with one that is named behind an `@`.
pub(super) fn parse(text: &str) -> Result<Token, String> {
    let Some(path) = text.strip_prefix('@') else {
        if !is_like_token(text) && Path::new(text).is_file() {
            return Err(format!("there is a file of that name: write @{text}"));
        }
        return check(text, None);
    };
    let read = std::fs::read_to_string(path).map_err(|cause| format!("the file cannot be read: {cause}"))?;
    check(&read, Some(path.to_owned()))
}

/// Returns whether a text may be a token of the relay's or a JWT, by how it begins.
fn is_like_token(text: &str) -> bool {
    text.starts_with("eyJ") || (text.starts_with('t') && text.get(2..3) == Some("_"))
}

fn check(text: &str, file: Option<String>) -> Result<Token, String> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a token is letters, digits and signs, without blanks".to_owned());
    }
    Ok(Token { text: text.into(), file })
}

impl TokenFlag {
    /// Returns the token that the flag gives, as it was written.
    #[cfg(feature = "valkey")]
    pub(super) const fn given(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// Returns the token that the flag or a variable gives.
    pub(super) fn token(&self, environment: &Environment) -> Result<Option<SecretString>, CliError> {
        token(self.token.as_ref(), environment)
    }

    /// Returns whether the flag is there.
    pub(super) const fn is_given(&self) -> bool {
        self.token.is_some()
    }

    /// Returns the flag as a shell reads it, without the token unless a file has it.
    pub(super) fn flag(&self) -> Option<String> {
        let token = self.token.as_ref()?;
        Some(token.file.as_ref().map_or_else(|| "--token=…".to_owned(), |path| format!("--token=@{path}")))
    }

    /// Returns whether that leaves out the token.
    pub(super) fn is_hidden(&self) -> bool {
        self.token.as_ref().is_some_and(|token| token.file.is_none())
    }
}

/// Returns the token that a flag or a variable gives.
pub(super) fn token(
    given: Option<&Token>,
    environment: &Environment,
) -> Result<Option<SecretString>, CliError> {
    if let Some(token) = given {
        return Ok(Some(token.text.clone()));
    }
    let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let (text, name) = match (variable(TOKEN_VARIABLE), variable(TOKEN_FILE_VARIABLE)) {
        (Some(_), Some(_)) => {
            let rule = format!("set {TOKEN_VARIABLE} or {TOKEN_FILE_VARIABLE}, not both");
            return Err(CliError::Usage(rule));
        }
        (Some(token), None) => (token.clone(), TOKEN_VARIABLE),
        (None, Some(path)) => (format!("@{path}"), TOKEN_FILE_VARIABLE),
        (None, None) => return Ok(None),
    };
    let token = parse(&text).map_err(|rule| CliError::Usage(format!("variable {name}: {rule}")))?;
    Ok(Some(token.text))
}

/// Adds what says who calls to the headers of every request, unless a header says it already.
pub(super) fn add(headers: &mut HeaderMap, value: &str) -> Result<(), CliError> {
    if headers.contains_key(AUTHORIZATION) {
        return Ok(());
    }
    let value = HeaderValue::try_from(value);
    let mut value = value.map_err(|_| CliError::Usage("the token cannot stand in a header".to_owned()))?;
    value.set_sensitive(true);
    headers.insert(AUTHORIZATION, value);
    Ok(())
}

/// Returns what says that a user calls, with its password.
pub(super) fn basic(name: &str, password: &SecretString) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{}", password.expose_secret())))
}

/// Asks for a password on the terminal, which does not show it; where standard input is no terminal, the
/// password is its next line.
pub(super) fn ask_password(of: &str) -> Result<SecretString, CliError> {
    ask(of)?.ok_or_else(|| missing(of, "or give it as a line of standard input"))
}

fn missing(of: &str, how: &str) -> CliError {
    CliError::Usage(format!("there is no {of}: write it, {how}"))
}

fn ask(of: &str) -> Result<Option<SecretString>, CliError> {
    let stdin = io::stdin();
    let is_terminal = stdin.is_terminal();
    let mut line = String::new();
    if is_terminal {
        // Before it is asked for, so that nothing is shown of what is written at once.
        let silent = Silent::begin()?;
        let mut err = io::stderr().lock();
        write!(err, "{of}: ")?;
        err.flush()?;
        stdin.lock().read_line(&mut line)?;
        drop(silent);
        writeln!(err)?;
    } else {
        stdin.lock().read_line(&mut line)?;
    }
    let password = line.trim_end_matches(['\r', '\n']);
    Ok((!password.is_empty()).then(|| password.into()))
}

/// Asks for a new password, on a terminal twice; `caller` is a user whose own password was asked for before.
pub(super) fn ask_new_password(name: &str, caller: Option<&str>) -> Result<SecretString, CliError> {
    let of = format!("new password of {name}");
    let first = match caller {
        None => ask_password(&of)?,
        Some(caller) => ask(&of)?.ok_or_else(|| {
            let how = format!(
                "or give it as the second line of standard input, behind the password of {caller}, whom --user names"
            );
            missing(&of, &how)
        })?,
    };
    if io::stdin().is_terminal() {
        let second = ask_password("the same again")?;
        if first.expose_secret() != second.expose_secret() {
            return Err(CliError::Usage("the two are not the same; nothing was changed".to_owned()));
        }
    }
    Ok(first)
}

/// The terminal, while it does not show what is written.
struct Silent(rustix::termios::Termios);

impl Silent {
    fn begin() -> Result<Self, CliError> {
        let failed = |cause: rustix::io::Errno| {
            CliError::Failed("the terminal cannot be kept from showing the password", cause.into())
        };
        let before = tcgetattr(io::stdin()).map_err(failed)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Now, &silent).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // Nothing more can be done where that fails.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
