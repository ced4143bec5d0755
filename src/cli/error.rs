//! Why a command failed, told by the exit code it ends with, and the one line that says so.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use tidemill_proto::Problem;

use crate::config::ConfigError;
use tidemill_client::ClientError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The input was not understood.
    #[error("{0}")]
    Usage(String),
    /// The settings are wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The relay answered with a problem.
    #[error("{}", describe(.0))]
    Problem(Box<Problem>),
    /// No relay could be reached.
    #[error(
        "cannot reach a relay at {url} ({why}); start one with `tidemill serve`, or name another with --url"
    )]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// Why.
        why: String,
    },
    /// Something shows a certificate there that is not trusted.
    #[error("the relay at {url} shows a certificate that is not trusted ({why}); {advice}")]
    Untrusted {
        /// Where it was looked for.
        url: String,
        /// Why.
        why: String,
        /// What to do.
        advice: &'static str,
    },
    /// The connection broke, or no answer came in time.
    #[error("no answer from {url} ({why})")]
    NoAnswer {
        /// Who was asked.
        url: String,
        /// Why.
        why: String,
    },
    /// Something answered, but not as a relay does.
    #[error("the answer of {url} is not a relay's: {what}")]
    NotARelay {
        /// Who was asked.
        url: String,
        /// What was wrong with the answer.
        what: String,
    },
    /// The connection that a command reads or publishes over has ended for good.
    #[error(transparent)]
    Link(ClientError),
    /// What was published may be kept all the same, or what was done stands; and what to do, as a sentence.
    #[error("{0}; {1}")]
    Kept(Box<CliError>, String),
    /// What the command prints cannot be written.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
    /// Something else failed.
    #[error("{0}")]
    Failed(&'static str, #[source] Box<dyn Error + Send + Sync>),
    /// Something listens already where the relay was to.
    #[error(
        "cannot listen on {0}: the address is taken; another relay may be running: stop it, or take another address, as with `--listen 127.0.0.1:8081`"
    )]
    AddressTaken(String),
    /// Somebody pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// Nobody knows the answer to a question whose answers are the exit statuses 0 and 1.
    #[error(transparent)]
    Undecided(Box<CliError>),
    /// The command has said already what failed.
    #[error("failed")]
    Told,
    /// All is said, and this is the exit status: that of a command that was run, or one that it would not have.
    #[error("exit status {0}")]
    Status(u8),
}

impl CliError {
    /// Returns the error of a relay that was not reached, or not believed to be the relay.
    pub(super) fn unreachable(url: String, why: String) -> Self {
        let Some(why) = tidemill_tls::untrusted(&why) else { return Self::Unreachable { url, why } };
        let advice = if why.contains("not valid for name") {
            "name the relay as its certificate does, with --url or TIDEMILL_URL"
        } else if why.contains("expired") || why.contains("not valid yet") {
            "the relay needs a new one, unless the clock of this machine is wrong"
        } else {
            "if it is the relay's, say whom to trust with --ca-cert PATH or TIDEMILL_CA_CERT: the file (PEM) of the authority that has signed it"
        };
        Self::Untrusted { url, why, advice }
    }

    /// Prints the error as one line on standard error, and returns the code to exit with.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        match self {
            Self::Told => return ExitCode::FAILURE,
            Self::Status(status) => return ExitCode::from(*status),
            // Whoever read the output has seen enough (`tidemill read … | head`).
            Self::Output(cause) if cause.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            _ => {}
        }
        eprintln!("error: {}", chain(self));
        match self {
            Self::Usage(_) | Self::Config(_) | Self::Undecided(_) => ExitCode::from(2),
            // What shells report of a command that was ended by SIGINT.
            Self::Interrupted => ExitCode::from(130),
            Self::Kept(cause, _) if matches!(**cause, Self::Interrupted) => ExitCode::from(130),
            _ => ExitCode::FAILURE,
        }
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Usage(rule) => Self::Usage(rule),
            ClientError::Away { url, why } => Self::unreachable(url, why),
            ClientError::NotARelay { url, what } => Self::NotARelay { url, what },
            ClientError::NoAnswer { url, why } => Self::NoAnswer { url, why },
            ClientError::Refused(_) | ClientError::Unknown | ClientError::Stopped { .. } => Self::Link(error),
        }
    }
}

#[cfg(feature = "bench")]
impl From<tidemill_bench::BenchError> for CliError {
    fn from(error: tidemill_bench::BenchError) -> Self {
        use tidemill_bench::BenchError as Error;

        match error {
            Error::Usage(rule) => Self::Usage(rule),
            Error::Unreachable { host, why } => Self::unreachable(host, why),
            Error::NoAnswer { url, why } => Self::NoAnswer { url, why },
            Error::Runtime(cause) => Self::Failed("the runtime cannot start", cause.into()),
            Error::Interrupted => Self::Interrupted,
        }
    }
}

/// Returns an error with its causes, as one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        line.push_str(": ");
        line.push_str(&text);
        cause = error.source();
    }
    line
}

/// Returns a problem as one line.
pub(super) fn describe(problem: &Problem) -> String {
    let code = problem.code.as_str();
    match &problem.request_id {
        Some(id) => format!("{} (code {code}, request id {id})", problem.detail),
        None => format!("{} (code {code})", problem.detail),
    }
}
