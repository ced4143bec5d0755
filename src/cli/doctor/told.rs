//! What a relay tells of itself to who may administer it: its storage, the nodes beside it, and what waits for workers.
//!
//! Where it tells that to nobody who has asked so, that is said, and no fault.

use std::collections::BTreeSet;

use reqwest::Client;
use tidemill_proto::health::{BackendHealth, Health};
use tidemill_proto::nodes::NodeList;

use super::line::Line;
use super::outside::Outside;
use crate::cli::output::counted;

const STORAGE: &str = "storage";
const NODES: &str = "nodes";
const WORK: &str = "work";

impl Outside<'_> {
    /// Looks at what the relay tells.
    pub(super) async fn told(&self, http: &Client, health: &Health) -> Vec<Line> {
        let Some(details) = &health.details else {
            return vec![Line::pass(
                STORAGE,
                "not looked at: the relay tells it to who may administer it (--token)",
            )];
        };
        let backend = &details.backend;
        vec![storage(backend), self.nodes(http).await, self.work(http, backend.connected).await]
    }

    async fn nodes(&self, http: &Client) -> Line {
        let Some(body) = self.body(http, "api/v1/admin/nodes").await else {
            return Line::warn(NODES, "the relay does not tell of them", "see what its log says");
        };
        let Ok(list) = serde_json::from_slice::<NodeList>(&body) else {
            return Line::warn(
                NODES,
                "what the relay tells of them is not understood",
                "use the `tidemill` of its release",
            );
        };
        let versions: BTreeSet<_> = list.nodes.iter().map(|about| &*about.version).collect();
        let versions = versions.into_iter().collect::<Vec<_>>();
        let count = counted(list.nodes.len() as u64, "node");
        match versions[..] {
            [] => Line::warn(NODES, "the relay is not in the list of nodes", "see what its log says"),
            [version] => Line::pass(NODES, format!("{count}, of version {version}")),
            [..] => Line::warn(
                NODES,
                format!("{count}, of the versions {}", versions.join(", ")),
                "an upgrade is under way, or was left half done: `tidemill nodes` names them",
            ),
        }
    }

    async fn work(&self, http: &Client, is_there: bool) -> Line {
        if !is_there {
            return Line::pass(WORK, "not looked at: the relay cannot ask its storage");
        }
        let Some(body) = self.body(http, "metrics").await else {
            return Line::pass(WORK, "not looked at: the relay does not serve its metrics here");
        };
        let text = String::from_utf8_lossy(&body);
        let of = |name: &str| -> Option<f64> {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
        };
        let (unattended, dead) = (of("tidemill_work_unattended_groups"), of("tidemill_work_dead"));
        let (Some(unattended), Some(dead)) = (unattended, dead) else {
            return Line::pass(WORK, "not known yet: groups are looked at about once a minute");
        };
        match (unattended > 0.0, dead > 0.0) {
            (false, false) => {
                Line::pass(WORK, "nothing waits for workers that do not come, and there are no dead letters")
            }
            (false, true) => Line::warn(
                WORK,
                "there are dead letters",
                "`tidemill groups list` says in which groups, and `tidemill dead list TOPIC GROUP` why they have died",
            ),
            (true, is_dead) => {
                let dead = if is_dead { "; and there are dead letters" } else { "" };
                Line::warn(
                    WORK,
                    format!("messages wait in groups, and nobody has asked for them for a minute{dead}"),
                    "see whether workers run: `tidemill groups list --unattended` names the groups",
                )
            }
        }
    }

    /// Returns what the relay answers, where that is 200.
    async fn body(&self, http: &Client, path: &str) -> Option<Vec<u8>> {
        let response = self.ask(self.get(http, path)).await.ok()?;
        let is_there = response.status() == 200;
        let body = self.whole(response).await?;
        is_there.then_some(body)
    }
}

fn storage(backend: &BackendHealth) -> Line {
    let why = backend.warnings.join("; ");
    if !backend.connected {
        let advice =
            "see whether the server runs: `tidemill doctor` with the settings of the relay looks at it";
        return Line::fail(STORAGE, format!("the relay cannot use it: {why}"), advice);
    }
    if !backend.accepts_writes {
        let advice = if backend.read_only {
            "it was made read-only for a move (docs/moving.md)"
        } else {
            "make room: raise `maxmemory`, or have topics keep less"
        };
        return Line::fail(STORAGE, format!("it takes no messages: {why}"), advice);
    }
    if why.is_empty() {
        return Line::pass(STORAGE, "the relay can use it, and it takes messages");
    }
    Line::warn(STORAGE, why, "docs/operations.md and docs/valkey.md say what to do")
}
