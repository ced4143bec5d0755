//! `tidemill freeze`: makes a storage read-only, or ends that.

use std::path::PathBuf;

use serde::Serialize;
use tidemill_proto::TopicSelector;

use super::CliError;
use super::credentials::TokenFlag;
use super::output::{self, Output};
use super::sides::{Keys, Named, Opened};
use crate::config::Environment;
use crate::copying::{Frozen, freeze};

const EXAMPLES: &str = "\
A publish to a topic that is read-only is refused with the problem `read_only`, by every relay on
that storage, from the moment on at which it is made so; reading and working go on. Without topics
all are made read-only, and all buckets of keys, and no more are made.

Examples:
  tidemill freeze --storage valkey://old:6379           so that `tidemill copy --follow` can end
  tidemill freeze --storage valkey://old:6379 --undo    publishing goes on there
  tidemill freeze --storage http://old:8080             a relay, with all that share its storage

Exit status: 0 done, 1 failed, 2 not understood.";

/// The arguments of `tidemill freeze`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Freeze {
    /// The topics, by their names or patterns; all, if none is named
    topics: Vec<TopicSelector>,

    /// The storage, as in `valkey://host:6379`, or a relay on it, as in `http://host:8080`. With `@PATH` the URL is read
    /// from a file
    #[arg(long, value_name = "URL")]
    storage: String,

    /// How its keys are written (`VALKEY_KEY_FORM`)
    #[arg(long, value_name = "FORM", value_enum, default_value_t)]
    keys: Keys,

    /// Have the topics take messages again
    #[arg(long)]
    undo: bool,

    /// Certificates (PEM) to trust in place of the system's, for TLS
    #[arg(long, value_name = "PATH")]
    ca_cert: Option<PathBuf>,

    /// Who calls, where a relay is asked.
    #[command(flatten)]
    token: TokenFlag,

    /// The form of what is printed
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    output: Output,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Done {
    read_only: bool,
    topics: usize,
    buckets: usize,
}

impl Freeze {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let opened = Opened::open(Named {
            flag: "storage",
            url: &self.storage,
            keys: self.keys,
            ca_cert: self.ca_cert.as_ref(),
            token: self.token.given(),
            environment,
        })
        .await?;
        let done = freeze(&*opened.side, &self.topics, !self.undo).await;
        opened.close().await;
        let Frozen { topics, buckets, missing } =
            done.map_err(|cause| CliError::Failed("the storage did not do it", cause.into()))?;
        let done = Done { read_only: !self.undo, topics, buckets };
        let told = match self.output {
            Output::Json => output::json(&done),
            Output::Text if self.undo => {
                output::line(&format!("{topics} topics take messages again, {buckets} buckets changes"))
            }
            Output::Text => output::line(&format!("{topics} topics and {buckets} buckets are read-only")),
        };
        if missing.is_empty() {
            return told;
        }
        let names: Vec<String> = missing.iter().map(|topic| format!("`{topic}`")).collect();
        Err(CliError::Failed(
            "not all that was named is there",
            format!("no topic {}", names.join(", ")).into(),
        ))
    }
}
