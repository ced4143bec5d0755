//! Which Valkey servers there are beside the one of the URL, and how what they have is written and read: the settings.

use std::path::PathBuf;

use secrecy::SecretString;

use super::form::{InCluster, KeyForm, ReadFrom, secret};
use super::{VALKEY, ms};

/// The settings of several servers, and of what is the same on all of them.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerSettings {
    /// Servers beside that of --valkey-url, with the topics that live there, as in
    /// `eu.*=valkey://eu:6379; us.*,ca.*=valkey://us:6379`
    ///
    /// In front of each URL stand names of topics or patterns, with commas between them; the first that matches a
    /// topic's name says where it lives, and what none matches lives at --valkey-url. Buckets of keys, rooms, locks, limits of
    /// applications and series are placed by their own names in the same way. Nothing is moved when this is changed.
    /// All nodes of a relay must have the same. Prefer the variable or a file: other users of the machine can see
    /// flags.
    ///
    /// Refused beside messages in memory, as are --valkey-cluster=true and --valkey-read-from=replica.
    #[arg(long, value_name = "PLACEMENT", help_heading = VALKEY, value_parser = secret())]
    pub valkey_placement: Option<SecretString>,

    /// A file that holds what --valkey-placement says
    #[arg(long, value_name = "PATH", help_heading = VALKEY)]
    pub valkey_placement_file: Option<PathBuf>,

    /// Whether the server is part of a cluster: `auto` asks it
    ///
    /// The nodes of a relay find the other servers of the cluster by themselves. In a cluster, the keys of a topic
    /// have its name in braces, whatever form is set.
    #[arg(long, value_name = "WHETHER", default_value = "auto", help_heading = VALKEY, ignore_case = true)]
    pub valkey_cluster: InCluster,

    /// Where pages of history are read: on the primary, or on a replica where it has one
    #[arg(long, value_name = "ROLE", default_value = "primary", help_heading = VALKEY, ignore_case = true)]
    pub valkey_read_from: ReadFrom,

    /// How the keys of a topic are written: plain, as in `stream:topic:orders`, or with the name in
    /// braces, as in `stream:topic:{orders}`, by which a cluster keeps all keys of a topic on one server
    ///
    /// All nodes of a server must write them alike. A node does not see the topics of the other form, and
    /// says at start that there are some.
    #[arg(long, value_name = "FORM", default_value = "plain", help_heading = VALKEY, ignore_case = true)]
    pub valkey_key_form: KeyForm,

    /// Milliseconds that a command may take
    #[arg(long, value_name = "MS", default_value = "5000", help_heading = VALKEY, value_parser = ms())]
    pub valkey_timeout_ms: u64,

    /// Milliseconds that connecting may take
    #[arg(long, value_name = "MS", default_value = "2000", help_heading = VALKEY, value_parser = ms())]
    pub valkey_connect_timeout_ms: u64,
}
