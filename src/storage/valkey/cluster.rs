//! Several servers: the shards of a cluster, or of servers that the settings name, and which of them has what.
//!
//! | file | owns |
//! |---|---|
//! | `map` | what a server says of who has which slots |
//! | `asking` | asking the servers for it |
//! | `matching` | which shard each primary is |
//! | `others` | what a shard knows of those beside it |
//! | `places` | the shards that there are, and where what is asked for lives |
//! | `seat` | where a shard is served now |
//! | `keeping` | keeping the shards up with the servers |
//! | `tries` | following what moves |
//! | `queueing` | appends, to the lanes of who has their topic |
//!
//! In a cluster the servers decide everything: which has which slots, which takes over from which. A node asks them again every few
//! seconds, whenever a connection is lost, and whenever one says that something is elsewhere; it believes the one that
//! knows the latest epoch. A shard is what serves a set of slots, and outlives the server that does: the replica that
//! takes over is the same shard at another address, and what waits for the shard waits for that.
//!
//! Where the settings place topics on servers by their names, each server is a shard from the beginning to the end, and
//! nothing moves.

pub(super) mod asking;
mod keeping;
pub(super) mod map;
mod matching;
pub(super) mod others;
pub(super) mod places;
mod queueing;
pub(super) mod seat;
mod tries;
