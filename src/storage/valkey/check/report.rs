//! What a check has found, line by line, and what to do about it.
//!
//! It must not know how anything is checked.

use serde::Serialize;

use crate::storage::valkey::warned;

/// The command that gives a user the rights that the relay needs, as docs/valkey.md has it.
pub const RIGHTS: &str = "ACL SETUSER tidemill on >change-me resetkeys ~stream:topic:* ~meta:topic:* ~idem:{*}:* ~deleted:{*}:* ~group:{*}:* ~groups:{*}:* ~schedule:{*}:* ~bucket:{*}:* ~lock:{*}:* ~last:topic:* ~latest:{*}:* ~tidemill:* resetchannels &tidemill:doorbell &__keyspace@*__:stream:topic:* -@all +ping +select +info +time +memory|usage +slowlog|get +client|setname +client|setinfo +exists +type +pttl +scan +set +get +del +unlink +expire +pexpire +pexpireat +hset +hget +hmget +hgetall +hdel +hincrby +hlen +hkeys +hscan +hexists +hrandfield +sadd +srem +smembers +zadd +zrem +zcard +zcount +zscore +zrank +zlexcount +zrange +zrangebylex +zremrangebylex +zremrangebyrank +xadd +xdel +xrange +xrevrange +xread +xreadgroup +xclaim +xack +xpending +xlen +xtrim +xsetid +xinfo|stream +xinfo|groups +xinfo|consumers +xgroup|create +xgroup|destroy +xgroup|delconsumer +multi +exec +eval +evalsha +script|load +publish +subscribe +unsubscribe";

/// How one check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Good.
    Pass,
    /// Works, but something should be changed.
    Warn,
    /// Does not work.
    Fail,
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckLine {
    /// What was checked.
    pub name: &'static str,
    /// How it went.
    pub outcome: Outcome,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub advice: Option<String>,
}

/// Everything that was checked, in order.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// The lines.
    pub lines: Vec<CheckLine>,
}

impl CheckReport {
    /// Returns whether nothing failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.lines.iter().all(|line| line.outcome != Outcome::Fail)
    }

    pub(super) fn add(
        &mut self,
        name: &'static str,
        outcome: Outcome,
        detail: impl Into<String>,
        advice: Option<&str>,
    ) {
        self.lines.push(CheckLine {
            name,
            outcome,
            detail: detail.into(),
            advice: advice.map(str::to_owned),
        });
    }

    /// Adds what was found at servers, check by check: what is said of all in the same words is said once.
    pub(super) fn add_all<'a>(&mut self, servers: impl Iterator<Item = (&'a String, CheckReport)>) {
        let all: Vec<(&String, CheckReport)> = servers.collect();
        let mut names: Vec<&'static str> = Vec::new();
        for line in all.iter().flat_map(|(_, report)| &report.lines) {
            if !names.contains(&line.name) {
                names.push(line.name);
            }
        }
        let of_server = |name: &'static str, (server, report): &(&String, CheckReport)| {
            let of_it = report.lines.iter().filter(|line| line.name == name).cloned();
            of_it.map(|line| (Some((*server).clone()), line)).collect::<Vec<_>>()
        };
        let is_one = all.len() == 1;
        for name in names {
            let lines = all.iter().flat_map(|of_one| of_server(name, of_one));
            for (named, line) in warned::alike(all.len(), lines) {
                let is_told = is_one || named.is_empty() || line.detail.contains(&named);
                let detail = if is_told { line.detail } else { format!("{named}: {}", line.detail) };
                self.lines.push(CheckLine { detail, ..line });
            }
        }
    }

    pub(super) fn add_result(&mut self, name: &'static str, result: Result<String, String>, advice: &str) {
        match result {
            Ok(detail) => self.add(name, Outcome::Pass, detail, None),
            Err(detail) if is_about_rights(&detail) => {
                self.add(name, Outcome::Fail, detail, Some(&advice_about_rights()));
            }
            Err(detail) if is_of_a_cluster(&detail) => {
                self.add(name, Outcome::Fail, detail, Some(OF_A_CLUSTER));
            }
            Err(detail) => {
                let advice = advice_of_now(&detail).unwrap_or(advice);
                self.add(name, Outcome::Fail, detail, Some(advice));
            }
        }
    }
}

/// What to do about a server that is full.
pub(super) const FULL: &str = "the server takes no messages once its memory is full: raise maxmemory, have topics keep less (MAX_MESSAGES_PER_TOPIC, retention, max_bytes), or delete some";

/// Returns what to do about a server that could do it, and does not now.
pub(super) fn advice_of_now(error: &str) -> Option<&'static str> {
    let has = |code: &str| error.contains(code);
    Some(if has("OOM ") {
        FULL
    } else if has("NOREPLICAS") {
        "fewer replicas follow the server than its min-replicas-to-write asks for: see whether they run, or lower that"
    } else if has("READONLY") {
        "the server is a replica; name its primary"
    } else if has("MISCONF") {
        "the server cannot write its files, and takes nothing meanwhile: see its log, and whether its disk is full"
    } else if has("BUSY ") {
        "a script of somebody keeps the server busy: `SCRIPT KILL` or `FUNCTION KILL` there ends it; then look again"
    } else if has("LOADING") {
        "the server is reading its files; look again in a while"
    } else {
        return None;
    })
}

/// What a server of a cluster is to be used as.
const OF_A_CLUSTER: &str = "the server is one of a cluster, and is used as one that stands alone: leave VALKEY_CLUSTER out, or set it to true; in VALKEY_PLACEMENT no cluster can stand";

/// Whether a server of a cluster has refused what another one has, or what several have.
fn is_of_a_cluster(error: &str) -> bool {
    ["MOVED", "CROSSSLOT", "CLUSTERDOWN"].iter().any(|code| error.starts_with(code))
}

pub(super) fn advice_about_rights() -> String {
    format!("give the relay's user the rights of docs/valkey.md: {RIGHTS}")
}

/// Returns whether an error says that the user may not do it; inside a script it says so in words only.
fn is_about_rights(error: &str) -> bool {
    error.contains("NOPERM") || error.to_lowercase().contains("permission")
}
