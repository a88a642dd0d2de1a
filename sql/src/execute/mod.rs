//! Running statements.
//!
//! ```text
//! Session, Transaction, ReadOnlyTransaction         who asks, and under which transaction
//!   └─ prepared   text → statement, once per text
//!        ├─ point     whole primary key given: one read, no DataFusion
//!        └─ engine    everything else: DataFusion over the tables of one reader
//!   └─ dml        which rows change, and into what
//!        └─ write     keys, parents, children, duplicates; puts into the transaction
//! schema        by which catalog, and up to when
//!   └─ schema_change   CREATE TABLE, DROP TABLE
//! ```

pub(crate) mod casts;
pub mod database;
pub(crate) mod dialect;
pub(crate) mod dml;
pub(crate) mod engine;
pub(crate) mod explain;
pub(crate) mod expressions;
pub mod mutation;
pub(crate) mod point;
pub(crate) mod prepared;
pub mod result;
pub(crate) mod scalar;
pub(crate) mod schema;
pub(crate) mod schema_change;
pub mod session;
pub(crate) mod show;
pub mod transaction;
pub(crate) mod write;

pub use database::{Database, Options, SCHEMA_LEASE};
pub use mutation::{Mutation, MutationKind};
pub use result::{ResultColumn, ResultSet, Tag};
pub use session::Session;
pub use transaction::{ReadOnlyTransaction, Transaction};

use crate::value::Value;
use std::collections::BTreeMap;

/// Values of query parameters: `@name` by `name`, lower case.
pub type Params = BTreeMap<String, Value>;

/// No parameters.
pub(crate) static NO_PARAMS: Params = BTreeMap::new();

/// Parameters from pairs: `params(&[("id", 1.into())])`.
pub fn params(pairs: &[(&str, Value)]) -> Params {
    pairs.iter().map(|(name, value)| (name.to_lowercase(), value.clone())).collect()
}
