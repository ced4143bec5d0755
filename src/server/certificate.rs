//! The files of the relay's certificate and its key: read when it starts, and looked at again and again, so
//! that a renewal needs no restart.
//!
//! It must not know what is done with them.

use std::convert::Infallible;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidemill_tls::{IdentityError, ServerIdentity, ServerTls};
use tokio::task::spawn_blocking;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
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

/// The files, and what connections are shown of them.
#[derive(Debug)]
pub struct Certificate {
    paths: Arc<Paths>,
    /// What the files held when they were looked at last.
    seen: Content,
    tls: ServerTls,
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

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them cannot be read, or they do not fit together.
    pub fn open(certificate: PathBuf, key: PathBuf) -> Result<Self, CertificateError> {
        let paths = Paths { certificate, key };
        let seen = paths.read()?;
        let tls = ServerTls::new(paths.identity(&seen)?);
        Ok(Self { paths: Arc::new(paths), seen, tls })
    }

    /// Returns what connections are shown, which changes with the files.
    #[must_use]
    pub const fn tls(&self) -> &ServerTls {
        &self.tls
    }

    /// Looks at the files, for ever. Those who connect are shown what they hold, as soon as that fits
    /// together; until then what they held before.
    pub async fn watch(mut self) -> Infallible {
        let mut is_unreadable = false;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let paths = self.paths.clone();
            let Ok(read) = spawn_blocking(move || paths.read()).await else { continue };
            let replaced = match read {
                Ok(content) if content == self.seen => {
                    is_unreadable = false;
                    continue;
                }
                Ok(content) => {
                    is_unreadable = false;
                    let identity = self.paths.identity(&content);
                    self.seen = content;
                    identity.map(|identity| self.tls.replace(identity))
                }
                // Told once: it will be so until somebody comes.
                Err(_) if is_unreadable => continue,
                Err(error) => {
                    is_unreadable = true;
                    Err(error)
                }
            };
            match replaced {
                Ok(()) => tracing::info!("the certificate was replaced; new connections see the new one"),
                Err(error) => {
                    tracing::warn!(%error, "the new certificate is not used; the one before goes on");
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

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let length = std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
    if length as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "is larger than 1 MiB"));
    }
    Ok(content)
}
