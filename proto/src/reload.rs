//! Settings that are read again while the relay runs.

use serde::{Deserialize, Serialize};

/// The answer of `POST /api/v1/admin/reload`: what came of reading the settings again. Names alone, never values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reloaded {
    /// The settings that have another value, which holds from now on. `tls_cert` also where the files of the certificate
    /// hold another one.
    pub changed: Vec<String>,
    /// The settings that have another value than the relay runs with, which holds after a restart.
    pub needs_restart: Vec<String>,
    /// How many settings are as they were.
    pub unchanged: u32,
}
