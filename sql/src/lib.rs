//! # SQL
//!
//! A thin front end: statements become reads, locks, buffered writes and scans of the transaction
//! layer ([`txn::client`]). Reading expressions is `sqlparser`'s work, running queries is
//! DataFusion's; what is ours is the catalog, the encodings, what is pushed down into tablets,
//! the fast path for single rows, and the meaning of transactions.
//!
//! ```text
//! text ─ parse ─> Statement ─┬─ point (whole key given)  ─────────────┐
//!                            ├─ engine (DataFusion) ── scan ──────────┤─> txn::client
//!                            └─ dml ── write (parents, children) ─────┘
//! ```
//!
//! ## The words
//! - A [`Database`] is opened over a client of the groups. A [`Session`] runs one statement after
//!   the other, with `BEGIN` and `COMMIT`; [`Database::run`] runs a closure as a transaction,
//!   again while it is aborted; [`Database::read_only`] reads at one timestamp;
//!   [`Database::apply`] writes rows without SQL.
//! - A [`catalog::Table`] has a mandatory primary key. A table *interleaved* in a parent has keys
//!   that begin with its parent's, so a root row and all rows below it lie side by side: a
//!   *directory*, which placement keeps together (S2). [`keys`] says how; [`keys::directory_of`]
//!   finds the directory of a key without a schema.
//! - A row is one versioned value ([`row`]); the catalog's rows are versioned like all others, so
//!   a read at an old timestamp uses the schema of that timestamp (R6).
//! - A [`ResultSet`] streams its rows in bounded memory. An [`SqlError`] has a kind, a place in
//!   the statement and a hint.
//!
//! ## Meaning
//! - All reads of one query are at one timestamp (read-only), or under the locks of the
//!   transaction (read-write); a scan locks its range, so no phantoms appear (X1).
//! - A statement is atomic: what it wrote before it failed is taken back, and the transaction
//!   goes on. Only `Aborted` ends it; then the *whole* transaction is run again (X11).
//! - A change looks first and writes then: it never sees its own writes.
//! - INT64 never wraps around, `/` divides FLOAT64, a division by zero is an error, NULLs come
//!   first: as GoogleSQL has it, where DataFusion differs. Times without a zone are UTC.
//!
//! ## What is absent, on purpose
//! No socket and no file: the client below carries requests, and queries do not spill to disk but
//! fail when they take too much memory. No secondary indexes, views, defaults, generated columns,
//! `CHECK`, `ALTER TABLE`, sequences or types beyond the seven of [`Type`] yet; each is refused by
//! name. A schema change that others must know of first is announced for a timestamp to come (S1); see
//! `docs/decisions/0010-schema-leases.md`.

pub mod catalog;
mod error;
pub mod execute;
pub mod keys;
pub mod parse;
pub mod row;
pub mod scan;
mod value;

pub use error::{ErrorKind, Position, Result, SqlError};
pub use execute::{
    Database, Mutation, MutationKind, Options, Params, ReadOnlyTransaction, ResultColumn,
    ResultSet, SCHEMA_LEASE, Session, Tag, Transaction, params,
};
pub use keys::{CATALOG_PREFIX, directory_of};
pub use parse::{StatementText, split};
pub use value::{Row, Type, Value, timestamp_text};
