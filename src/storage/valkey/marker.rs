//! The marker of a stream: which of the topics of its name it is. It is a consumer group without consumers,
//! because a group lies in the stream's key: it goes where the stream goes, and is gone with it.
//!
//! `tidemill-epoch:<16 hexadecimal digits>:<id>`: a number that no other topic has, and the smallest id that the
//! topic can give; `0-0` where nobody knows that, because another producer has made it.

use tidemill_proto::MessageId;

use super::entry::read_id;
use super::resp::Reply;

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

/// Returns the digits of a new epoch.
pub(super) fn new_epoch() -> String {
    format!("{:016x}", crate::chance::random())
}

/// Returns the marker among a stream's groups, as `XINFO GROUPS` tells them, and how many messages the stream
/// was given, where the server says so: the marker has read none, so it lags behind by all.
pub(super) fn find(reply: Reply<'_>) -> Option<(Marker, Option<u64>)> {
    let Reply::Array(mut groups) = reply else { return None };
    groups.find_map(|group| {
        let Reply::Array(mut parts) = group else { return None };
        let (mut marker, mut lag) = (None, None);
        while let Some(name) = parts.next() {
            let value = parts.next()?;
            match name.bytes()? {
                b"name" => marker = Marker::read(value.bytes()?),
                b"lag" => lag = value.integer().and_then(|lag| u64::try_from(lag).ok()),
                _ => {}
            }
        }
        Some((marker?, lag))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
