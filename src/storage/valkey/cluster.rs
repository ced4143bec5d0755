//! Several servers that are one: the shards of a cluster, and which of them has what.
//!
//! | file | owns |
//! |---|---|
//! | `map` | what a server says of who has which slots |
//! | `asking` | asking the servers for it |
//! | `matching` | which shard each primary is |
//! | `places` | the shards that there are, and where what is asked for lives |
//! | `seat` | where a shard is served now |
//! | `keeping` | keeping the shards up with the servers |
//! | `tries` | following what moves |
//! | `queueing` | appends, to the lanes of who has their topic |
//!
//! The servers decide everything: which has which slots, which takes over from which. A node asks them again every few
//! seconds, whenever a connection is lost, and whenever one says that something is elsewhere; it believes the one that
//! knows the latest epoch. A shard is what serves a set of slots, and outlives the server that does: the replica that
//! takes over is the same shard at another address, and what waits for the shard waits for that.

mod asking;
mod keeping;
mod map;
mod matching;
pub(super) mod places;
mod queueing;
pub(super) mod seat;
mod tries;
