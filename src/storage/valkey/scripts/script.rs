//! A script, and how the server knows it.

use std::sync::OnceLock;

use sha1::{Digest as _, Sha1};

/// A script that is called by its digest, and loaded where the server does not know it.
#[derive(Debug)]
pub(in crate::storage::valkey) struct Script {
    text: &'static str,
    digest: OnceLock<String>,
}

impl Script {
    pub(super) const fn new(text: &'static str) -> Self {
        Self { text, digest: OnceLock::new() }
    }

    pub(in crate::storage::valkey) const fn text(&self) -> &'static str {
        self.text
    }

    /// Returns the digest by which the server knows the script.
    pub(in crate::storage::valkey) fn digest(&self) -> &str {
        self.digest.get_or_init(|| format!("{:x}", Sha1::digest(self.text)))
    }
}
