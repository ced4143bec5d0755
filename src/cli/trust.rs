//! Whom a command trusts that speaks to a relay at `https://`: those whom the system trusts, the authorities
//! of a file, or a relay on this machine by its own certificate.
//!
//! It must not know what is said.

use std::path::PathBuf;

use reqwest::{Certificate, ClientBuilder};

use super::CliError;
use crate::config::{CA_CERT_VARIABLE, Environment};

const CA_CERT_HELP: &str =
    "Certificates (PEM) to trust in place of the system's, for a relay at https:// [env: TIDEMILL_CA_CERT]";

/// The flag that says whom to trust.
#[derive(Debug, clap::Args)]
pub(super) struct TrustFlags {
    /// The file.
    #[arg(long, value_name = "PATH", help = CA_CERT_HELP)]
    pub(super) ca_cert: Option<PathBuf>,
}

/// Whom a command trusts.
#[derive(Clone, Debug)]
pub(super) enum Trust {
    /// Whom the system trusts.
    System,
    /// The authorities of this file (PEM).
    Roots(Vec<u8>),
    /// Whoever shows the first certificate of this file (PEM).
    Shown(Vec<u8>),
}

/// Reads a file that `source` names.
fn read(path: &PathBuf, source: &str) -> Result<Vec<u8>, CliError> {
    std::fs::read(path).map_err(|cause| {
        CliError::Usage(format!("{} (from {source}) cannot be read: {cause}", path.display()))
    })
}

impl TrustFlags {
    /// Returns whom the flag, the variable or the system says to trust.
    pub(super) fn trust(&self, environment: &Environment) -> Result<Trust, CliError> {
        let variable = environment.get(CA_CERT_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let (path, source) = match (&self.ca_cert, variable) {
            (Some(path), _) => (path.clone(), "flag --ca-cert"),
            (None, Some(path)) => (path, "variable TIDEMILL_CA_CERT"),
            (None, None) => return Ok(Trust::System),
        };
        let pem = read(&path, source)?;
        match Certificate::from_pem_bundle(&pem) {
            Ok(certificates) if !certificates.is_empty() => Ok(Trust::Roots(pem)),
            Ok(_) | Err(_) => {
                let path = path.display();
                Err(CliError::Usage(format!("{path} (from {source}) has no certificate in PEM")))
            }
        }
    }
}

impl Trust {
    /// Returns the trust in a relay that shows what this file holds, as the relay's own settings name it.
    pub(super) fn shown(path: &PathBuf, source: &str) -> Result<Self, CliError> {
        Ok(Self::Shown(read(path, source)?))
    }

    /// Returns the certificates (PEM) that are trusted in place of the system's.
    pub(super) fn roots(&self) -> Option<&[u8]> {
        match self {
            Self::System => None,
            Self::Roots(pem) | Self::Shown(pem) => Some(pem),
        }
    }

    /// Has a client trust nobody else.
    pub(super) fn apply(self, builder: ClientBuilder) -> Result<ClientBuilder, CliError> {
        match self {
            Self::System => Ok(builder),
            Self::Roots(pem) => {
                let roots = Certificate::from_pem_bundle(&pem)
                    .map_err(|cause| CliError::Failed("cannot use the certificates", cause.into()))?;
                Ok(builder.tls_certs_only(roots))
            }
            Self::Shown(pem) => {
                let tls = tidemill_tls::pinned_to(&pem)
                    .map_err(|cause| CliError::Failed("cannot use the relay's certificate", cause.into()))?;
                Ok(builder.tls_backend_preconfigured(tls))
            }
        }
    }
}
