//! How to speak with the sentinels that tell where the server is: the settings.

use std::path::PathBuf;

use secrecy::SecretString;

use super::VALKEY;
use super::form::{SentinelTls, secret};

/// The settings of sentinels. Where they are stands in the URL.
#[derive(Clone, Debug, clap::Args)]
pub struct SentinelSettings {
    /// The ACL user to log in as at the sentinels
    #[arg(long, value_name = "NAME", help_heading = VALKEY)]
    pub valkey_sentinel_username: Option<String>,

    /// The password to log in with at the sentinels; the URL has that of the server
    ///
    /// Prefer the variable or a file: other users of the machine can see flags.
    #[arg(long, value_name = "PASSWORD", help_heading = VALKEY, value_parser = secret())]
    pub valkey_sentinel_password: Option<SecretString>,

    /// A file that holds the password of --valkey-sentinel-password
    #[arg(long, value_name = "PATH", help_heading = VALKEY)]
    pub valkey_sentinel_password_file: Option<PathBuf>,

    /// Whether to speak TLS with the sentinels: `auto` is as with the server
    #[arg(long, value_name = "WHETHER", default_value = "auto", help_heading = VALKEY, ignore_case = true)]
    pub valkey_sentinel_use_tls: SentinelTls,
}
