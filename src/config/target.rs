//! Which Valkey server the settings name, and how to connect to it.
//!
//! It must not know the client library: it makes the backend's own options.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::placement::PlacedAt;
use super::{ConfigError, DurabilityRules, Settings, Source};
use crate::config;
use crate::storage::valkey::target::{Target, parse_host};
use crate::storage::valkey::{
    ClientIdentity, DurabilityRule, KeyForm, Login, PasswordFile, Placed, TargetError, ValkeyOptions,
};

impl Settings {
    /// Returns what the Valkey backend needs to connect, with the certificate files read.
    ///
    /// # Errors
    /// A URL is broken, settings contradict each other, or a file cannot be read.
    pub fn valkey_options(&self) -> Result<ValkeyOptions, ConfigError> {
        let target = self.valkey_target()?;
        let client_identity = match (&self.valkey_client_cert_path, &self.valkey_client_key_path) {
            (Some(certificate), Some(key)) => Some(ClientIdentity {
                certificate_pem: self.read_pem("valkey_client_cert_path", certificate, &CERTIFICATE)?,
                key_pem: self.read_pem("valkey_client_key_path", key, &KEY)?,
            }),
            (Some(_), None) => return Err(self.alone("valkey_client_cert_path", "valkey_client_key_path")),
            (None, Some(_)) => return Err(self.alone("valkey_client_key_path", "valkey_client_cert_path")),
            (None, None) => None,
        };
        let sentinels = &self.sentinels;
        let sentinel_login = Login {
            username: sentinels.valkey_sentinel_username.clone(),
            password: sentinels.valkey_sentinel_password.clone(),
            file: self.password_file(
                ("valkey_sentinel_password", sentinels.valkey_sentinel_password.as_ref()),
                ("valkey_sentinel_password_file", sentinels.valkey_sentinel_password_file.as_ref()),
            ),
        };
        let placed =
            self.placement(&target)?.into_iter().map(|PlacedAt { topics, target, has_password }| Placed {
                topics,
                password_file: self.server_password_file(&target, has_password),
                sentinel_tls: self.speaks_tls_with_sentinels(&target),
                target,
            });
        let placed = placed.collect();
        let read_ca = |path| self.read_pem("valkey_ca_path", path, &CERTIFICATE);
        let ca_pem = self.valkey_ca_path.as_ref().map(read_ca).transpose()?;
        Ok(ValkeyOptions {
            password_file: self.server_password_file(&target, self.has_password_in_url()),
            sentinel_login,
            sentinel_tls: self.speaks_tls_with_sentinels(&target),
            ca_pem,
            client_identity,
            timeout: Duration::from_millis(self.servers.valkey_timeout_ms),
            connect_timeout: Duration::from_millis(self.servers.valkey_connect_timeout_ms),
            cluster: match self.servers.valkey_cluster {
                config::InCluster::Auto => None,
                config::InCluster::True => Some(true),
                config::InCluster::False => Some(false),
            },
            reads_replicas: self.servers.valkey_read_from == config::ReadFrom::Replica,
            key_form: match self.servers.valkey_key_form {
                config::KeyForm::Plain => KeyForm::Plain,
                config::KeyForm::Braces => KeyForm::Braces,
            },
            queue_messages_max: self.publish_queue_messages_max,
            queue_bytes_max: self.publish_queue_bytes_max,
            sweep_interval: Duration::from_millis(self.sweep_interval_ms),
            durabilities: self.durabilities(),
            placed,
            ..ValkeyOptions::new(target)
        })
    }

    /// Returns the server: of `valkey_url`, else of `redis_url`, else of `valkey_host` and its
    /// companions. User name and password of the companions also serve a URL that has none, so that a
    /// URL can stand in the open and the password in a file.
    ///
    /// # Errors
    /// A URL is broken, or contradicts another setting.
    pub fn valkey_target(&self) -> Result<Target, ConfigError> {
        let sentinels = &self.sentinels;
        if sentinels.valkey_sentinel_username.is_some() && sentinels.valkey_sentinel_password.is_none() {
            return Err(self.alone("valkey_sentinel_username", "valkey_sentinel_password"));
        }
        let Some((id, url)) = self.url() else { return self.target_of_parts() };
        let target = self.target_of_url(id, url.expose_secret(), |rule| self.breaks(id, rule))?;
        if target.watched.is_some() && self.servers.valkey_cluster == config::InCluster::True {
            return Err(ConfigError::relation(
                (format!("{id} with +sentinel"), self.source(id)),
                "names sentinels, which watch a server that stands alone, and contradicts",
                ("valkey_cluster = true".to_owned(), self.source("valkey_cluster")),
            ));
        }
        Ok(target)
    }

    /// Returns the server of a URL that a setting has.
    ///
    /// # Errors
    /// It is broken, which `wrong` makes an error of, or contradicts another setting.
    pub(super) fn target_of_url(
        &self,
        id: &'static str,
        url: &str,
        wrong: impl FnOnce(String) -> ConfigError,
    ) -> Result<Target, ConfigError> {
        let mut target = Target::parse(url).map_err(|error| wrong(error.to_string()))?;
        if target.password.is_none() && self.valkey_password.is_some() {
            target.username.clone_from(&self.valkey_username);
            target.password.clone_from(&self.valkey_password);
        }
        // Speaking in the clear where TLS was asked for is the one contradiction that does harm.
        if self.valkey_use_tls && !target.tls {
            return Err(ConfigError::relation(
                ("valkey_use_tls = true".to_owned(), self.source("valkey_use_tls")),
                "contradicts the scheme (write rediss:// or valkeys://) of",
                (id.to_owned(), self.source(id)),
            ));
        }
        Ok(target)
    }

    /// Returns how durable messages are to be, where that is more than accepted.
    fn durabilities(&self) -> Arc<[DurabilityRule]> {
        let settings = &self.durability;
        let of_topics = settings.durability_topics.iter().flat_map(DurabilityRules::as_slice);
        let of_topics = of_topics.map(|(topics, durability)| DurabilityRule {
            topics: Some(topics.clone()),
            durability: *durability,
        });
        let of_node = DurabilityRule { topics: None, durability: settings.durability };
        of_topics.chain([of_node]).filter(|rule| !rule.durability.is_accepted()).collect()
    }

    /// Returns whether there is a server to be looked at: messages are kept in it, or it is named, and nothing says
    /// that they are kept in memory.
    #[must_use]
    pub fn is_about_a_server(&self) -> bool {
        let named =
            ["valkey_url", "redis_url", "valkey_host", "valkey_port", "valkey_database", "valkey_placement"];
        match self.storage_backend {
            config::Backend::Valkey => true,
            config::Backend::Memory => {
                self.source("storage_backend") == Source::Default
                    && named.into_iter().any(|part| self.source(part) != Source::Default)
            }
        }
    }

    /// Checks that nothing asks for more than one server, or for more of it than that it is there, where it is said that
    /// messages are kept in memory. What only names a server is no contradiction: it may be there for when it is used.
    pub(super) fn check_memory(&self) -> Result<(), ConfigError> {
        let servers = &self.servers;
        let asked = [
            ("valkey_placement", servers.valkey_placement.is_some()),
            ("valkey_cluster", servers.valkey_cluster == config::InCluster::True),
            ("valkey_read_from", servers.valkey_read_from == config::ReadFrom::Replica),
        ];
        let is_chosen = self.source("storage_backend") != Source::Default;
        let asked = asked.into_iter().find(|(_, is_asked)| *is_asked);
        match asked.filter(|_| is_chosen && self.storage_backend == config::Backend::Memory) {
            Some((setting, _)) => Err(ConfigError::relation(
                (setting.to_owned(), self.source(setting)),
                "is for servers, and contradicts",
                ("storage_backend = memory".to_owned(), self.source("storage_backend")),
            )),
            None => Ok(()),
        }
    }

    /// Returns a sentence where a server is named and messages are kept in memory, which nobody asked for: most
    /// likely one setting was forgotten.
    pub(super) fn unused_server(&self) -> Option<String> {
        let is_chosen = self.source("storage_backend") != Source::Default;
        let named = ["valkey_url", "redis_url", "valkey_host", "valkey_placement"]
            .into_iter()
            .find(|part| self.source(part) != Source::Default)?;
        (!is_chosen && self.storage_backend == config::Backend::Memory).then(|| {
            format!(
                "{named} (from {}) has no effect: messages are kept in memory, and are gone when the process ends; to keep them in that server, set STORAGE_BACKEND=valkey",
                self.source(named)
            )
        })
    }

    /// Returns what was set about the server and has no effect, in sentences.
    pub(super) fn valkey_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some((id, _)) = self.url() {
            for part in ["valkey_host", "valkey_port", "valkey_database"] {
                if self.source(part) != Source::Default {
                    warnings.push(format!(
                        "{part} (from {}) has no effect: {id} (from {}) names the server",
                        self.source(part),
                        self.source(id)
                    ));
                }
            }
        }
        let mut targets: Vec<Target> = self.valkey_target().into_iter().collect();
        let beside = targets.first().and_then(|first| self.placement(first).ok()).unwrap_or_default();
        targets.extend(beside.into_iter().map(|beside| beside.target));
        if !targets.is_empty() && targets.iter().all(|target| target.watched.is_none()) {
            let settings = [
                "valkey_sentinel_username",
                "valkey_sentinel_password",
                "valkey_sentinel_password_file",
                "valkey_sentinel_use_tls",
            ];
            let set = settings.into_iter().filter(|setting| self.source(setting) != Source::Default);
            warnings.extend(set.map(|setting| {
                let from = self.source(setting);
                format!("{setting} (from {from}) has no effect: no URL names sentinels (valkey+sentinel://)")
            }));
        }
        let of_sentinels = self.sentinels.valkey_sentinel_use_tls == config::SentinelTls::True;
        let speaks_tls = targets.iter().any(|target| target.tls || of_sentinels && target.watched.is_some());
        for file in ["valkey_ca_path", "valkey_client_cert_path", "valkey_client_key_path"] {
            if !speaks_tls && self.source(file) != Source::Default {
                warnings.push(format!(
                    "{file} (from {}) has no effect: the connection to the server does not use TLS",
                    self.source(file)
                ));
            }
        }
        warnings
    }

    /// Returns whether the URL that names the server has a password.
    fn has_password_in_url(&self) -> bool {
        let target = self.url().map(|(_, url)| Target::parse(url.expose_secret()));
        target.and_then(Result::ok).is_some_and(|target| target.password.is_some())
    }

    /// Returns the file in which the password of a server was found, if it was in one: what stands in a URL does not
    /// change.
    fn server_password_file(&self, target: &Target, is_in_url: bool) -> Option<Arc<PasswordFile>> {
        let is_of_settings = target.password.is_some() && !is_in_url;
        self.password_file(
            ("valkey_password", self.valkey_password.as_ref().filter(|_| is_of_settings)),
            ("valkey_password_file", self.valkey_password_file.as_ref()),
        )
    }

    fn speaks_tls_with_sentinels(&self, target: &Target) -> bool {
        match self.sentinels.valkey_sentinel_use_tls {
            config::SentinelTls::Auto => target.tls,
            config::SentinelTls::True => true,
            config::SentinelTls::False => false,
        }
    }

    /// Returns the file in which a password was found, if it was in one.
    fn password_file(
        &self,
        (password, found): (&'static str, Option<&SecretString>),
        (file, path): (&'static str, Option<&PathBuf>),
    ) -> Option<Arc<PasswordFile>> {
        // One that is said directly may stand before a file.
        let is_in_it = self.source(password) == self.source(file);
        let (found, path) = found.zip(path).filter(|_| is_in_it)?;
        Some(Arc::new(PasswordFile::new(path.clone(), found.clone())))
    }

    fn url(&self) -> Option<(&'static str, &SecretString)> {
        let valkey = self.valkey_url.as_ref().map(|url| ("valkey_url", url));
        valkey.or_else(|| self.redis_url.as_ref().map(|url| ("redis_url", url)))
    }

    fn target_of_parts(&self) -> Result<Target, ConfigError> {
        if self.valkey_username.is_some() && self.valkey_password.is_none() {
            return Err(self.alone("valkey_username", "valkey_password"));
        }
        let host = parse_host(&self.valkey_host).map_err(|error| self.refuse("valkey_host", error))?;
        Ok(Target {
            host,
            port: self.valkey_port,
            others: Vec::new(),
            watched: None,
            username: self.valkey_username.clone(),
            password: self.valkey_password.clone(),
            tls: self.valkey_use_tls,
            database: self.valkey_database,
        })
    }

    fn refuse(&self, setting: &'static str, error: TargetError) -> ConfigError {
        self.breaks(setting, error.to_string())
    }

    fn alone(&self, setting: &'static str, missing: &str) -> ConfigError {
        self.breaks(setting, format!("needs {missing} beside it"))
    }

    fn read_pem(
        &self,
        setting: &'static str,
        path: &PathBuf,
        labels: &[&str],
    ) -> Result<Vec<u8>, ConfigError> {
        let text = std::fs::read(path).map_err(|cause| ConfigError::Unreadable {
            what: format!("{setting} (from {}):", self.source(setting)),
            path: path.clone(),
            cause,
        })?;
        // The client library would not say which of the files it cannot use.
        if labels.iter().any(|label| has_pem_block(&text, label)) {
            return Ok(text);
        }
        let rule =
            format!("names {}, which has no PEM block `-----BEGIN {}-----`", path.display(), labels[0]);
        Err(self.breaks(setting, rule))
    }
}

/// What a PEM block with a certificate is called.
const CERTIFICATE: [&str; 1] = ["CERTIFICATE"];

/// What a PEM block with a private key is called, in the forms that the TLS library reads.
const KEY: [&str; 3] = ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];

/// Returns whether a text has a PEM block (RFC 7468) of this name.
fn has_pem_block(text: &[u8], label: &str) -> bool {
    let has_line =
        |wanted: &str| text.split(|byte| *byte == b'\n').any(|line| line.trim_ascii() == wanted.as_bytes());
    has_line(&format!("-----BEGIN {label}-----")) && has_line(&format!("-----END {label}-----"))
}
