//! What freezing and copies have left at a server: that it is read-only, and what is not whole.

use glide::ValkeyValue;

use super::Probe;
use super::report::{CheckReport, Outcome};
use super::servers::Server;
use crate::storage::READ_ONLY;
use crate::storage::valkey::KeyForm;
use crate::storage::valkey::control::bytes_of;
use crate::storage::valkey::keys::IndexName;

/// How many names are told.
const NAMED: usize = 3;

/// Returns the flag that says how the keys of a server are written to commands that name it by its URL; a cluster has one
/// form.
fn keys_flag(server: &Server) -> &'static str {
    match server.options.key_form {
        KeyForm::Braces if !server.is_of_a_cluster() => " --keys braces",
        KeyForm::Plain | KeyForm::Braces => "",
    }
}

impl Probe {
    /// Looks whether the server is read-only, and what a copy has left there that is not whole.
    pub(super) async fn copies(&self, report: &mut CheckReport, server: &Server) {
        if self.is_read_only(server).await == Ok(true) {
            let (url, keys) = (server.options.target.to_string(), keys_flag(server));
            let advice = format!(
                "`tidemill freeze --storage {url}{keys} --undo` ends that, unless it was moved elsewhere"
            );
            report.add("read-only", Outcome::Warn, READ_ONLY, Some(&advice));
        }
        // What cannot be read here fails where that is tried.
        let Ok((topics, mut names)) = self.unfinished(server, IndexName::Importing).await else { return };
        let Ok((buckets, more)) = self.unfinished(server, IndexName::Begun).await else { return };
        names.extend(more.into_iter().map(|name| format!("bucket {name}")));
        names.truncate(NAMED);
        let count = topics + buckets;
        if count == 0 {
            return;
        }
        let rest = match count - names.len() {
            0 => String::new(),
            rest => format!(" and {rest} more"),
        };
        let detail = format!(
            "{count} topics and buckets are a part of a copy, and take no changes until they are whole: {}{rest}",
            names.join(", ")
        );
        let advice = "where a copy is under way, let it end; where it was given up, run the same `tidemill copy` or `tidemill import` again, which goes on, or delete them (`tidemill topics delete NAME`, `tidemill buckets delete NAME`)";
        report.add("copies", Outcome::Warn, detail, Some(advice));
    }

    /// Whether no more topics are to be made of those that the server has.
    async fn is_read_only(&self, server: &Server) -> Result<bool, String> {
        let mut pipeline = glide::pipe();
        let keys = (0..self.keys.parts()).map(|part| self.keys.closed(part));
        for key in keys.filter(|key| server.has(key.as_str())) {
            pipeline.cmd("EXISTS").arg(key);
        }
        Ok(self.run(&pipeline).await?.iter().any(|reply| matches!(reply, ValkeyValue::Int(1))))
    }

    /// Returns how many there are of what is not whole, and the first names.
    async fn unfinished(&self, server: &Server, index: IndexName) -> Result<(usize, Vec<String>), String> {
        let mut pipeline = glide::pipe();
        let keys = (0..self.keys.parts()).map(|part| self.keys.index(index, part));
        for key in keys.filter(|key| server.has(key.as_str())) {
            pipeline.cmd("ZCARD").arg(&key);
            pipeline.cmd("ZRANGE").arg(&key).arg("-").arg("+").arg("BYLEX");
            pipeline.arg("LIMIT").arg("0").arg(NAMED.to_string());
        }
        let (mut count, mut names) = (0, Vec::new());
        for reply in self.run(&pipeline).await? {
            match reply {
                ValkeyValue::Int(number) => count += usize::try_from(number).unwrap_or(0),
                ValkeyValue::Array(found) => {
                    let found = found.into_iter().filter_map(bytes_of);
                    names.extend(found.map(|name| format!("`{}`", String::from_utf8_lossy(&name))));
                }
                _ => {}
            }
        }
        names.sort_unstable();
        names.truncate(NAMED);
        Ok((count, names))
    }
}
