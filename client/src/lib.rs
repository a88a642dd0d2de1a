//! # The Rust API
//!
//! A [`Universe`] is a folder (or later, a cluster); a [`Database`] is what is in it. Everything a
//! program does goes through transactions:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let universe = client::Universe::open("flights").await?;
//! let db = universe.database();
//! let (moved, receipt) = db
//!     .run(|txn| async move {
//!         let none = sql::params(&[]);
//!         txn.execute("UPDATE account SET units = units - 1 WHERE id = 'a'", &none).await?;
//!         txn.execute("UPDATE account SET units = units + 1 WHERE id = 'b'", &none).await
//!     })
//!     .await?;
//! println!("{moved:?} committed at {}", receipt.timestamp);
//! # Ok(())
//! # }
//! ```
//!
//! - [`Universe`]: opens, creates and closes a folder; one process at a time. One replica of each
//!   group, or three (three servers, each with a folder of its own, in this process).
//! - [`Clocks`]: every node has a clock of its own, and so have the clients; which one is chosen with
//!   [`Builder::clock`]. Simulated ones can be made wrong while the universe runs.
//! - [`Database`], [`Transaction`], [`ReadOnlyTransaction`], [`Session`]: from `sql`. A closure
//!   given to `run` is run again when its transaction is aborted.
//! - [`CommitReceipt`]: the commit timestamp, and what proves it.
//!
//! ## What is absent, on purpose
//! No protocol: `spanserver` has the servers, `txn` both halves of transactions. Connecting to a
//! cluster over sockets is not built yet.

mod clocks;
mod error;
mod folder;
mod universe;

pub use clocks::{ClockChangeError, Clocks, NodeClock, Whose};
pub use error::OpenError;
pub use proto::request::{GroupStatus, Receipt as CommitReceipt};
pub use sql::{
    Database, Mutation, MutationKind, Params, ReadOnlyTransaction, ResultSet, Session, SqlError,
    Transaction, Type, Value, params,
};
pub use truetime::spec::{ClockChange, ClockSpec, ClockSpecs};
pub use txn::client::TimestampBound;
pub use universe::{Builder, Universe, UniverseStats};
