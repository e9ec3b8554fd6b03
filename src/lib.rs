//! birdtape keeps a *tape* of real-time tweet streams that can be trusted: every envelope byte for byte, every hole known,
//! and played back as a server that the providers' own clients cannot tell from the real one.
//!
//! # The map
//!
//! A room is a module. It imports only rooms of the floors below it; `tests/it/rooms.rs` checks that.
//!
//! ```text
//!            cli                      arguments, printing, exit codes
//!          testing                    a fake provider in a few lines
//!           config                    file + environment -> checked options
//!   record  backfill  import  replay  fixture  export  upkeep   the jobs
//!   archive   provider   net          a durable tape | protocols without I/O | sockets and clocks
//!   segment   catalog                 the files that are the truth | the index that can be made again
//!            model                    the words everybody speaks
//! ```
//!
//! | room | owns | never |
//! | --- | --- | --- |
//! | [`model`] | ids, times, records, events, gaps, secrets | I/O, a clock, a provider's JSON |
//! | [`segment`] | the format on disk: lines, blocks, commits, sealing, what a torn tail proves | SQL, providers |
//! | [`catalog`] | SQLite: everything that can be asked without reading segments | anything that is not in the segments |
//! | [`archive`] | the durable order, recovery, the gap ledger, reading, verifying | providers' JSON, a clock |
//! | [`provider`] | what the four providers say, client and fake server, as machines; made-up worlds | sockets, a clock |
//! | [`net`] | WebSocket, HTTP, TLS, the fake server's sockets, the clocks | providers, tapes |
//! | [`record`] | provider client + net → archive | the command line |
//! | [`backfill`] | gaps → provider's history + net → archive, with proof | what a page means |
//! | [`import`] | lines that others recorded → archive | the network |
//! | [`replay`] | archive → provider's fake server + net | dialling out |
//! | [`export`] | archive → tables in columns, with proof that nothing is lost on the way | providers' JSON |
//! | [`fixture`] | archive → a few envelopes, redacted, and fewer | the network |
//! | [`upkeep`] | archive → a sounder and smaller one: scrub, repair, compact, prune | what happens to one segment |
//! | [`testing`] | the short way to a replay for tests in Rust | what a replay does |
//! | [`config`] | what was typed → what it means | jobs' work |
//! | [`cli`] | what a person or a script meets | everything else |
//!
//! An envelope's way: a socket in `net` gives bytes with their instant; `record` queues them for the archive before the
//! machine in `provider` sees them; `archive` appends them to a segment, syncs it, commits the catalog, and only then
//! does anybody hear of it. Its way back: `archive` reads the segment, `replay` paces it, the fake server sends it.
//!
//! # Glossary
//!
//! One word, one thing, in code, SQL, flags and docs.
//!
//! | word | means |
//! | --- | --- |
//! | tape | a directory: sealed and open segments, a catalog, an identity |
//! | source | a configured connection to a provider; its name is its directory on the tape |
//! | scope | what a source promises to cover: `*` (everything it delivers) or a topic; has versions |
//! | envelope | one provider message, byte-exact |
//! | record | one line of a segment: an envelope (`frame`) or a fact of ours (`open`, `close`, `sent`, `http`, `note`) |
//! | `n` | a record's number in its source, dense from 1; a hole is damage |
//! | segment | a file of records; open while it is written, then sealed: what it unpacks to never changes |
//! | block | one zstd frame in a segment |
//! | commit | flush, sync, catalog transaction, in that order; what it covers may be announced |
//! | event | one identified thing inside an envelope: a post's content, its meta, a follow |
//! | received_at | ours, at the socket; `at` in a record |
//! | provider_at | the provider's stamp |
//! | published_at | the author's, usually from the post's id |
//! | evidence | what proves a scope was being delivered: a frame, a heartbeat, a pong |
//! | coverage | stretches of published time known to be whole |
//! | gap | a stretch that may miss something, with cause and state; its id is source and number |
//! | lateness horizon | how late a scope's events may come; a gap is that much wider than its outage |
//! | budget | what filling may spend, in a run or a day (UTC), in requests, items and money |
//! | table | a kind of row that an export writes; has columns, and a partition for each date |
//! | sighting | what one envelope says of one row of a table; several make one row |
//! | pen | through which pages of history and steps of gaps reach the tape's one writer |
//! | scrub | to read every sealed byte again, slowly; damage becomes a gap |
//! | repair | to bring a damaged segment back from a copy of the tape, or its records from history |
//! | compact | to pack a sealed segment harder; what it unpacks to (its content) stays, byte for byte |
//! | prune | to remove the oldest sealed segments on purpose |
//! | remains | what a tape keeps of pruned segments: scopes, gaps, coverage, digests |
//! | provenance (`via`) | how a record came: `ws`, `sse`, `lines`, `import` … |

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make their own instants"))]

pub mod model;

pub mod catalog;
pub mod segment;

pub mod archive;
#[allow(clippy::disallowed_methods, reason = "the one room that reads the clock")]
pub mod net;
pub mod provider;

pub mod backfill;
pub mod export;
pub mod fixture;
pub mod import;
pub mod record;
pub mod replay;
pub mod upkeep;

pub mod config;

pub mod testing;

pub mod cli;
