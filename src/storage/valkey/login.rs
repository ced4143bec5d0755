//! Logging in: as whom, and a password that may change while the relay runs.
//!
//! It knows neither servers nor settings. No text of it holds a password.

use std::convert::Infallible;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How often a file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long to wait before a password is offered again that was refused.
const LOG_IN_AGAIN: Duration = Duration::from_secs(5);
/// How long reading it may take.
const READ_WITHIN: Duration = Duration::from_secs(1);
/// Most bytes of a password: a token of a provider has some thousands.
const PASSWORD_BYTES_MAX: u64 = 64 * 1024;
/// The user whom servers mean by none. They refuse HELLO with an empty name.
const USER_DEFAULT: &str = "default";

/// As whom to log in.
#[derive(Clone, Debug, Default)]
pub struct Login {
    /// The user; `None` is the server's default user.
    pub username: Option<String>,
    /// The password; `None` sends none.
    pub password: Option<SecretString>,
    /// What the password is read from again, in place of `password`.
    pub file: Option<Arc<PasswordFile>>,
}

impl Login {
    /// Returns the user and the password as they are now, if there is one.
    pub(super) async fn credentials(&self) -> Option<(&str, SecretString)> {
        let password = match &self.file {
            Some(file) => file.read_again().await,
            None => self.password.clone()?,
        };
        Some((self.user(), password))
    }

    /// Returns the user.
    pub(super) fn user(&self) -> &str {
        self.username.as_deref().unwrap_or(USER_DEFAULT)
    }
}

/// A file that holds a password and may be written again while the relay runs.
pub struct PasswordFile {
    path: PathBuf,
    current: watch::Sender<SecretString>,
    /// Held while the file is read, by what reads it: a file system that hangs holds up one thread.
    reading: Arc<tokio::sync::Mutex<()>>,
    /// Why it could not be read, the last time.
    failure: Mutex<Option<String>>,
}

impl fmt::Debug for PasswordFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl PasswordFile {
    /// Returns a file in which this password was found.
    #[must_use]
    pub fn new(path: PathBuf, password: SecretString) -> Self {
        let (current, reading) = (watch::Sender::new(password), Arc::default());
        Self { path, current, reading, failure: Mutex::new(None) }
    }

    /// Returns a view of the password that can be waited on.
    pub(super) fn changes(&self) -> watch::Receiver<SecretString> {
        self.current.subscribe()
    }

    /// Reads the file and returns the password: the one before, where it cannot be read, as may be while it is written.
    pub(super) async fn read_again(&self) -> SecretString {
        let path = self.path.clone();
        let reading = async {
            let turn = self.reading.clone().lock_owned().await;
            let read = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                read(&path)
            });
            read.await.unwrap_or_else(|error| Err(error.to_string()))
        };
        let read = timeout(READ_WITHIN, reading).await;
        match read.unwrap_or_else(|_| Err(format!("it took longer than {} ms", READ_WITHIN.as_millis()))) {
            Ok(password) => {
                self.note_failure(None);
                let changed = self.current.send_if_modified(|current| {
                    let is_other = current.expose_secret() != password;
                    if is_other {
                        *current = password.into();
                    }
                    is_other
                });
                if changed {
                    tracing::info!(path = %self.path.display(), "the password has changed");
                }
            }
            Err(reason) => self.note_failure(Some(reason)),
        }
        self.current.borrow().clone()
    }

    /// Reads the file now and then, for as long as it is polled.
    pub(super) async fn follow(&self) {
        loop {
            sleep(LOOK_EVERY).await;
            self.read_again().await;
        }
    }

    /// Logs why it cannot be read, once until the reason changes.
    fn note_failure(&self, failure: Option<String>) {
        let mut kept = self.failure.lock();
        if *kept != failure {
            if let Some(reason) = &failure {
                tracing::warn!(path = %self.path.display(), reason, "the password cannot be read again, using the one before");
            }
            *kept = failure;
        }
    }
}

/// Logs a connection in again whenever the password changes, for as long as it is polled; without a file, never.
/// `log_in` returns why the server refuses, if it does: then the connection goes on as it was, and is logged in
/// again a little later, for the server may learn of the password behind the relay.
pub(super) async fn keep_logged_in<F>(file: Option<&PasswordFile>, log_in: impl Fn() -> F) -> Infallible
where
    F: Future<Output = Option<String>>,
{
    let Some(file) = file else { return std::future::pending().await };
    let mut changes = file.changes();
    loop {
        // The file keeps the sending end.
        let _ = changes.changed().await;
        while let Some(reason) = log_in().await {
            tracing::warn!(reason, "the server does not take the new password, trying on");
            sleep(LOG_IN_AGAIN).await;
        }
    }
}

/// Reads a password as settings do: the ends of its lines do not belong to it.
fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let bytes =
        file.take(PASSWORD_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    let password = text.trim_end_matches(['\r', '\n']);
    if bytes as u64 > PASSWORD_BYTES_MAX {
        Err(format!("it is larger than {} KiB", PASSWORD_BYTES_MAX / 1024))
    } else if password.is_empty() {
        Err("it is empty".to_owned())
    } else {
        Ok(password.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_that_cannot_be_read_is_the_one_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("password");
        let file = PasswordFile::new(path.clone(), "h3cret 1".to_owned().into());
        let read = async || file.read_again().await.expose_secret().to_owned();
        let changes = file.changes();
        assert_eq!(read().await, "h3cret 1");
        for text in ["", "\n", &"x".repeat(70_000)] {
            std::fs::write(&path, text).expect("it can be written");
            assert_eq!(read().await, "h3cret 1", "{} bytes", text.len());
        }
        assert!(!changes.has_changed().expect("the file is there"));
        std::fs::write(&path, "h3cret 2\r\n").expect("it can be written");
        assert_eq!(read().await, "h3cret 2");
        assert!(changes.has_changed().expect("the file is there"));
        assert!(!format!("{file:?}").contains("h3cret"));
    }
}
