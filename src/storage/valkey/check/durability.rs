//! Whether messages can be as durable at a server as is set.

use super::Probe;
use super::report::{CheckReport, Outcome};
use super::servers::Server;
use crate::storage::valkey::DurabilityRule;
use crate::storage::valkey::replication::Replication;
use crate::storage::valkey::resp::Request;
use crate::storage::valkey::waits::Abilities;

impl Probe {
    /// Looks whether messages can be as durable as is set, where that is more than accepted.
    pub(super) async fn durability(&self, report: &mut CheckReport, server: &Server) {
        let rules = server.options.durabilities.iter();
        let is_there =
            |rule: &&DurabilityRule| rule.topics.as_ref().is_none_or(|topics| server.may_have(topics));
        let rules: Vec<_> = rules.filter(is_there).collect();
        if rules.is_empty() {
            return;
        }
        let mut request = Request::default();
        request.add(&[b"INFO", b"replication"]);
        Abilities::ask(&mut request);
        let replies = match self.resp.exchange(&request, self.timeout).await {
            Ok(replies) => replies,
            Err(error) => {
                report.add("durability", Outcome::Fail, error.to_string(), None);
                return;
            }
        };
        let mut answers = replies.iter();
        let told = answers.next().and_then(|told| Some(Replication::read(told.bytes()?)));
        let abilities = Abilities::read(answers);
        let warnings = rules.into_iter().filter_map(|rule| abilities.warning(rule, told.as_ref()));
        let warnings: Vec<String> = warnings.collect();
        if warnings.is_empty() {
            report.add("durability", Outcome::Pass, "messages can be as durable as is set", None);
        }
        for warning in warnings {
            report.add("durability", Outcome::Warn, warning, None);
        }
    }
}
