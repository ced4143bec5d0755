//! `tidemill reload`: has a relay read its settings again.

use reqwest::Method;
use tidemill_proto::reload::Reloaded;

use super::CliError;
use super::client::Relay;
use super::output::{self, Output};
use crate::config::Environment;

const EXAMPLES: &str = "\
The relay reads its file, and the files of secrets; variables and flags are those with which it was
started. It takes over what needs no restart: the level of the log, the limits of callers
(TIDEMILL_LIMIT_…), ALLOWED_ORIGINS, TRUSTED_HOSTS and TRUSTED_PROXIES, its certificate, and the
passwords of the server that stand in files. Settings with which no relay starts change nothing.
Of several relays each is told by itself; SIGHUP does the same. Without --url and TIDEMILL_URL, the
address in TIDEMILL_LISTEN is asked, as by `tidemill health`.

Examples:
  tidemill reload                         the relay on this machine
  tidemill reload --url http://node2:8080
  systemctl reload tidemill               the same by SIGHUP, with what came of it in the log";

/// The arguments of `tidemill reload`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Reload {
    #[command(flatten)]
    relay: Relay,
}

impl Reload {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.relay.client_of_neighbour(environment)?;
        let path = ["api", "v1", "admin", "reload"];
        let answer = client.send(client.request(Method::POST, &path)).await?;
        let told: Reloaded = client.read(&answer)?;
        if self.relay.output == Output::Json {
            return output::json(&told);
        }
        for (names, what) in [
            (&told.changed, "holds from now on"),
            (&told.needs_restart, "is another, and holds after a restart"),
        ] {
            names.iter().try_for_each(|name| output::line(&format!("{} {what}", output::printable(name))))?;
        }
        output::line(&format!("{} as before", output::counted(u64::from(told.unchanged), "setting")))
    }
}
