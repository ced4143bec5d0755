//! What `tidemill tail` prints: gathered, and written when nothing more is there.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::time::Duration;

use tidemill_client::{Message, Start, Subscription};
use tidemill_proto::frame::{ServerFrame, json};
use tidemill_proto::{Gap, TopicName, TopicSelector};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::super::output::{self, Form};
use super::super::{CliError, latest};

/// Bytes after which what is printed is written, also while more is there to print.
const WRITE_BYTES: usize = 64 * 1024;

/// How long a write may take once the user has asked to stop.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// What is printed: gathered, and written when nothing more is there.
pub(super) struct Printer {
    form: Form,
    colours: bool,
    /// The fields that hold the keys of topics.
    fields: HashMap<TopicName, String>,
    out: Vec<u8>,
    /// Behind what was written.
    pub(super) cursors: Vec<(TopicSelector, Start)>,
}

impl Printer {
    pub(super) fn new(
        form: Form,
        fields: HashMap<TopicName, String>,
        cursors: Vec<(TopicSelector, Start)>,
    ) -> Self {
        let colours =
            io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
        Self { form, colours, fields, out: Vec::new(), cursors }
    }

    pub(super) const fn is_full(&self) -> bool {
        self.out.len() >= WRITE_BYTES
    }

    pub(super) fn message(&mut self, message: &Message) {
        match self.form {
            Form::Text => {
                let payload = output::payload(&message.payload, message.content_type.as_deref());
                let Message { message_id: id, topic, timestamp: time, metadata, .. } = message;
                let field = self.fields.get(topic).map(String::as_str);
                let key = latest::shown(field, metadata.as_deref());
                // Writing into a vector cannot fail.
                let _ = if self.colours {
                    write!(
                        self.out,
                        "\x1b[2m{time}\x1b[0m  \x1b[36m{topic}\x1b[0m  \x1b[33m{id}\x1b[0m  {key}{payload}"
                    )
                } else {
                    write!(self.out, "{time}  {topic}  {id}  {key}{payload}")
                };
            }
            Form::Json => {
                let start = self.out.len();
                json::write_message_ref(&message.as_message_ref(), &mut self.out);
                json::flatten_lines(&mut self.out[start..]);
            }
            Form::Raw => {
                self.out.extend_from_slice(&message.payload);
                if !message.is_json() {
                    // What is not JSON may be part of something larger, a file for example.
                    return;
                }
            }
        }
        self.out.push(b'\n');
    }

    pub(super) fn gap(&mut self, gap: &Gap) {
        eprintln!("{}", output::gap(gap));
        if self.form == Form::Json {
            json::write(&ServerFrame::Gap(gap.clone()), &mut self.out);
            self.out.push(b'\n');
        }
    }

    /// Writes what was gathered up to here, and says to break if `stop` ended meanwhile.
    pub(super) async fn write(
        &mut self,
        subscription: &Subscription,
        stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<ControlFlow<()>, CliError> {
        let mut flow = ControlFlow::Continue(());
        if !self.out.is_empty() {
            {
                let mut writing = pin!(async {
                    let mut stdout = tokio::io::stdout();
                    stdout.write_all(&self.out).await?;
                    stdout.flush().await
                });
                tokio::select! {
                    biased;
                    written = &mut writing => written?,
                    () = stop => {
                        flow = ControlFlow::Break(());
                        // What is on its way counts as printed only when it is; nobody may be reading.
                        match timeout(LAST_WRITE, writing).await {
                            Ok(written) => written?,
                            Err(_) => return Ok(flow),
                        }
                    }
                }
            }
            self.out.clear();
        }
        self.cursors = subscription.cursors();
        Ok(flow)
    }
}
