//! The marker of a stream: which of the topics of its name it is. It is a consumer group without consumers,
//! because a group lies in the stream's key: it goes where the stream goes, and is gone with it.
//!
//! `tidemill-epoch:<16 hexadecimal digits>:<id>`: a number that no other topic has, and the smallest id that the
//! topic can give; `0-0` where nobody knows that, because another producer has made it.
//!
//! The marker has read nothing, so how far it lags behind tells how many messages the stream was given, without the two
//! whole entries that come along with `entries-added`. Where an entry was taken out from between others, the server does
//! not say; where all that were lie in front of the oldest since, Redis 7.0 says how many were given again, and Valkey 9.1
//! how many are kept. So as many as are kept may be fewer than were given.

use tidemill_proto::MessageId;
use tidemill_proto::topics::RunState;

use super::entry::read_id;
use super::resp::Reply;
use crate::storage::Freeze;
use crate::storage::history::Hole;

/// What the name of a marker starts with. Scripts spell it, too.
pub(super) const PREFIX: &str = "tidemill-epoch:";

/// What a stream's marker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) epoch: u64,
    pub(super) born: Option<MessageId>,
}

impl Marker {
    /// Reads the name of a group, if it is a marker's.
    pub(super) fn read(name: &[u8]) -> Option<Self> {
        let (epoch, born) = std::str::from_utf8(name).ok()?.strip_prefix(PREFIX)?.split_once(':')?;
        let epoch = u64::from_str_radix(epoch, 16).ok()?;
        let born = read_id(born.as_bytes())?;
        Some(Self { epoch, born: Some(born).filter(|born| *born != MessageId::MIN) })
    }
}

/// What the name of the group starts with that says that a topic has ended. Scripts spell it, too.
const END_PREFIX: &str = "tidemill-end:";
/// What stands there in place of a state where it is frozen. Scripts spell them, too.
const IMPORTING: &str = "importing";
const READ_ONLY: &str = "frozen";

/// That a topic takes no messages: it has ended, or is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// Open, where it is frozen.
    pub(super) state: RunState,
    pub(super) freeze: Option<Freeze>,
    /// The last id that the stream was given. The server knows another.
    pub(super) last: MessageId,
}

impl End {
    /// Reads the name of a group, if it is that one.
    pub(super) fn read(name: &[u8]) -> Option<Self> {
        let (state, last) = std::str::from_utf8(name).ok()?.strip_prefix(END_PREFIX)?.split_once(':')?;
        let last = read_id(last.as_bytes())?;
        let freeze = match state {
            IMPORTING => Some(Freeze::Importing),
            READ_ONLY => Some(Freeze::ReadOnly),
            _ => None,
        };
        let state = if freeze.is_some() { RunState::Open } else { RunState::named(state)? };
        Some(Self { state, freeze, last })
    }
}

/// What the name of a group starts with that says that messages were lost (see `losing`). Scripts spell it, too.
const HOLE_PREFIX: &str = "tidemill-lost:";

impl Hole {
    /// Reads the name of a group, if it is that of one.
    pub(super) fn read(name: &[u8]) -> Option<Self> {
        let (from, to) = std::str::from_utf8(name).ok()?.strip_prefix(HOLE_PREFIX)?.split_once(':')?;
        Some(Self { from: read_id(from.as_bytes())?, to: read_id(to.as_bytes())? })
    }
}

/// Returns the digits of a new epoch.
pub(super) fn new_epoch() -> String {
    format!("{:016x}", crate::chance::random())
}

/// What the groups of a stream tell of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Which topic it is.
    pub(super) marker: Option<Marker>,
    /// How many messages the stream was given at least, where no entry was taken out from between those that it keeps:
    /// just as many, unless it keeps as many.
    pub(super) given: Option<u64>,
    /// That it has ended.
    pub(super) end: Option<End>,
    /// Where messages were lost.
    pub(super) holes: Vec<Hole>,
}

/// Reads a stream's groups, as `XINFO GROUPS` tells them; `None` if the reply has another form.
pub(super) fn find(reply: Reply<'_>) -> Option<Found> {
    let Reply::Array(groups) = reply else { return None };
    let mut found = Found::default();
    for group in groups {
        let Reply::Array(mut parts) = group else { return None };
        let (mut is_marker, mut lag) = (false, None);
        while let Some(name) = parts.next() {
            let value = parts.next()?;
            match name.bytes()? {
                b"name" => {
                    let name = value.bytes()?;
                    if let Some(marker) = Marker::read(name)
                        && found.marker.is_none()
                    {
                        (found.marker, is_marker) = (Some(marker), true);
                    }
                    found.end = found.end.or_else(|| End::read(name));
                    found.holes.extend(Hole::read(name));
                }
                b"lag" => lag = value.integer().and_then(|lag| u64::try_from(lag).ok()),
                _ => {}
            }
        }
        if is_marker {
            found.given = lag;
        }
    }
    Some(found)
}

/// Returns the end of a topic among its stream's groups.
pub(super) fn end_among(reply: Reply<'_>) -> Option<End> {
    find(reply)?.end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_read_from_its_name() {
        let last = MessageId::new(7, 1);
        let end = |state| Some(End { state, freeze: None, last });
        let frozen = |freeze| Some(End { state: RunState::Open, freeze: Some(freeze), last });
        assert_eq!(End::read(b"tidemill-end:importing:7-1"), frozen(Freeze::Importing));
        assert_eq!(End::read(b"tidemill-end:frozen:7-1"), frozen(Freeze::ReadOnly));
        assert_eq!(End::read(b"tidemill-end:closed:7-1"), end(RunState::Closed));
        assert_eq!(End::read(b"tidemill-end:cancelled:7-1"), end(RunState::Cancelled));
        for name in ["tidemill-end:closed", "tidemill-end:x:7-1", "tidemill-epoch:closed:7-1", "closed:7-1"] {
            assert_eq!(End::read(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn a_hole_is_read_from_its_name_and_found_by_who_comes_there() {
        let id = |ms| MessageId::new(ms, 0);
        let hole = |from, to| Hole { from: id(from), to: id(to) };
        assert_eq!(Hole::read(b"tidemill-lost:7-0:9-0"), Some(hole(7, 9)));
        for name in
            ["tidemill-lost:7-0", "tidemill-lost:x:7-0", "tidemill-lost:7-0:y", "tidemill-end:7-0:9-0"]
        {
            assert_eq!(Hole::read(name.as_bytes()), None, "{name}");
        }
        let holes = [hole(20, 30), hole(7, 9)];
        let found = |cursor| Hole::behind(holes.to_vec(), id(cursor));
        assert_eq!(found(1), (vec![holes[1], holes[0]], false));
        assert_eq!(found(8), (vec![holes[1], holes[0]], false));
        assert_eq!(found(9), (vec![holes[0]], true));
        assert_eq!(found(30), (Vec::new(), true));
        assert_eq!(found(31), (Vec::new(), false));
    }

    #[test]
    fn a_marker_is_read_from_its_name_and_from_no_other() {
        let marker = Marker { epoch: 0xfe, born: Some(MessageId::new(7, 0)) };
        assert_eq!(Marker::read(b"tidemill-epoch:00000000000000fe:7-0"), Some(marker));
        let unborn = Marker { epoch: u64::MAX, born: None };
        assert_eq!(Marker::read(b"tidemill-epoch:ffffffffffffffff:0-0"), Some(unborn));
        for name in
            ["workers", "tidemill-epoch:", "tidemill-epoch:1", "tidemill-epoch:g:1-0", "tidemill-epoch:1:x"]
        {
            assert_eq!(Marker::read(name.as_bytes()), None, "{name}");
        }
        assert_eq!(new_epoch().len(), 16);
        assert_ne!(new_epoch(), new_epoch());
    }
}
