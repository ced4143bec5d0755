//! Settings: one struct, loaded once: flag, then environment, then file, then default.
//!
//! Long because: it is one struct, in which each setting takes a few lines.
//!
//! The struct below is the single source of every setting's name, help, default and form: the flags,
//! the variables, the keys of the file, `config show`, `config init` and `--help` are made from it.
//! It must not know what the settings do, and it never reads the process environment by itself.
//!
//! | file | owns |
//! |---|---|
//! | `names` | what a setting is called as a flag, as a variable and in the file |
//! | `form` | how values are written: sizes, choices, secrets |
//! | `load` | precedence, relations between settings |
//! | `file` | the configuration file, and those of secrets |
//! | `changes` | what is another in settings that were read again |
//! | `logs` | how much is logged, and how |
//! | `modules` | the modules that log something |
//! | `variables` | names in the environment that nothing reads, and variables that are empty |
//! | `print` | `config show` and the sample file |
//! | `draining` | how clients are let go of |
//! | `durability` | how durable messages are to be |
//! | `log_ins` | how users log in, and whose word is taken for who calls |
//! | `access` | what the settings say of who is let in |
//! | `limits` | what they say of how much may be done in a time |
//! | `sentinels`, `servers` | what they say of sentinels, and of several servers |
//! | `target`, `placement` | which Valkey server the settings name; which has which topics |
//! | `error` | what can be wrong, told by setting, source and rule |

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::{BoolishValueParser, TypedValueParser};
use secrecy::SecretString;
use tidemill_proto::limits::RETENTION_SECONDS_MAX;

use crate::access::TrustedHosts;
use crate::limits::TrustedProxies;

mod access;
mod changes;
mod draining;
mod durability;
mod error;
mod features;
mod file;
mod form;
mod limits;
mod load;
mod log_ins;
mod logs;
mod modules;
mod names;
#[cfg(feature = "valkey")]
mod placement;
mod print;
mod sentinels;
mod servers;
#[cfg(feature = "valkey")]
mod target;
mod variables;

pub use changes::{TAKEN_OVER, Written};
pub use draining::DrainSettings;
pub use durability::{DurabilityRules, DurabilitySettings};
pub use error::{ConfigError, Faults, Origin, Side, Source};
pub use features::FeatureSettings;
pub use form::{
    AccessMode, ApplicationLimitsAway, Backend, InCluster, KeyForm, LimitsAway, MemoryFull, Origins,
    PublicUrl, ReadFrom, SentinelTls,
};
pub use limits::LimitSettings;
pub use load::Flags;
pub use log_ins::LogInSettings;
pub use logs::{LogFormat, LogLevel, LogLevels};
pub use names::{
    CA_CERT_VARIABLE, CONFIG_VARIABLE, Setting, TOKEN_FILE_VARIABLE, TOKEN_VARIABLE, URL_VARIABLE, known,
};
pub use print::{Shown, document, sample, show};
pub use sentinels::SentinelSettings;
pub use servers::ServerSettings;
pub use variables::Environment;

use form::{
    parse_address, parse_bytes, parse_hosts, parse_origins, parse_proxies, parse_public_url, secret, whole,
};
use limits::LIMITS;
use logs::parse_levels;

/// Longest time limit of any kind in milliseconds: a day. Longer ones are mistakes of unit.
const MS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// Largest payload that may be allowed: the largest string that a Valkey server takes by default
/// (`proto-max-bulk-len`).
const PAYLOAD_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Most topics of a stream: their cursors travel in one header.
const STREAM_TOPICS_MAX: u64 = 200;

const LISTENING: &str = "Listening";
const ACCESS: &str = "Access";
const STORAGE: &str = "Storage";
const VALKEY: &str = "Valkey";
const TIMES: &str = "Time limits";
const PROCESS: &str = "Process and logs";

fn ms() -> impl TypedValueParser<Value = u64> {
    whole(1..=MS_MAX)
}

fn count() -> impl TypedValueParser<Value = usize> {
    whole(1..=1_000_000_000)
}

/// Every setting of the relay.
///
/// Made by [`Settings::load`], or with [`Settings::default`] and changed fields in tests.
#[derive(Clone, Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own that operators know")]
pub struct Settings {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", help_heading = LISTENING)]
    #[arg(value_parser = parse_address)]
    pub listen: SocketAddr,

    /// The certificate (PEM) that is shown to clients, with those that it was signed with behind it: with it
    /// and --tls-key the relay speaks TLS, and HTTP/2
    ///
    /// Both files are read again when they change; connections stay.
    ///
    /// Both files are looked at again by themselves.
    #[arg(long, value_name = "PATH", help_heading = LISTENING)]
    pub tls_cert: Option<PathBuf>,

    /// The private key (PEM) of the certificate
    #[arg(long, value_name = "PATH", help_heading = LISTENING)]
    pub tls_key: Option<PathBuf>,

    /// The URL under which others reach this relay. If not given, the host that they have asked for
    ///
    /// It is one as `https://relay.example.com`, with a path behind it where a proxy has one, and what others are told to
    /// open.
    #[arg(long, value_name = "URL", help_heading = LISTENING, value_parser = parse_public_url)]
    pub public_url: Option<PublicUrl>,

    /// Origins whose web pages may use this relay, besides its own, with commas between them, as in
    /// `https://app.example.com`
    ///
    /// They are compared byte for byte, and there are no patterns. A JSON list is taken, too.
    #[arg(long, value_name = "ORIGINS", help_heading = LISTENING, value_parser = parse_origins)]
    pub allowed_origins: Option<Origins>,

    /// Names under which this relay may be called, without ports and with commas between them, as in
    /// `relay.example.com`; `*` for any. If not given, any, but where it listens on this machine alone
    /// `localhost`, what is below it, `127.0.0.0/8` and `[::1]`
    #[arg(long, value_name = "HOSTS", help_heading = LISTENING, value_parser = parse_hosts)]
    pub trusted_hosts: Option<TrustedHosts>,

    /// Proxies that are believed where they tell, in `X-Forwarded-For` or `Forwarded`, who calls through them:
    /// addresses and networks with commas between them, as in `10.0.0.0/8,192.0.2.7`. If not given, none
    #[arg(long, value_name = "NETWORKS", help_heading = LISTENING, value_parser = parse_proxies)]
    pub trusted_proxies: Option<TrustedProxies>,

    /// Whether plain publishes take the fast path, past the HTTP library and the router; nothing else
    /// changes with it
    #[arg(long, value_name = "BOOL", default_value = "true", help_heading = LISTENING)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = BoolishValueParser::new(), action = clap::ArgAction::Set)]
    pub fast_path: bool,

    /// Whether the documents of the API are served: `/docs`, `/openapi.json`, `/asyncapi.json`, `/problems` and `/`
    #[arg(long, value_name = "BOOL", default_value = "true", help_heading = LISTENING)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = BoolishValueParser::new(), action = clap::ArgAction::Set)]
    pub docs: bool,

    /// Whether the console is served, a page for people at `/console`
    #[arg(long, value_name = "BOOL", default_value = "true", help_heading = LISTENING)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = BoolishValueParser::new(), action = clap::ArgAction::Set)]
    pub console: bool,

    /// Whether `/metrics` is served, to administrators
    #[arg(long, value_name = "BOOL", default_value = "true", help_heading = LISTENING)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = BoolishValueParser::new(), action = clap::ArgAction::Set)]
    pub metrics: bool,

    /// Address and port where `/metrics` alone is served, to whoever reaches it; at the other address it is for
    /// administrators
    #[arg(long, value_name = "ADDRESS", help_heading = LISTENING, value_parser = parse_address)]
    pub metrics_listen: Option<SocketAddr>,

    /// Who is let in: everybody, or who has the right to what it does. If not given: everybody where the relay
    /// listens on this machine alone and neither --admin-password nor --jwt-issuers is given; elsewhere who has
    /// the right, and the relay does not start where nobody may administer it
    ///
    /// A proxy or a name by which others reach it counts as listening elsewhere (--trusted-proxies, --trusted-hosts,
    /// --public-url). The line `listening` of the log says which it is, and what decided it.
    #[arg(long, value_name = "WHO", default_value = "auto", help_heading = ACCESS, ignore_case = true)]
    pub access: AccessMode,

    /// The name of the first administrator, who is made with --admin-password where nobody may administer the
    /// relay yet
    #[arg(long, value_name = "NAME", default_value = "admin", help_heading = ACCESS)]
    pub admin_name: String,

    /// The password of the first administrator; with users that are there it changes nothing
    ///
    /// Prefer the variable or a file: other users of the machine can see flags.
    ///
    /// Where somebody may administer the relay, the log says at start that it has no effect.
    #[arg(long, value_name = "PASSWORD", help_heading = ACCESS, value_parser = secret())]
    pub admin_password: Option<SecretString>,

    /// A file that holds the password of --admin-password
    #[arg(long, value_name = "PATH", help_heading = ACCESS)]
    pub admin_password_file: Option<PathBuf>,

    /// The address of mail of the first administrator
    #[arg(long, value_name = "ADDRESS", help_heading = ACCESS)]
    pub admin_email: Option<String>,

    /// How users log in, and whose word is taken for who calls.
    #[command(flatten)]
    pub log_ins: LogInSettings,

    /// Milliseconds for which rights that are known hold while the storage cannot be asked for them; then nobody
    /// is let in
    #[arg(long, value_name = "MS", default_value = "60000", help_heading = ACCESS, value_parser = ms())]
    pub access_stale_ms: u64,

    /// Where messages are kept: in this process, or in a Valkey (or Redis) server
    #[arg(long, value_name = "BACKEND", default_value = "memory", help_heading = STORAGE, ignore_case = true)]
    pub storage_backend: Backend,

    /// Messages that a topic keeps at least, once it has had as many; older ones are trimmed
    ///
    /// Where groups have not acknowledged them, a topic keeps ten times as many at most.
    #[arg(long, value_name = "COUNT", default_value = "1000000", help_heading = STORAGE)]
    #[arg(value_parser = whole::<u64>(1..=i64::MAX.unsigned_abs()))]
    pub max_messages_per_topic: u64,

    /// Seconds after which messages are removed, where their topic does not say otherwise; 0 keeps
    /// them
    #[arg(long, value_name = "SECONDS", default_value = "86400", help_heading = STORAGE)]
    #[arg(value_parser = whole::<u64>(0..=RETENTION_SECONDS_MAX))]
    pub persistent_tier_retention: u64,

    /// How durable messages are to be.
    #[command(flatten)]
    pub durability: DurabilitySettings,

    /// Whether the first publish to a topic creates it
    #[arg(long, value_name = "BOOL", default_value = "true", help_heading = STORAGE)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = BoolishValueParser::new(), action = clap::ArgAction::Set)]
    pub topic_auto_create: bool,

    /// Most topics there may be
    #[arg(long, value_name = "COUNT", default_value = "250000", help_heading = STORAGE)]
    #[arg(value_parser = whole::<u64>(1..=1_000_000_000))]
    pub topics_max: u64,

    /// Seconds for which an idempotency key is remembered
    #[arg(long, value_name = "SECONDS", default_value = "600", help_heading = STORAGE)]
    #[arg(value_parser = whole::<u64>(1..=2_592_000))]
    pub idempotency_window_seconds: u64,

    /// Memory backend: bytes of idempotency keys that it remembers at most; past it a publish under a new
    /// one is refused
    ///
    /// A key takes about 300 bytes and its text. What is refused is 507 with the field `Idempotency-Key`; `tidemill
    /// publish` and the client library then go on without the keys that they make up.
    #[arg(long, value_name = "BYTES", default_value = "128MiB", help_heading = STORAGE)]
    #[arg(value_parser = parse_bytes)]
    pub idempotency_bytes_max: usize,

    /// Milliseconds between two sweeps for messages past their retention
    #[arg(long, value_name = "MS", default_value = "60000", help_heading = STORAGE)]
    #[arg(value_parser = ms())]
    pub sweep_interval_ms: u64,

    /// Memory backend: bytes of messages that it keeps at most
    #[arg(long, value_name = "BYTES", default_value = "1GiB", help_heading = STORAGE)]
    #[arg(value_parser = parse_bytes)]
    pub memory_bytes_max: usize,

    /// Memory backend: what happens when it is full: trim the oldest messages of the largest topic,
    /// or refuse new ones
    #[arg(long, value_name = "POLICY", default_value = "trim", help_heading = STORAGE, ignore_case = true)]
    pub memory_full: MemoryFull,

    /// The server, as in `redis://[user:password@]host[:port][/database]`; rediss:// or valkeys:// for
    /// TLS
    ///
    /// Wins over --redis-url, which wins over --valkey-host and its companions. The schemes are redis,
    /// valkey, and with TLS rediss, valkeys. Of several hosts with commas between them the one that is the
    /// primary is used. With valkey+sentinel:// (or the other schemes with +sentinel) the hosts are those
    /// of sentinels, and the name by which they know the server stands behind them, as in
    /// `valkey+sentinel://h1,h2,h3/name[/database]`. Prefer the variable or a file: other users of the
    /// machine can see flags.
    #[arg(long, value_name = "URL", help_heading = VALKEY, value_parser = secret())]
    pub valkey_url: Option<SecretString>,

    /// A file that holds the URL of --valkey-url
    #[arg(long, value_name = "PATH", help_heading = VALKEY)]
    pub valkey_url_file: Option<PathBuf>,

    /// The server, where --valkey-url is not given
    #[arg(long, value_name = "URL", help_heading = VALKEY, value_parser = secret())]
    pub redis_url: Option<SecretString>,

    /// A file that holds the URL of --redis-url
    #[arg(long, value_name = "PATH", help_heading = VALKEY)]
    pub redis_url_file: Option<PathBuf>,

    /// The server's host, where no URL is given
    #[arg(long, value_name = "HOST", default_value = "localhost", help_heading = VALKEY)]
    pub valkey_host: String,

    /// The server's port, where no URL is given
    #[arg(long, value_name = "PORT", default_value = "6379", help_heading = VALKEY)]
    #[arg(value_parser = whole::<u16>(1..=65_535))]
    pub valkey_port: u16,

    /// The ACL user to log in as, where no URL says so
    #[arg(long, value_name = "NAME", help_heading = VALKEY)]
    pub valkey_username: Option<String>,

    /// The password to log in with, where no URL says so
    ///
    /// Prefer the variable or a file: other users of the machine can see flags.
    #[arg(long, value_name = "PASSWORD", help_heading = VALKEY, value_parser = secret())]
    pub valkey_password: Option<SecretString>,

    /// A file that holds the password of --valkey-password
    ///
    /// It is read again while the relay runs: where the password in it changes, connections log in again.
    #[arg(long, value_name = "PATH", help_heading = VALKEY)]
    pub valkey_password_file: Option<PathBuf>,

    /// Whether to speak TLS, where no URL says so
    #[arg(long, value_name = "BOOL", default_value = "false", help_heading = VALKEY)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = BoolishValueParser::new(), action = clap::ArgAction::Set)]
    pub valkey_use_tls: bool,

    /// How to speak with sentinels.
    #[command(flatten)]
    pub sentinels: SentinelSettings,

    /// Certificates (PEM) to trust in place of the system's
    #[arg(long, value_name = "PATH", help_heading = VALKEY)]
    pub valkey_ca_path: Option<PathBuf>,

    /// The client certificate (PEM), for a server that asks for one
    #[arg(long, value_name = "PATH", help_heading = VALKEY)]
    pub valkey_client_cert_path: Option<PathBuf>,

    /// The private key (PEM) of the client certificate
    #[arg(long, value_name = "PATH", help_heading = VALKEY)]
    pub valkey_client_key_path: Option<PathBuf>,

    /// The database index, where no URL is given
    #[arg(long, value_name = "INDEX", default_value = "0", help_heading = VALKEY)]
    #[arg(value_parser = whole::<u32>(0..=u64::from(u32::MAX)))]
    pub valkey_database: u32,

    /// Which servers there are beside that one, and what is the same on all.
    #[command(flatten)]
    pub servers: ServerSettings,

    /// Most messages that wait to be sent to the server
    ///
    /// Past it publishing is 503.
    #[arg(long, value_name = "COUNT", default_value = "65536", help_heading = VALKEY)]
    #[arg(value_parser = count())]
    pub publish_queue_messages_max: usize,

    /// Most bytes of messages that wait to be sent to the server
    ///
    /// Past it publishing is 503.
    #[arg(long, value_name = "BYTES", default_value = "128MiB", help_heading = VALKEY)]
    #[arg(value_parser = parse_bytes)]
    pub publish_queue_bytes_max: usize,

    /// Refuse a server whose eviction policy can delete messages (anything but noeviction)
    #[arg(long, value_name = "BOOL", default_value = "false", help_heading = VALKEY)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = BoolishValueParser::new(), action = clap::ArgAction::Set)]
    pub strict: bool,

    /// Largest payload of a message
    ///
    /// Beyond the default, readers on WebSockets have to be told to take larger frames.
    #[arg(long, value_name = "BYTES", default_value = "704KiB", help_heading = LIMITS)]
    #[arg(value_parser = parse_bytes)]
    pub payload_bytes_max: usize,

    /// Largest body of a request
    #[arg(long, value_name = "BYTES", default_value = "32MiB", help_heading = LIMITS)]
    #[arg(value_parser = parse_bytes)]
    pub max_body_bytes: usize,

    /// Most bytes that are held at one time of what clients send and are answered, over all connections:
    /// bodies, pages, and messages of WebSockets, whole or not
    ///
    /// Past it requests are 503 `overloaded`, and WebSockets are closed with the code 1013.
    #[arg(long, value_name = "BYTES", default_value = "256MiB", help_heading = LIMITS)]
    #[arg(value_parser = parse_bytes)]
    pub inflight_bytes_max: usize,

    /// Most bytes of a request's headers
    #[arg(long, value_name = "BYTES", default_value = "16KiB", help_heading = LIMITS)]
    #[arg(value_parser = parse_bytes)]
    pub headers_bytes_max: usize,

    /// Most connections
    #[arg(long, value_name = "COUNT", default_value = "20000", help_heading = LIMITS)]
    #[arg(value_parser = count())]
    pub connections_max: usize,

    /// Most connections from one address
    ///
    /// Lower it where clients come directly; behind a load balancer all have its address.
    #[arg(long, value_name = "COUNT", default_value = "10000", help_heading = LIMITS)]
    #[arg(value_parser = count())]
    pub connections_per_address_max: usize,

    /// Bytes of frames that a live stream holds for its client, about; a slower one reads on later
    #[arg(long, value_name = "BYTES", default_value = "256KiB", help_heading = LIMITS)]
    #[arg(value_parser = parse_bytes)]
    pub subscriber_bytes_max: usize,

    /// Most bytes that are held for live readers that do not take them at once, over all connections; a
    /// message that has no room is read when there is some
    #[arg(long, value_name = "BYTES", default_value = "48MiB", help_heading = LIMITS)]
    #[arg(value_parser = parse_bytes)]
    pub pending_bytes_max: usize,

    /// Most bytes that the newest messages of all topics that are read live take; readers of what has no room
    /// read it of the backend
    ///
    /// Each byte of a message takes three there.
    #[arg(long, value_name = "BYTES", default_value = "256MiB", help_heading = LIMITS)]
    #[arg(value_parser = parse_bytes)]
    pub live_bytes_max: usize,

    /// Most topics that are read live on this node at one time; one that is waited for counts
    ///
    /// Past it a live read of one more is 503 `overloaded`.
    #[arg(long, value_name = "COUNT", default_value = "250000", help_heading = LIMITS, value_parser = count())]
    pub live_topics_max: usize,

    /// Most topics of one stream of server-sent events, at most 200
    #[arg(long, value_name = "COUNT", default_value = "50", help_heading = LIMITS)]
    #[arg(value_parser = whole::<usize>(1..=STREAM_TOPICS_MAX))]
    pub stream_topics_max: usize,

    /// Most topics that one WebSocket reads, what it watches counted with them
    #[arg(long, value_name = "COUNT", default_value = "100", help_heading = LIMITS, value_parser = count())]
    pub ws_topics_max: usize,

    /// Most publishes of one WebSocket that wait for their answer; past it the socket is not read
    #[arg(long, value_name = "COUNT", default_value = "1024", help_heading = LIMITS, value_parser = count())]
    pub ws_publishes_max: usize,

    /// How much may be done in a time.
    #[command(flatten)]
    pub limits: LimitSettings,

    /// What is done beside publishing and reading.
    #[command(flatten)]
    pub beside: FeatureSettings,

    /// Milliseconds without a sign of life of a WebSocket after which the relay asks for one
    #[arg(long, value_name = "MS", default_value = "20000", help_heading = TIMES, value_parser = ms())]
    pub ws_ping_interval_ms: u64,

    /// Milliseconds after which a WebSocket that was asked for a sign of life and gave none is closed
    #[arg(long, value_name = "MS", default_value = "10000", help_heading = TIMES, value_parser = ms())]
    pub ws_ping_timeout_ms: u64,

    /// Milliseconds in which a message that a client has begun to send over a WebSocket must arrive whole
    ///
    /// Past it the socket is closed with the code 4501.
    #[arg(long, value_name = "MS", default_value = "30000", help_heading = TIMES, value_parser = ms())]
    pub ws_message_timeout_ms: u64,

    /// Milliseconds in which a request's headers must arrive; an idle connection is closed after them
    #[arg(long, value_name = "MS", default_value = "30000", help_heading = TIMES, value_parser = ms())]
    pub header_timeout_ms: u64,

    /// Milliseconds in which a request's body must arrive
    #[arg(long, value_name = "MS", default_value = "30000", help_heading = TIMES, value_parser = ms())]
    pub body_timeout_ms: u64,

    /// Milliseconds that a client may take to accept more of its answer
    #[arg(long, value_name = "MS", default_value = "30000", help_heading = TIMES, value_parser = ms())]
    pub write_timeout_ms: u64,

    /// How it lets go of its clients.
    #[command(flatten)]
    pub draining: DrainSettings,

    /// How much the relay logs: `error`, `warn`, `info`, `debug` or `trace`; and behind it, with commas, how much of modules
    /// of it, as in `info,tidemill::storage=debug`. Of libraries no more than warnings is logged
    ///
    /// A module is what stands as `target` in the log.
    #[arg(long, value_name = "LEVELS", default_value = "info", help_heading = PROCESS, value_parser = parse_levels)]
    pub log_level: LogLevels,

    /// How it is logged; auto is text on a terminal, else JSON
    #[arg(long, value_name = "FORMAT", default_value = "auto", help_heading = PROCESS, ignore_case = true)]
    pub log_format: LogFormat,

    /// Milliseconds past which a publish, a read or a command is noted as slow; 0 notes none
    #[arg(long, value_name = "MS", default_value = "100", value_parser = whole::<u64>(0..=MS_MAX), help_heading = PROCESS)]
    pub slow_ms: u64,

    /// Threads that do the work; one per core, if not given
    #[arg(long, value_name = "COUNT", help_heading = PROCESS)]
    #[arg(value_parser = whole::<usize>(1..=1_024))]
    pub worker_threads: Option<usize>,

    /// The values as they were written.
    #[arg(skip)]
    written: Written,

    /// Where the values came from, by setting; a setting that is absent here has its default.
    #[arg(skip)]
    pub origins: BTreeMap<&'static str, Origin>,

    /// What the operator should know about the settings, in sentences, to be logged at start.
    #[arg(skip)]
    pub warnings: Vec<String>,
}
