//! What may become of a call of a storage that fails by a seed.

use std::time::Duration;

use tidemill::storage::StorageError;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::super::dice::Dice;

/// How many of a thousand calls have which fate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    /// It fails before it has an effect, and says so.
    pub(crate) before: u64,
    /// It has its effect, and the reply is lost; of a batch, perhaps only the end of the reply.
    pub(crate) after: u64,
    /// It has no effect, and nobody can tell; of a batch, perhaps the front has.
    pub(crate) never: u64,
    /// It has its effect some time after it was given up.
    pub(crate) behind: u64,
    /// It takes a while: what comes behind it waits, or the reply is late.
    pub(crate) late: u64,
    /// A message is refused since there is no room.
    pub(crate) full: u64,
    /// A message is refused since too much waits.
    pub(crate) overloaded: u64,
    /// A read ends early.
    pub(crate) short: u64,
    /// A question for changes is answered with a topic too many.
    pub(crate) spurious: u64,
    /// A hint is lost.
    pub(crate) unheard: u64,
}

impl Rates {
    /// A storage that has good and bad moments.
    pub(crate) const SOME: Self = Self {
        before: 40,
        after: 30,
        never: 20,
        behind: 20,
        late: 60,
        full: 10,
        overloaded: 10,
        short: 100,
        spurious: 100,
        unheard: 50,
    };
    /// A storage that does little of what it is asked.
    pub(crate) const MOST: Self = Self {
        before: 150,
        after: 150,
        never: 80,
        behind: 80,
        late: 200,
        full: 50,
        overloaded: 50,
        short: 500,
        spurious: 500,
        unheard: 300,
    };
}

/// The longest that a call is late.
pub(super) const LATE_MS_MAX: u64 = 40;

/// What is called.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call {
    Append,
    Pledge,
    Reach,
    Read,
    Get,
    Trim,
    Remove,
    Tail,
    Changes,
    Create,
    List,
    Describe,
    Update,
    Delete,
    EndRun,
    Stats,
    Documents,
    ChangeDocuments,
    Announce,
    Retire,
    Nodes,
    Records,
    ChangeRecords,
    Draw,
    Hold,
    Take,
    AddPoints,
    ReadSeries,
    SeriesNames,
    DeleteSeries,
    PutTicket,
    ClaimTicket,
    TicketHolders,
    PutGroup,
    ChangeGroup,
    Groups,
    Grouped,
    Group,
    DeleteGroup,
    Seek,
    Claim,
    Settle,
    Tend,
    Dying,
    Bury,
    DeadLetters,
    Revive,
    Fate,
    ChangeKeys,
    Key,
    KeyHistory,
    TouchKey,
    FillKey,
    CountReads,
    TouchRevisions,
    ListKeys,
    RevokeKeys,
    ExpireKeys,
    ExpiringWithin,
    PutBucket,
    Bucket,
    BucketNames,
    RoomNames,
    DeleteBucket,
    AcquireLock,
    RenewLocks,
    ReleaseLock,
    TakeLock,
    Lock,
    LockIds,
    MakeLease,
    Lease,
    Leased,
    PutUnder,
    LetGo,
    RenewLease,
    EndLease,
    Sweep,
    Schedule,
    Waiting,
    Cancel,
    PublishNow,
    Promote,
    DueWithin,
    CountWaiting,
    PutRecurring,
    Recurring,
    RemoveRecurring,
    Hint,
}

/// How many kinds of calls there are.
pub(super) const CALLS: usize = Call::Hint as usize + 1;

/// What becomes of a call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    Well,
    Before,
    After,
    Never,
    Behind,
}

/// What becomes of a call, and when.
#[derive(Clone, Debug)]
pub(super) struct Fate {
    pub(super) outcome: Outcome,
    /// Before the effect.
    pub(super) wait: Duration,
    /// Between the effect and the reply.
    pub(super) reply: Duration,
    /// How often others go first.
    pub(super) turns: u64,
    /// Decides everything else about the call.
    pub(super) dice: Dice,
}

/// Why there is no reply.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lost {
    Before,
    Unknown,
}

impl From<Lost> for StorageError {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Before => Self::Unavailable("by the seed".into()),
            Lost::Unknown => Self::Indeterminate("by the seed".into()),
        }
    }
}

impl Fate {
    pub(super) async fn wait(&mut self) {
        for _ in 0..self.turns {
            yield_now().await;
        }
        if !self.wait.is_zero() {
            sleep(self.wait).await;
        }
    }

    pub(super) async fn reply(&mut self) {
        if !self.reply.is_zero() {
            sleep(self.reply).await;
        }
    }
}

/// Returns a line of a trace without the numbers of epochs, which are of the process and not of the seed.
pub(super) fn without_epochs(of: &str) -> String {
    const EPOCH: &str = "Marked(";
    let mut parts = of.split(EPOCH);
    let first = parts.next().unwrap_or_default();
    let rest = parts.map(|part| part.trim_start_matches(|digit: char| digit.is_ascii_digit()));
    std::iter::once(first).chain(rest).collect::<Vec<_>>().join(EPOCH)
}
