//! Settings that are read again while the relay runs, and what is taken over of them without a restart.
//!
//! It must not know who asks for it, nor where settings are read.

use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tidemill_proto::Timestamp;
use tidemill_proto::reload::Reloaded;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::certificate::Seen;
use super::checking::{Standing, check, sentence, standing, wrong_certificate};
use super::{Certificate, Server};
use crate::access::{Mode, TrustedHosts, WebRules};
use crate::clock::Clock;
use crate::config::{Faults, LogLevels, Origins, Settings, Source, TAKEN_OVER, Written, known};
use crate::http::{Http, ReloadAsked};
use crate::limits::{Kept, KeptBound, LimitOptions, TrustedProxies};
use crate::metrics::Metrics;
use crate::slow::Slow;
use crate::storage::AccessStore;

/// Those of them that may decide whether everybody is let in, which holds until a restart.
const DECIDING: [&str; 2] = ["trusted_hosts", "trusted_proxies"];

/// Passwords that are taken over by themselves where they stand in a file.
const WATCHED: [[&str; 2]; 2] = [
    ["valkey_password", "valkey_password_file"],
    ["valkey_sentinel_password", "valkey_sentinel_password_file"],
];

/// How the settings are read again.
pub struct Again {
    /// Reads all of them.
    pub load: Arc<dyn Fn() -> Result<Settings, Faults> + Send + Sync>,
    /// Has the log tell this much.
    pub log: Box<dyn Fn(&LogLevels) + Send + Sync>,
}

impl fmt::Debug for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Again").finish_non_exhaustive()
    }
}

/// Where whom the storage knows is asked.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    access: Arc<dyn AccessStore>,
    clock: Clock,
}

impl Asking {
    pub(super) fn new(access: Arc<dyn AccessStore>, clock: Clock) -> Self {
        Self { access, clock }
    }
}

/// What settings say of what can be changed while a relay runs.
pub(super) struct Changeable {
    pub(super) limits: LimitOptions,
    pub(super) kept: Vec<KeptBound>,
    pub(super) proxies: TrustedProxies,
    pub(super) web: WebRules,
    /// Past which time an operation is noted as slow.
    pub(super) slow: Duration,
}

impl Changeable {
    /// Returns what these settings say, for a relay that listens at `address` and lets callers in by `mode`.
    pub(super) fn of(settings: &Settings, address: IpAddr, mode: Mode) -> Self {
        let origins = settings.allowed_origins.iter().flat_map(Origins::iter).map(str::to_owned);
        let hosts = match settings.trusted_hosts.clone() {
            Some(hosts) => hosts.at(address),
            None => TrustedHosts::of_open_relay(address),
        };
        Self {
            limits: settings.limits.options(mode),
            kept: settings
                .limits
                .limit_kept_bytes
                .as_ref()
                .map_or_else(Vec::new, |all| all.as_slice().to_vec()),
            proxies: settings.trusted_proxies.clone().unwrap_or_default(),
            web: WebRules::new(origins, hosts),
            slow: Duration::from_millis(settings.slow_ms),
        }
    }
}

/// What of a server can be changed while it runs.
pub(super) struct Parts {
    http: Http,
    kept: Kept,
    slow: Slow,
    metrics: Metrics,
}

impl Parts {
    pub(super) fn of(server: &Server) -> Self {
        let (http, relay) = (server.http.clone(), &server.relay);
        let (kept, slow) = (relay.kept().clone(), relay.slow().clone());
        Self { http, kept, slow, metrics: server.metrics.clone() }
    }

    fn change(&self, now: Changeable, is_as_open: bool) {
        let entrance = self.http.entrance();
        entrance.limits().change(&now.limits);
        self.kept.change(&now.kept);
        self.slow.change(now.slow);
        if is_as_open {
            entrance.trust(now.proxies);
            self.http.admit_pages(now.web);
        }
    }
}

/// Reads the settings again, whenever that is asked for.
#[derive(Debug)]
pub(super) struct Reloading {
    again: Again,
    asking: Asking,
    /// The settings that hold.
    in_force: Written,
    address: IpAddr,
    mode: Mode,
    asked: mpsc::Receiver<ReloadAsked>,
}

impl Reloading {
    pub(super) fn new(
        settings: &Settings,
        again: Again,
        asking: Asking,
        asked: mpsc::Receiver<ReloadAsked>,
    ) -> Self {
        let in_force = settings.written().clone();
        Self { again, asking, in_force, address: settings.listen.ip(), mode: mode(settings), asked }
    }

    /// Serves those who ask, one after the other, for ever. `replaced` is told until when a new certificate is good.
    pub(super) async fn serve(
        mut self,
        parts: &Parts,
        certificate: Option<&Certificate>,
        replaced: impl Fn(Option<Timestamp>),
    ) -> Infallible {
        while let Some(ReloadAsked { by, answer }) = self.asked.recv().await {
            let told = self.reload(parts, certificate, &replaced).await;
            parts.metrics.node().reloaded(told.is_ok());
            match &told {
                Ok(Reloaded { changed, needs_restart, unchanged }) => {
                    let (changed, needs_restart) = (changed.join(", "), needs_restart.join(", "));
                    tracing::info!(by, changed, needs_restart, unchanged, "settings read again");
                }
                Err(error) => tracing::warn!(by, error, "settings read again are wrong; nothing was changed"),
            }
            // Who asked may have gone.
            let _ = answer.send(told);
        }
        std::future::pending().await
    }

    /// Reads the settings, and takes over what can be, or says what is wrong.
    async fn reload(
        &mut self,
        parts: &Parts,
        certificate: Option<&Certificate>,
        replaced: impl Fn(Option<Timestamp>),
    ) -> Result<Reloaded, String> {
        let load = self.again.load.clone();
        let read = spawn_blocking(move || load().and_then(check)).await;
        let read = read.map_err(|_| "they cannot be read".to_owned())?;
        let settings = read.map_err(|faults| {
            faults.errors.iter().map(|error| sentence(error)).collect::<Vec<_>>().join("; ")
        })?;
        let is_as_open = mode(&settings) == self.mode;
        let differing = self.in_force.differing(settings.written());
        if !settings.is_open() && settings.admin_password.is_none() && !differing.iter().any(names_storage) {
            let Asking { access, clock } = &self.asking;
            // One that does not tell is asked again at the next start.
            if let Standing::Nobody(error) = standing(&settings, &**access, clock.now()).await {
                return Err(sentence(&error));
            }
        }
        let seen = match certificate {
            Some(certificate) => {
                certificate.look().await.map_err(|error| sentence(&wrong_certificate(&settings, error)))?
            }
            None => Seen::Same,
        };

        let unchanged = known().len() - differing.len();
        let is_taken = |id: &&str| {
            TAKEN_OVER.contains(id) && (is_as_open || !DECIDING.contains(id))
                || is_watched(&settings, &differing, id)
        };
        let (taken, needs_restart): (Vec<_>, Vec<_>) = differing.iter().copied().partition(is_taken);
        if !taken.is_empty() {
            parts.change(Changeable::of(&settings, self.address, self.mode), is_as_open);
            (self.again.log)(&settings.log_level);
            for id in &taken {
                self.in_force.take_over(id, settings.written());
            }
        }
        let names = |ids: Vec<&str>| ids.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let mut changed = names(taken);
        if let Seen::Replaced(good_until) = seen {
            replaced(good_until);
            changed.push("tls_cert".to_owned());
        }
        let unchanged = u32::try_from(unchanged).unwrap_or(u32::MAX);
        Ok(Reloaded { changed, needs_restart: names(needs_restart), unchanged })
    }
}

fn mode(settings: &Settings) -> Mode {
    if settings.is_open() { Mode::Open } else { Mode::Closed }
}

/// Returns whether a setting says which storage there is: of another one nobody is asked here whom it knows.
fn names_storage(id: &&str) -> bool {
    ["storage_backend", "redis_url"].contains(id) || id.starts_with("valkey_")
}

/// Returns whether this is a password whose file is the same, and is looked at by who uses it.
fn is_watched(settings: &Settings, differing: &[&str], id: &str) -> bool {
    WATCHED.iter().any(|[password, file]| {
        let from = settings.source(file);
        *password == id && !differing.contains(file) && from != Source::Default && settings.source(id) == from
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_over_are_settings() {
        let passwords = WATCHED.iter().flatten();
        for id in TAKEN_OVER.iter().chain(&DECIDING).chain(passwords) {
            assert!(known().iter().any(|setting| setting.id == *id), "{id}");
        }
        let limits = known().iter().filter(|setting| setting.id.starts_with("limit"));
        for setting in limits {
            assert!(TAKEN_OVER.contains(&setting.id), "{}", setting.id);
        }
    }
}
