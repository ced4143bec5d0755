//! Tidemill: a persistent message relay built on streams.
//!
//! Programs publish messages to topics over HTTP and WebSocket. Tidemill keeps each message as an
//! entry of a Valkey Stream, or in memory, behind one storage contract, and serves the same messages
//! as pages and live, as WebSocket, server-sent events, NDJSON or long-poll.
//!
//! # Words
//! One word per idea, in code, wire, logs and documents. What users see: **topic**, **message** (one stored
//! entry), **message id** (`<ms>-<seq>`), **cursor** (the id after which a reader goes on), **publish**,
//! **read** (a page), **trim**, **retention**, **pattern** (a text with `*`, as `orders.*`, that stands for
//! every topic whose name it matches), **selector** (a topic's name, or a pattern in its place), **problem**
//! (an error as a client reads it), **gap** (messages that a reader asked for and that are gone).
//!
//! Around them: **backend** (memory, valkey), **node** (one running relay, with an id that it makes up when
//! it starts), **caller** (who publishes, reads or changes), **gate** (the relay as one caller may use it),
//! **session** (what a caller has open: a WebSocket, a stream, a long-poll), **drain** (of a node: to let go of all clients
//! before it is stopped), **log-in** (what a user's name and
//! password give: an access token for a short time, and a refresh token for the next two), **device** (a program
//! that wants a log-in and that a user lets in elsewhere, with a code), **sign-in** (a log-in by what a provider of
//! others says of who somebody is), **ticket** (what stands in the URL of one
//! stream or socket in place of a token), **cookie** (what a browser keeps of a log-in, and sends by itself), **transport** (what carries the
//! bytes of a client's connection), **listener** (where such connections come from), **fast path** (the way
//! of an eligible publish past the HTTP library and the router), **budget** (bytes that may be held at one
//! time), **hold** (the part of a budget that somebody has).
//!
//! Of what is no topic: **bucket** (a table of keys with their current values, and the log of its changes), **key**,
//! **value**, **revision** (which change of a bucket a value came with: the id of that change), **fence** (a number of a
//! lock that only grows), **fill** (that one of all who ask for a key puts it, under a token), **stale** (of a value: to be
//! replaced, and served meanwhile), **heat** (how often a key is read, in a form that stays true as that goes down).
//!
//! Of limits: **rate** (how much may be done in a time), **quota** (what is counted together, as the requests of
//! one caller), **allowance** (a part of what a quota has left, which a node draws in advance and spends), **meter**
//! (the quotas of one caller), **entrance** (where a transport learns who calls, counted from then on); and of limits
//! of applications, which have nothing to do with those: **policy** (so much in a time, and so much at once), **take** (to
//! ask whether something may be done, and to count it), **burst** (how much may be done at once).
//!
//! Of how a node works: **operation** (a publish, a read, or a command, which is anything else that a caller asks for), **slow** (of an
//! operation: it took longer than is set).
//!
//! Of work: **unattended** (of a group: it is not done, and no consumer has asked for its messages for a minute).
//!
//! Of what is measured: **point** (a value, with its time), **series** (of each minute of a day how many points it has, their
//! sum, the least and the greatest).
//!
//! Of storages: **layout** (how what is kept is written, as a number that a release turns up which writes it otherwise).
//!
//! Of traces: **span** (a piece of work with its beginning and end, as OpenTelemetry has it), **parent** (the span that another
//! one hangs under), **link** (what ties a span to others that are not its parent), **collector** (to whom spans are sent),
//! **sampled** (of a trace: kept, as whoever has begun it decided).
//!
//! Of storage: **epoch** (which of the topics that have had a name), **gap check** (what a read is to tell of
//! what is missing), **sweep** (one pass over all topics: of age retention, or for changes), **hint** (what a
//! backend tells of a topic that may have changed), **watch** (to want hints of what others do in a topic, or
//! of what relays do in all), **shard** (what a node has for one Valkey server), **home** (what tells which shard has
//! something), **placed** (of what has a name: on the server that the settings say), **supervised** (of a
//! connection to it: replaced when it is lost), **ability** (of a server: to be waited for until it has on its disk, or its
//! replicas have received, what was written), **lane** (the queue in which publishes of a topic wait for the
//! next pipeline), **doorbell** (the channel on which nodes tell each other that topics have changed),
//! **notice** (one message on it), **index** (what names topics, buckets or series, in order or by when something is due;
//! in **parts**, each in a slot of its own).
//!
//! Of copies: **frozen** (of a topic: it takes no message, and of a bucket: nothing is changed in it, as it is being taken
//! over from another storage, or was made read-only), **side** (what is copied from or to: a storage, or a relay), **source**, **target**, **pass** (once through all topics), **step** (one
//! question of a copy to a side, or one thing that it has done there), **identity** (what tells the servers of a side from all
//! others), **export** (a file with what a source has told, which is a source then), **record** (a part of one that is
//! checked by itself).
//!
//! Of live reading: **feed** (the one live reader of a topic on a node), **ring** (a feed's newest messages),
//! **reader** (what one connection reads: cursors), **subscription** (one topic of a reader: its cursor),
//! **shared batch** (messages that are encoded once for all readers in one place), **outlet** (the way to a
//! client, as a feed uses it), **parked** (of a reader that has everything: its cursors and outlet lie where
//! the feeds find them), **waker** (what a feed notifies for one topic of a reader), **encoding** (a way to
//! write a message), **covered** (of a topic: matched by a pattern that is read), **bookmark** (where a reader
//! of a pattern goes on; its client keeps it as the pattern's cursor).
//!
//! # Map
//! | room | owns |
//! |---|---|
//! | `tidemill-proto` | the wire contract: types, limits, problem codes. No I/O |
//! | `tidemill-resp` | the form in which Valkey is spoken to: commands and replies. No I/O |
//! | `tidemill-tls` | how connections are encrypted, to clients and to others, and what is trusted |
//! | [`tidemill_client`] | a client of a relay, for the command line and for other programs |
//! | `tidemill-bench` | the load generator behind `tidemill bench`, where the feature `bench` is on |
//! | [`config`] | one struct of settings: flag, environment, file, default |
//! | [`cli`] | one file per command |
//! | [`server`] | wiring, listening, draining |
//! | [`http`] | router, handlers, problem responses |
//! | [`console`] | the page in a browser from which a relay is looked at and run |
//! | [`metrics`] | what is counted, and how Prometheus reads it |
//! | [`ws`] | the WebSocket: upgrade, and the session loop |
//! | [`link`] | what carries a connection; one that has left HTTP, and what is still to be written to it |
//! | [`limits`] | how much who calls may do in a time, over all nodes together |
//! | [`access`] | who calls, what they may do, and what they have open |
//! | [`relay`] | the domain: what a publish or a read must satisfy before storage sees it; live reading |
//! | [`copying`] | copying topics and buckets from one side to another, which may be a file: what is asked of a side, and in which order |
//! | [`storage`] | the contract, in prose, and the two backends behind it |
//! | [`features`] | what a relay can be switched off in |
//! | [`budget`] | how many bytes may be held at one time, by all who share a budget |
//! | [`clock`] | the only place that asks the operating system for the time |
//! | [`slow`] | how the time of an operation is cut into parts, and what took long |
//! | [`thinned`] | how often the log is told of the same thing |
//! | [`traces`] | what a collector of OpenTelemetry is told, in spans |
//! | [`chance`] | random numbers that are no secrets, and jitter |
//!
//! Dependencies point one way: `http`, `ws` → `relay` → `storage` → `tidemill-proto`. A backend knows
//! `storage`, `slow` and `tidemill-proto` only, `tidemill-client` and `tidemill-bench` the latter alone, and of
//! the relay only `cli` knows them; `server`, `http` and `ws` know `link`, which knows none of them.
//! `tests/it/rooms.rs` has a line for each room, of what it may use, and fails on anything else, and on
//! files that know each other in a circle.
//!
//! # How a message travels
//! An eligible publish of one message is read by `server::fast_path` and answered without the HTTP library;
//! every other request goes through the router. A handler borrows the payload from the
//! request body as raw JSON: it is checked, never parsed into a tree. `relay` checks names and limits.
//! The backend appends it and returns its id; in Valkey the topic's lane sends everything that waits as
//! one pipeline, so batches form by themselves while the previous one is under way. Only then does the
//! backend tell the topic's feed, and is the publisher answered. A page copies the stored payload bytes
//! into the answer.
//!
//! A live reader is a cursor. While it lies before what its topic's feed holds in the ring, it reads
//! pages from storage; from there on it is served from the ring, whose messages are encoded once for
//! all. A reader that has everything parks, which is to leave its cursors and its outlet where the feed
//! finds them: the feed then writes the next messages to all of them, one after the other, and wakes only
//! those whose clients do not take everything at once. `relay::live` has the rules by which nothing
//! falls between, and knows no encoding: how a message is written is told by `http` and `ws`.
//!
//! **Invariant:** whoever publishes, reads, changes or deletes passes the one gate as a caller
//! (`relay.as_caller`), over every transport.
//!
//! **Invariant:** an accepted publish is one that the backend confirmed.
//!
//! **Invariant:** a read never creates or changes anything; who would fill a key (`?fill=`) does more than read it.
//!
//! **Invariant:** nothing is queued per live reader but the rest of one write, so a slow one costs
//! nobody anything.
//!
//! **Invariant:** doorbells and hints only say "look again": losing one costs time, never a message.
//!
//! **Invariant:** no timer stands in the path of a publish.
//!
//! **Invariant:** two roads lead to Valkey. What messages pass over (appends, pages, live reads, doorbells)
//! are connections of our own, one for each kind of work, so that nothing large stands in front of an
//! append: the data plane. Everything else goes over the client library, which the files of that control
//! plane alone may name (`tests/it/rooms.rs` has their list).

pub mod access;
pub mod budget;
pub mod chance;
pub mod cli;
pub mod clock;
pub mod config;
pub mod console;
pub mod copying;
pub mod features;
pub mod http;
pub mod limits;
pub mod link;
pub mod metrics;
pub mod relay;
pub mod server;
pub mod slow;
pub mod storage;
pub mod thinned;
pub mod traces;
pub mod ws;

pub use tidemill_proto as proto;
