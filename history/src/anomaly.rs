//! Names of what can be wrong.

use std::fmt;

/// What a history shows that no serial order in real time could show. Each is what a person calls
/// it; which transactions show it is in the [`Story`](crate::Story).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Anomaly {
    /// A read of what was rolled back, of what its writer overwrote before it committed, or of what
    /// nobody wrote.
    DirtyRead,
    /// Two read one version of a key and both wrote the key: the second wrote over what it had not
    /// seen.
    LostUpdate,
    /// Two (or three in a circle) read what the next one was about to write, and wrote different
    /// keys: each decided on what no longer held.
    WriteSkew,
    /// A read that misses what was acknowledged, or shown to somebody, before it began.
    StaleRead,
    /// One write was acknowledged before another began, and yet there is a reader of the second who
    /// does not see the first.
    CausalReverse,
    /// Two writes that nobody ordered; one reader sees only the first, another only the second.
    LongFork,
    /// A snapshot that is none: its reads fit no single instant, or a read at the same timestamp
    /// has another answer.
    NonRepeatableSnapshot,
    /// A write that was acknowledged, and that nobody ever saw who should have.
    LostWrite,
    /// A timestamp that contradicts what was read, or who was acknowledged first.
    WrongOrder,
    /// Two writes of one key at one timestamp.
    TimestampTie,
    /// A list whose elements are not those that were appended, in the order of their timestamps.
    ListOutOfOrder,
}

impl Anomaly {
    /// All of them.
    pub const ALL: [Anomaly; 11] = [
        Anomaly::DirtyRead,
        Anomaly::LostUpdate,
        Anomaly::WriteSkew,
        Anomaly::StaleRead,
        Anomaly::CausalReverse,
        Anomaly::LongFork,
        Anomaly::NonRepeatableSnapshot,
        Anomaly::LostWrite,
        Anomaly::WrongOrder,
        Anomaly::TimestampTie,
        Anomaly::ListOutOfOrder,
    ];

    /// As people write it: `lost update`.
    pub fn name(self) -> &'static str {
        match self {
            Anomaly::DirtyRead => "dirty read",
            Anomaly::LostUpdate => "lost update",
            Anomaly::WriteSkew => "write skew",
            Anomaly::StaleRead => "stale read",
            Anomaly::CausalReverse => "causal reverse",
            Anomaly::LongFork => "long fork",
            Anomaly::NonRepeatableSnapshot => "non-repeatable snapshot",
            Anomaly::LostWrite => "lost write",
            Anomaly::WrongOrder => "wrong order of timestamps",
            Anomaly::TimestampTie => "two writes at one timestamp",
            Anomaly::ListOutOfOrder => "list out of order",
        }
    }

    /// The rules of the protocol that forbid it.
    pub fn rule(self) -> &'static str {
        match self {
            Anomaly::DirtyRead => "X1/X9",
            Anomaly::LostUpdate | Anomaly::WriteSkew => "X1/X2/X3",
            Anomaly::StaleRead => "X1/R3/R4",
            Anomaly::CausalReverse => "X7/X8",
            Anomaly::LongFork => "R6",
            Anomaly::NonRepeatableSnapshot => "R1/R6",
            Anomaly::LostWrite => "P1",
            Anomaly::WrongOrder => "X7/X8",
            Anomaly::TimestampTie => "L4",
            Anomaly::ListOutOfOrder => "X1",
        }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
