//! `tidemill copy`: copies topics from one storage or relay to another.

use std::error::Error;
use std::fmt::Write as _;

use tidemill_proto::TopicSelector;

use super::CliError;
use super::credentials::{self, Token};
use super::sides::{Bringing, Form, Keys, Named, Opened, Pacing, Reaching};
use super::signals;
use crate::config::Environment;
use crate::copying::{Copy as Copying, CopyError, Plan, Side, SideError};

pub(super) mod access;
mod outline;
mod telling;

use access::{Nothing, Users};
pub(super) use telling::{IN_THE_WAY, Telling, some_of};

const EXAMPLES: &str = "\
Ids, times, payloads, metadata, and what topics keep and say of themselves are the same at the
target, and so are the positions of readers. A topic takes messages at the target once it is whole.
A copy that is broken off is gone on with by the same command. It says how far it is every few
seconds.

Examples:
  tidemill copy --from valkey://old:6379 --to valkey://new:6379 --dry-run
  tidemill copy --from valkey://old:6379 --to valkey://new:6379
  tidemill copy --from valkey://old:6379 --to valkey://new:6379 'orders.*' --follow --switch
  tidemill copy --from valkey://old:6379 --to valkey://new:6379 --access --follow
  tidemill copy --from @old-url --to @new-url --to-keys braces --follow
  tidemill copy --from http://old:8080 --to http://new:8080 --to-token @new-token

A relay is asked over HTTP, and needs a caller who may administer it. One that keeps messages in
memory is reached only so; of others, copying from storage to storage is faster.

With --follow it copies what comes, too, until `tidemill freeze --storage OLD` makes the source
read-only, or does that itself with --switch once it has all that there was; then it gets the rest,
and ends.

With --access it brings users, tokens and roles first, once, from storage to storage. What is
changed of them at the source from then on stays there.

A topic or bucket that was copied before and has all that came to the source since is left alone.
With --overwrite it is replaced where it lacks messages, groups or keys that the source has.

--dry-run says what would be done, how many messages and keys the target would lose to --overwrite
and whether its last is younger than that of the source, and ends with 3 where something stands in
the way: a topic or bucket at the target that is something else, or that an earlier copy has left
there and the source has no more, or a target that is read-only.

Exit status: 0 all is copied, or can be; 1 not all; 2 not understood, both sides are one storage, or
one has its topics under keys of the other form; 3 --dry-run has found something in the way; 130
interrupted.";

const FROM_TOKEN_HELP: &str = "The token that says to the relay that is copied from who calls. With `@PATH` it is read from a file [env: TIDEMILL_TOKEN, TIDEMILL_TOKEN_FILE]";

/// What can be done about a copy that was broken off.
const GOES_ON: &str = "not all is copied; the same command goes on from here";

/// What is said where nobody is brought, and nothing.
const NOTHING: Nothing = Nothing {
    is_done: "nothing is copied",
    is_replaced: "nothing is copied; --overwrite brings what the source has in its place, and without --access all else is copied",
};

/// The arguments of `tidemill copy`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Copy {
    /// The topics, by their names or patterns; all, and all buckets of keys, if none is named
    topics: Vec<TopicSelector>,

    /// Where to copy from, as in `valkey://host:6379`, or a relay, as in `http://host:8080`. With `@PATH` the URL is read
    /// from a file
    #[arg(long, value_name = "URL")]
    from: String,

    /// Where to copy to, as well
    #[arg(long, value_name = "URL")]
    to: String,

    /// How the keys are written where it is copied from, as `TIDEMILL_VALKEY_KEY_FORM` of its relays says it; plain, if it
    /// is not given
    #[arg(long, value_name = "FORM", value_enum)]
    from_keys: Option<Keys>,

    /// How the keys are written where it is copied to, as well
    #[arg(long, value_name = "FORM", value_enum)]
    to_keys: Option<Keys>,

    /// The token for the relay that is copied from
    #[arg(long, value_name = "TOKEN", help = FROM_TOKEN_HELP, value_parser = credentials::parse)]
    from_token: Option<Token>,

    /// The token for the relay that is copied to
    #[arg(long, value_name = "TOKEN", value_parser = credentials::parse)]
    to_token: Option<Token>,

    #[command(flatten)]
    users: Users,

    /// Go on with what comes, until the source is read-only
    #[arg(long, conflicts_with = "no_topics")]
    follow: bool,

    /// Make the source read-only once all that there was is copied
    #[arg(long, requires = "follow")]
    switch: bool,

    #[command(flatten)]
    pacing: Pacing,

    #[command(flatten)]
    bringing: Bringing,

    #[command(flatten)]
    reaching: Reaching,
}

impl From<CopyError> for CliError {
    fn from(error: CopyError) -> Self {
        Self::Failed(advice(&error), error.into())
    }
}

/// What to do about what stands in the way of a copy, or has ended it.
fn advice(error: &CopyError) -> &'static str {
    match error {
        CopyError::Taken(..) => "not all is copied; to replace what is there, add --overwrite",
        CopyError::Same(None) => "nothing is copied; name two storages",
        CopyError::Same(Some(_)) => "nothing is copied; leave that one out",
        CopyError::Shared => "nothing is copied; name the topics that are to be moved",
        CopyError::TargetReadOnly => {
            "no more is copied; `tidemill freeze --storage URL --undo`, with the URL of the target, and --keys where --to-keys is given, has it take changes again, then the same command goes on from here"
        }
        CopyError::Missing(_) => "not all is copied; leave it out, or correct its name",
        CopyError::Deleted(_) => "not all is copied; leave it out, and run the command again",
        CopyError::Changed(_) => {
            "not all is copied; let one copy to a target run at a time, then the same command goes on from here"
        }
        CopyError::Restarted(_) => {
            "not all is copied; compare the sides, as the target may have all that is left of it. Where the source has another one of that name, the same command with --overwrite copies it in that place; where it has none, and none is wanted, delete it at the target (`tidemill topics delete`, `tidemill buckets delete`)"
        }
        CopyError::Left(_) => {
            "the copy is not done; let another one that it comes from end first; where it was deleted at the source, delete it at the target (`tidemill topics delete`, `tidemill buckets delete`); then run the same command again"
        }
        CopyError::NotKept(_) => {
            "not all is there; a relay in memory may have no room for it, or relays of the target remove what is older than their PERSISTENT_TIER_RETENTION; once that is mended, the same command with --overwrite brings it again"
        }
        CopyError::Passed(_) => "not all is copied; the same command goes on from here",
        CopyError::NotCopied { .. } => {
            "not all is copied; once that is mended, the same command goes on from here"
        }
        CopyError::Failed { side, error, .. } => match (error, side) {
            (SideError::Denied(_), Side::Source) => {
                "not all is copied; name a token of who may administer the relay with --from-token, and the same command goes on from here"
            }
            (SideError::Denied(_), Side::Target) => {
                "not all is copied; name a token of who may administer the relay with --to-token, and the same command goes on from here"
            }
            (SideError::ReadOnly, _) => {
                "not all is copied; `tidemill freeze --storage URL --undo`, with the URL of that side, and --keys where its form is given, has it take changes again, then the same command goes on from here"
            }
            (SideError::Passing(_), _) => {
                "not all is copied; once that side is there again, the same command goes on from here"
            }
            (error, Side::Source) if error.is_full() => {
                "not all is copied; the source has no room for the marks that it gets: raise its maxmemory (`CONFIG SET maxmemory`), or trim topics there, then the same command goes on from here"
            }
            (SideError::Missing | SideError::Exists | SideError::NotLast | SideError::Refused(_), _) => {
                "not all is copied; once that is mended, or with the other topics named, the same command goes on from here"
            }
        },
    }
}

impl Copy {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let stopped = signals::stopped()?;
        let side = |flag, url, form, token| {
            let ca_cert = self.reaching.ca_cert.as_ref();
            Opened::open(Named { flag, url, form, ca_cert, token, environment })
        };
        let read = Form { flag: "from-keys", given: self.from_keys, may_be_empty: false };
        let written = Form { flag: "to-keys", given: self.to_keys, may_be_empty: true };
        let mut from = side("from", &self.from, read, self.from_token.as_ref())?;
        let mut to = side("to", &self.to, written, self.to_token.as_ref())?;
        if from.name == to.name {
            if read.keys() == written.keys() {
                return Err(CliError::Usage("--from and --to name the same side".to_owned()));
            }
            // Of one server that has both, each side is one of them.
            from.form.given = Some(read.keys());
            to.form.given = Some(written.keys());
        }
        let Bringing { overwrite, dry_run, output } = self.bringing;
        let plan = Plan {
            topics: self.topics.clone(),
            follow: self.follow,
            switch: self.switch,
            overwrite,
            patience: self.reaching.patience(),
        };
        let copy = Copying::new(from.paced(self.pacing.rate), to.side.clone(), plan.clone());
        let act = async {
            from.ready(plan.patience).await?;
            to.ready(plan.patience).await?;
            let kept = to.kept().await;
            let telling = Telling { done: "copied", output, overwrite, is_data: false, kept };
            let users =
                self.users.access.then(|| Ok::<_, CliError>((from.access("from")?, to.access("to")?)));
            let users = users.transpose()?;
            let bring = async || {
                let Some((from, to)) = &users else { return Ok(false) };
                let there = from.documents(None).await;
                let there = there.map_err(|error| CliError::Failed(NOTHING.is_done, error.into()))?;
                let documents = there.unwrap_or_default().documents;
                access::bring(&**to, &documents, &self.bringing, NOTHING).await
            };
            if dry_run || self.users.no_topics {
                let is_in_the_way = bring().await?;
                if !self.users.no_topics {
                    telling.plan(&copy, &plan).await?;
                }
                return if is_in_the_way { Err(CliError::Status(IN_THE_WAY)) } else { Ok(()) };
            }
            telling.copy(&copy, async || bring().await.map(drop), async || Ok(())).await
        };
        let done = tokio::select! {
            done = act => done,
            () = stopped => Err(CliError::Interrupted),
        };
        let reached = copy.progress().reached();
        let undo = self.undo(&from.name, from.form.given);
        let stands = match (reached.source_read_only, reached.switching) {
            (true, _) => Some(format!("the source is read-only now, and {undo}")),
            (false, true) => Some(format!("a part of the source may be read-only by now, and {undo}")),
            (false, false) => None,
        };
        let done = match (done, stands) {
            (Err(CliError::Interrupted), stands) if !dry_run => {
                let stands = stands.map_or_else(String::new, |stands| format!("; {stands}"));
                Err(CliError::Kept(Box::new(CliError::Interrupted), format!("{GOES_ON}{stands}")))
            }
            (Err(error), Some(stands)) if self.switch => {
                eprintln!("{stands}");
                Err(error)
            }
            (done, _) => done,
        };
        from.close().await;
        to.close().await;
        match done {
            Err(CliError::Failed(advice, cause)) if is_same(&*cause) => {
                Err(CliError::Usage(format!("{cause}: {advice}")))
            }
            done => done,
        }
    }

    /// Says how the source takes changes again.
    fn undo(&self, source: &str, keys: Option<Keys>) -> String {
        let url = if self.from.starts_with('@') { &self.from } else { source };
        let keys = keys.map_or_else(String::new, |keys| format!(" --keys {}", keys.name()));
        let mut command = format!("tidemill freeze --storage {url}{keys}");
        for topic in &self.topics {
            let _ = write!(command, " '{topic}'");
        }
        format!("`{command} --undo` ends that")
    }
}

/// Whether it has ended as both sides are one.
fn is_same(error: &(dyn Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(CopyError::Same(_) | CopyError::Shared))
}
