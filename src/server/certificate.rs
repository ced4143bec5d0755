//! The files of the relay's certificate and its key: read when it starts, and looked at again and again, so
//! that a renewal needs no restart.
//!
//! It must not know what is done with them.

use std::convert::Infallible;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidemill_proto::Timestamp;
use tidemill_tls::{IdentityError, ServerIdentity, ServerTls};
use tokio::task::spawn_blocking;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long before its end a certificate is warned about: those that are renewed by themselves are renewed sooner.
pub const ENDS_SOON: Duration = Duration::from_hours(14 * 24);
/// Largest file: far more than a chain or a key needs, so that a wrong path ends in an error.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why there is no certificate to show.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Whether it is that of the key.
        is_key: bool,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// What is in a file cannot be shown.
    #[error("{} {cause}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: IdentityError,
    },
}

impl CertificateError {
    /// Returns whether it is the key's file that is wrong.
    #[must_use]
    pub const fn is_of_key(&self) -> bool {
        match self {
            Self::Unreadable { is_key, .. } => *is_key,
            Self::Unfit { cause, .. } => cause.is_of_key(),
        }
    }
}

/// The files, and what connections are shown of them. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Certificate(Arc<Files>);

#[derive(Debug)]
struct Files {
    paths: Paths,
    /// What the files held that is shown now.
    shown: Mutex<Content>,
    tls: ServerTls,
    good_until: Option<Timestamp>,
}

#[derive(Debug)]
struct Paths {
    certificate: PathBuf,
    key: PathBuf,
}

/// What both files hold. It is compared, since a file can be written twice within the grain of its time.
#[derive(PartialEq, Eq)]
struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Content(***)")
    }
}

/// What a look at the files has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// What is shown.
    Same,
    /// Something else, which is shown from now on, and is good until then, where it tells.
    Replaced(Option<Timestamp>),
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them cannot be read, or they do not fit together.
    pub fn open(certificate: PathBuf, key: PathBuf) -> Result<Self, CertificateError> {
        let paths = Paths { certificate, key };
        let content = paths.read()?;
        let identity = paths.identity(&content)?;
        let good_until = good_until(&identity);
        let shown = Mutex::new(content);
        Ok(Self(Arc::new(Files { paths, shown, tls: ServerTls::new(identity), good_until })))
    }

    /// Returns until when it is good, as it was read when the files were opened; `None` where it does not tell.
    #[must_use]
    pub fn good_until(&self) -> Option<Timestamp> {
        self.0.good_until
    }

    /// Returns what connections are shown, which changes with the files.
    #[must_use]
    pub fn tls(&self) -> &ServerTls {
        &self.0.tls
    }

    /// Looks at the files. Those who connect are shown what they hold, where that fits together.
    ///
    /// # Errors
    /// One of them cannot be read, or they do not fit together: what was shown is shown on.
    pub async fn look(&self) -> Result<Seen, CertificateError> {
        let files = self.0.clone();
        let looked = spawn_blocking(move || {
            let content = files.paths.read()?;
            let mut shown = files.shown.lock();
            if *shown == content {
                return Ok(Seen::Same);
            }
            let identity = files.paths.identity(&content)?;
            let good_until = good_until(&identity);
            files.tls.replace(identity);
            *shown = content;
            tracing::info!("the certificate was replaced; new connections see the new one");
            Ok(Seen::Replaced(good_until))
        });
        // It ends early only where the runtime does.
        looked.await.unwrap_or(Ok(Seen::Same))
    }

    /// Looks at the files, for ever. Those who connect are shown what they hold, as soon as that fits
    /// together; until then what they held before. `replaced` is told until when each new one is good.
    pub async fn watch(&self, replaced: impl Fn(Option<Timestamp>)) -> Infallible {
        let mut told = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            match self.look().await {
                Ok(Seen::Same) => told = None,
                Ok(Seen::Replaced(good_until)) => {
                    told = None;
                    replaced(good_until);
                }
                Err(error) => {
                    // Told once: it will be so until somebody comes.
                    let text = error.to_string();
                    if told.as_ref() != Some(&text) {
                        tracing::warn!(%error, "the new certificate is not used; the one before goes on");
                        told = Some(text);
                    }
                }
            }
        }
    }
}

impl Paths {
    fn read(&self) -> Result<Content, CertificateError> {
        let unreadable = |path: &Path, is_key| {
            let path = path.to_owned();
            move |cause| CertificateError::Unreadable { path, is_key, cause }
        };
        Ok(Content {
            certificate: read(&self.certificate).map_err(unreadable(&self.certificate, false))?,
            key: read(&self.key).map_err(unreadable(&self.key, true))?,
        })
    }

    fn identity(&self, content: &Content) -> Result<ServerIdentity, CertificateError> {
        ServerIdentity::from_pem(&content.certificate, &content.key).map_err(|cause| {
            let path = if cause.is_of_key() { &self.key } else { &self.certificate };
            CertificateError::Unfit { path: path.clone(), cause }
        })
    }
}

/// Returns a sentence on a certificate that is good no longer, or soon: its end, and what to do.
#[must_use]
pub fn is_ending(good_until: Timestamp, now: Timestamp) -> Option<String> {
    let what = if good_until < now {
        "has expired: clients refuse it since"
    } else if good_until < now.saturating_add(ENDS_SOON) {
        "expires soon: clients refuse it after"
    } else {
        return None;
    };
    Some(format!("the certificate {what} {good_until}; renew it, and write the new one into its file"))
}

fn good_until(identity: &ServerIdentity) -> Option<Timestamp> {
    identity.good_until().map(|seconds| Timestamp::from_millis(seconds.saturating_mul(1_000)))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let length = std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
    if length as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "is larger than 1 MiB"));
    }
    Ok(content)
}
