//! What clients did and saw, in absolute time.

use bytes::Bytes;
use proto::TxnId;
use std::collections::BTreeMap;
use truetime::Timestamp;

/// The value of an account: its balance, and who wrote it. Writers are unique, so a read names
/// the transaction it read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Units.
    pub balance: i64,
    /// The attempt that wrote it.
    pub writer: TxnId,
}

impl Account {
    /// Its bytes.
    pub fn encode(self) -> Bytes {
        Bytes::from(proto::codec::encode(&(self.balance, self.writer)))
    }

    /// From its bytes.
    ///
    /// # Panics
    /// When the bytes are not an account: the store gave back what nobody wrote.
    pub fn decode(bytes: &[u8]) -> Account {
        let (balance, writer) = proto::codec::decode(bytes).expect("only accounts are written");
        Account { balance, writer }
    }
}

/// What is known of how an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Committed, or read, at this timestamp.
    At(Timestamp),
    /// The client never heard; settled at the end of the run.
    Unknown,
    /// Certainly nothing happened.
    Nothing,
}

/// One transaction, as its client saw it. Times are absolute, in nanoseconds.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Which client.
    pub client: u32,
    /// The attempt that ended it.
    pub txn: TxnId,
    /// Before its first message left.
    pub began_ns: u64,
    /// After the client heard the end; `u64::MAX`: never.
    pub ended_ns: u64,
    /// How.
    pub ending: Ending,
    /// Whether it wrote (a read-write transaction) or is a snapshot.
    pub writes: BTreeMap<Bytes, Account>,
    /// What it read; `None`: no row.
    pub reads: BTreeMap<Bytes, Option<Account>>,
}

impl Operation {
    /// Whether it is a read-only transaction.
    pub fn read_only(&self) -> bool {
        self.writes.is_empty()
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The checker, and with it the promise.
    pub checker: &'static str,
    /// The protocol rule.
    pub rule: String,
    /// What was seen.
    pub what: String,
}

impl Violation {
    /// A violation.
    pub fn new(checker: &'static str, rule: &str, what: impl Into<String>) -> Violation {
        Violation { checker, rule: rule.into(), what: what.into() }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}): {}", self.checker, self.rule, self.what)
    }
}
