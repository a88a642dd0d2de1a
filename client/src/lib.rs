//! # The Rust API
//!
//! A [`Universe`] is a folder that this process opens, a [`Cluster`] a universe of servers that it
//! connects to; a [`Database`] is what is in either. Everything a program does goes through
//! transactions:
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
//! - [`Cluster`]: connects to servers; see [below](#servers-elsewhere).
//! - [`Clocks`]: every node has a clock of its own, and so have the clients; which one is chosen with
//!   [`Builder::clock`]. Simulated ones can be made wrong while the universe runs.
//! - [`Database`], [`Transaction`], [`ReadOnlyTransaction`], [`Session`]: from `sql`. A closure
//!   given to `run` is run again when its transaction is aborted.
//! - [`CommitReceipt`]: the commit timestamp, and what proves it.
//! - [`TimestampBound`]: how fresh a read without locks must be; [`SessionToken`]: what a session has
//!   seen, carried elsewhere; [`TransactionOptions`]: deadlines.
//!
//! ## Reads without locks
//! They see one snapshot of everything, and are served by any replica:
//!
//! ```no_run
//! # async fn example(db: std::sync::Arc<client::Database>) -> Result<(), client::SqlError> {
//! use client::{SessionToken, TimestampBound};
//! use std::time::Duration;
//!
//! // All that was acknowledged before; as it was ten seconds ago; as fresh as can be had at once.
//! let now = db.read_only(TimestampBound::Strong).await?;
//! let then = db.read_only(TimestampBound::ExactStaleness(Duration::from_secs(10))).await?;
//! let soon = db.read_only(TimestampBound::MaxStaleness(Duration::from_secs(15))).await?;
//! assert!(soon.timestamp() <= now.timestamp() || then.timestamp() < now.timestamp());
//!
//! // A session that goes on elsewhere finds what it has seen and written, and need not wait for
//! // more. Its token is a short text.
//! let (_, receipt) = db
//!     .run(|txn| async move {
//!         txn.execute("DELETE FROM account WHERE units = 0", &client::params(&[])).await
//!     })
//!     .await?;
//! let cookie = SessionToken::at(receipt.timestamp).to_string();
//! let token: SessionToken = cookie.parse()?;
//! let mine = db.read_only(TimestampBound::Session(token)).await?;
//! assert!(mine.timestamp() >= receipt.timestamp);
//! # Ok(())
//! # }
//! ```
//!
//! ## Deadlines, and giving up
//! A transaction may have a deadline for all its attempts together. Any future here may be dropped:
//! locks are released, and a commit that was under way is settled by the servers.
//!
//! ```no_run
//! # async fn example(db: std::sync::Arc<client::Database>) -> Result<(), client::SqlError> {
//! use client::{ErrorKind, TransactionOptions};
//! use std::time::Duration;
//!
//! let options =
//!     TransactionOptions { timeout: Some(Duration::from_secs(2)), ..Default::default() };
//! let done = db.run_with(options, |txn| async move {
//!     txn.execute("UPDATE account SET units = units + 1 WHERE id = 'a'", &client::params(&[])).await
//! });
//! match done.await {
//!     Ok((rows, receipt)) => println!("{rows} rows at {}", receipt.timestamp),
//!     Err(error) if error.kind == ErrorKind::DeadlineExceeded => println!("nothing happened"),
//!     Err(error) if error.kind == ErrorKind::OutcomeUnknown => println!("read it to find out"),
//!     Err(error) => return Err(error),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! ## Servers elsewhere
//! Any server of a cluster leads to all of them; several addresses may be given, of which one has to
//! answer. What comes after is the same as with a universe of one's own:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use client::{Cluster, ConnectOptions, Security};
//!
//! let security = Security::from_files(
//!     Some("client.pem".into()),
//!     Some("client-key.pem".into()),
//!     Some("ca.pem".into()),
//! )?;
//! let options = ConnectOptions { security, ..ConnectOptions::default() };
//! let servers = ["db1.example:7100", "db2.example:7100"];
//! let cluster = Cluster::connect(&servers, options).await?;
//! let mut session = cluster.database().session();
//! let rows = session.execute("SELECT id, units FROM account").await?.collect().await?;
//! println!("{} rows from {} servers", rows.len(), cluster.nodes().len());
//! # Ok(())
//! # }
//! ```
//!
//! Servers that die, stop, or move are found again without a word; a transaction whose commit was
//! under way then asks how it ended, and only if nobody can tell for about a minute the answer is
//! [`ErrorKind::OutcomeUnknown`]. Statements and queries run in the client's process. Its time comes
//! from the servers, which it believes (their clocks decide all timestamps anyway), unless
//! [`ConnectOptions::clock`] names a clock of its own.
//!
//! ## What is absent, on purpose
//! No protocol: `spanserver` has the servers, `txn` both halves of transactions, `rpc` what lies
//! between them.

mod clocks;
mod connect;
mod error;
mod folder;
mod universe;

pub use clocks::{ClockChangeError, Clocks, NodeClock, Whose};
pub use connect::{Cluster, ConnectError, ConnectOptions, ControlError};
pub use error::OpenError;
pub use proto::control::{ControlReply, ControlRequest, NodeReport};
pub use proto::request::{Certificate, GroupStatus, Receipt as CommitReceipt};
pub use proto::universe::UniverseMap;
pub use rpc::security::{Security, SecurityError};
pub use sql::{
    Database, ErrorKind, Mutation, MutationKind, Params, ReadOnlyTransaction, ResultSet, Session,
    SqlError, Transaction, Type, Value, params,
};
pub use truetime::spec::{ClockChange, ClockSpec, ClockSpecs};
pub use txn::client::{SessionToken, TimestampBound, TransactionOptions};
pub use universe::{Builder, Universe, UniverseStats};
