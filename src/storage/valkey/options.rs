//! What the Valkey backend needs to know to connect and to bound itself.
//!
//! It does not know where the values came from: `config` makes it from settings, a test by hand.

use std::sync::Arc;
use std::time::Duration;

use tidemill_proto::{Durability, TopicSelector};
use tidemill_tls::ClientIdentity;

use super::login::{Login, PasswordFile};
use super::resolver::{Address, Named, Resolver};
use super::target::Target;

/// How to reach the server, and how much may wait for it.
#[derive(Clone, Debug)]
pub struct ValkeyOptions {
    /// The server.
    pub target: Target,
    /// Who tells where the primary of the target listens.
    pub resolver: Arc<dyn Resolver>,
    /// What the password is read from again, in place of the target's.
    pub password_file: Option<Arc<PasswordFile>>,
    /// How to log in at the sentinels that watch the target.
    pub sentinel_login: Login,
    /// Whether to speak TLS with sentinels.
    pub sentinel_tls: bool,
    /// Certificates (PEM) to trust in place of the system's, for TLS.
    pub ca_pem: Option<Vec<u8>>,
    /// The certificate to show to a server that asks for one, for TLS.
    pub client_identity: Option<ClientIdentity>,
    /// How long a command may take.
    pub timeout: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// Most messages that wait for a pipeline.
    pub queue_messages_max: usize,
    /// Most bytes of messages that wait for a pipeline.
    pub queue_bytes_max: usize,
    /// Whether the server is part of a cluster; `None` asks it. In a cluster, the keys of topics have braces.
    pub cluster: Option<bool>,
    /// Whether pages of history are read from replicas where there are some.
    pub reads_replicas: bool,
    /// How the keys of topics are written. All nodes of a server write them alike.
    pub key_form: KeyForm,
    /// Whether the layout of what is kept is written where a server has none: by relays, and by nobody who only looks.
    pub marks_layout: bool,
    /// How often nodes sweep. Of nodes with the same interval one does the work.
    pub sweep_interval: Duration,
    /// How durable messages are to be whose publishers say nothing of it, where that is more than accepted: what the
    /// server cannot do of it is told.
    pub durabilities: Arc<[DurabilityRule]>,
    /// Servers beside this one, with what lives there; up to [`PLACED_MAX`]. What none of them is said to have is here.
    pub placed: Vec<Placed>,
}

/// How durable messages of some topics are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurabilityRule {
    /// The topics; `None`: all others.
    pub topics: Option<TopicSelector>,
    /// How durable.
    pub durability: Durability,
}

/// A server that has the topics of some names, and whatever else has such a name.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The names. Of several servers that are said to have a name, the first has it.
    pub topics: Vec<TopicSelector>,
    /// The server. It stands alone.
    pub target: Target,
    /// What the password is read from again, in place of the target's.
    pub password_file: Option<Arc<PasswordFile>>,
    /// Whether to speak TLS with sentinels.
    pub sentinel_tls: bool,
}

/// Most servers of [`ValkeyOptions::placed`]: a node has six connections to each, and what is asked of all waits for all.
pub const PLACED_MAX: usize = 16;

/// Most names and patterns of all of them: each operation holds a name against them until one matches.
pub const PLACED_TOPICS_MAX: usize = 256;

impl ValkeyOptions {
    /// Returns options for a server, with everything else at its default.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            sentinel_tls: target.tls,
            target,
            resolver: Arc::new(Named),
            password_file: None,
            sentinel_login: Login::default(),
            ca_pem: None,
            client_identity: None,
            timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            queue_messages_max: 65_536,
            queue_bytes_max: 128 * 1024 * 1024,
            cluster: None,
            reads_replicas: false,
            key_form: KeyForm::Plain,
            marks_layout: false,
            sweep_interval: Duration::from_mins(1),
            durabilities: Arc::default(),
            placed: Vec::new(),
        }
    }

    /// Returns the options for a server beside this one.
    pub(super) fn of_placed(&self, placed: &Placed) -> Self {
        let Placed { target, password_file, sentinel_tls, .. } = placed;
        Self {
            target: target.clone(),
            resolver: Arc::new(Named),
            password_file: password_file.clone(),
            sentinel_tls: *sentinel_tls,
            cluster: Some(false),
            placed: Vec::new(),
            ..self.clone()
        }
    }

    /// Returns the options for a primary of the cluster that the server is part of.
    pub(super) fn of_primary(&self, Address { host, port }: Address) -> Self {
        let target = Target { host, port, others: Vec::new(), watched: None, ..self.target.clone() };
        Self { target, resolver: Arc::new(Named), key_form: KeyForm::Braces, ..self.clone() }
    }

    /// Returns how to log in at the server.
    pub(super) fn login(&self) -> Login {
        Login {
            username: self.target.username.clone(),
            password: self.target.password.clone(),
            file: self.password_file.clone(),
        }
    }
}

impl ValkeyOptions {
    /// Returns where the server is, as it is told from others: host and port, and which database where that is not the
    /// first.
    pub(super) fn place(&self) -> String {
        let named = || {
            let all =
                self.target.hosts().map(|(host, port)| Address { host: host.to_owned(), port }.to_string());
            all.collect::<Vec<_>>().join(",")
        };
        let at = self.resolver.found().map_or_else(named, |address| address.to_string());
        match self.target.database {
            0 => at,
            database => format!("{at}/{database}"),
        }
    }

    /// Returns the server, for the log: without a password.
    pub(super) fn server(&self) -> String {
        self.resolver.found().map_or_else(|| self.target.to_string(), |address| address.to_string())
    }
}

/// How the keys of a topic's stream, of its description and of its last id are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyForm {
    /// `stream:topic:orders`, as other programs expect it.
    Plain,
    /// `stream:topic:{orders}`, so that all keys of a topic live on one server of a cluster.
    Braces,
}
