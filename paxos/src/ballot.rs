//! Places in a log, ordered by how new they are.
//!
//! A [`Ballot`] belongs to one node, and that node leads at most once under it: so ballot and slot
//! together name one value for ever, and comparing ballots first, slots second, tells which of two
//! logs is more complete (P3, P8).

use proto::{Ballot, Slot};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A slot, and the ballot under which the value in it was first proposed. Prints as `b2.n1#7`.
///
/// Ordered by ballot, then slot: the log whose last entry stands higher is more complete.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Who proposed it, and when.
    pub ballot: Ballot,
    /// Where it stands.
    pub slot: Slot,
}

impl Position {
    /// Before the first entry of any log.
    pub const ORIGIN: Position =
        Position { ballot: Ballot { round: 0, node: proto::NodeId(0) }, slot: Slot::ZERO };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.ballot, self.slot)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
