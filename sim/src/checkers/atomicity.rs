//! X6, X9: all groups of a transaction decide alike, and nothing runs twice.
//!
//! Judged by what the groups have logged, in the end, slot by slot:
//! 1. A transaction has one commit record, in one group, or none.
//! 2. Where there is one, no group has logged that it was aborted, and every decision that was
//!    logged says so, with its timestamp.
//! 3. Every participant that the record names has logged its prepare, at the timestamp it names.
//! 4. A decision to commit that some group has logged has a commit record.
//! 5. Values carry the attempt that wrote them: no attempt writes what another one made.

use crate::history::{Cell, Violation};
use proto::command::{CommitRecord, PrepareRecord};
use proto::keys::Write;
use proto::request::Outcome;
use proto::{Command, GroupId, Slot, TxnId};
use std::collections::BTreeMap;

/// What the groups have logged of one transaction.
#[derive(Default)]
struct Logged<'l> {
    commit: Option<(GroupId, Slot, &'l CommitRecord)>,
    aborts: Vec<(GroupId, Slot)>,
    prepares: BTreeMap<GroupId, &'l PrepareRecord>,
    decisions: Vec<(GroupId, Slot, Outcome)>,
}

fn broken(rule: &str, what: String) -> Result<(), Violation> {
    Err(Violation::new("atomicity", rule, what))
}

/// Judges all that was chosen, of each group in the order of its slots.
///
/// # Errors
/// The violation.
pub fn check(log: &[(GroupId, Slot, Command)]) -> Result<(), Violation> {
    let mut all: BTreeMap<TxnId, Logged<'_>> = BTreeMap::new();
    for (group, slot, command) in log {
        let (group, slot) = (*group, *slot);
        match command {
            Command::Noop | Command::Forget { .. } => {}
            Command::Commit(record) => {
                own_values(record.txn, &record.writes)?;
                let logged = all.entry(record.txn).or_default();
                if let Some((other, at, _)) = logged.commit.replace((group, slot, record)) {
                    let what = format!(
                        "{} commits in {other} {at}, and again in {group} {slot}",
                        record.txn
                    );
                    return broken("X9", what);
                }
            }
            Command::Abort { txn, .. } => all.entry(*txn).or_default().aborts.push((group, slot)),
            Command::Prepare(record) => {
                own_values(record.txn, &record.writes)?;
                all.entry(record.txn).or_default().prepares.insert(group, record);
            }
            Command::Decide { txn, outcome } => {
                all.entry(*txn).or_default().decisions.push((group, slot, *outcome));
            }
        }
    }
    all.iter().try_for_each(|(txn, logged)| logged.judge(*txn))
}

/// Whether what an attempt writes was made by itself.
fn own_values(txn: TxnId, writes: &[Write]) -> Result<(), Violation> {
    let values = writes.iter().filter_map(|write| write.value.as_ref());
    let mut writers = values.filter_map(|value| Some(Cell::decode(value).ok()?.writer));
    match writers.find(|writer| *writer != txn) {
        Some(writer) => broken("X9", format!("{txn} writes what {writer} was to write")),
        None => Ok(()),
    }
}

impl Logged<'_> {
    fn judge(&self, txn: TxnId) -> Result<(), Violation> {
        let Some((by, slot, record)) = self.commit else {
            let committed = |decision: &&(GroupId, Slot, Outcome)| decision.2 != Outcome::Aborted;
            return match self.decisions.iter().find(committed) {
                Some((group, at, _)) => broken(
                    "X9",
                    format!("{txn} committed in {group} {at}, and nobody decided that"),
                ),
                None => Ok(()),
            };
        };
        let s = record.timestamp;
        if let Some((group, at)) = self.aborts.first() {
            let what =
                format!("{txn} committed in {by} {slot} at {s}, and aborted in {group} {at}");
            return broken("X9", what);
        }
        let other = |decision: &&(GroupId, Slot, Outcome)| decision.2 != Outcome::Committed(s);
        if let Some((group, at, outcome)) = self.decisions.iter().find(other) {
            let what =
                format!("{txn} committed in {by} {slot} at {s}, in {group} {at}: {outcome:?}");
            return broken("X9", what);
        }
        for (group, prepared) in &record.participants {
            let logged = self.prepares.get(group).map(|record| record.timestamp);
            if logged != Some(*prepared) {
                let what = format!(
                    "{txn} committed in {by} {slot}, for {group} was prepared at {prepared}; what \
                     {group} has logged: {logged:?}"
                );
                return broken("X6", what);
            }
        }
        Ok(())
    }
}

/// Judges what the groups remember in the end: the same of each transaction.
///
/// # Errors
/// The violation.
pub fn check_tables(
    tables: impl Iterator<Item = (GroupId, TxnId, Outcome)>,
) -> Result<(), Violation> {
    let mut known: BTreeMap<TxnId, (GroupId, Outcome)> = BTreeMap::new();
    for (group, txn, outcome) in tables {
        let (first, said) = *known.entry(txn).or_insert((group, outcome));
        if said != outcome {
            let what = format!("of {txn} {first} remembers {said:?}, {group} {outcome:?}");
            return broken("X9", what);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::request::Age;
    use truetime::Timestamp;

    const HERE: GroupId = GroupId(1);
    const THERE: GroupId = GroupId(2);

    fn txn() -> TxnId {
        TxnId { client: 1, seq: 7 }
    }

    fn t(us: u64) -> Timestamp {
        Timestamp::from_micros(us)
    }

    fn commit(at: u64) -> Command {
        let participants = vec![(THERE, t(5))];
        let record = CommitRecord { txn: txn(), timestamp: t(at), writes: vec![], participants };
        Command::Commit(record)
    }

    fn prepare() -> Command {
        Command::Prepare(PrepareRecord {
            txn: txn(),
            age: Age::default(),
            timestamp: t(5),
            coordinator: HERE,
            writes: Vec::new(),
            reads: Vec::new(),
        })
    }

    fn decide(outcome: Outcome) -> Command {
        Command::Decide { txn: txn(), outcome }
    }

    fn judge(here: Vec<Command>, there: Vec<Command>) -> Result<(), Violation> {
        let slots = |group, commands: Vec<Command>| {
            let numbered = commands.into_iter().zip(1..);
            numbered.map(move |(command, slot)| (group, Slot(slot), command))
        };
        check(&slots(HERE, here).chain(slots(THERE, there)).collect::<Vec<_>>())
    }

    #[test]
    fn catches_groups_that_do_not_decide_alike() {
        let done = Outcome::Committed(t(9));
        let abort = || Command::Abort { txn: txn(), at: t(12), participants: Vec::new() };
        assert!(judge(vec![commit(9)], vec![prepare(), decide(done)]).is_ok());
        assert!(judge(vec![abort()], vec![prepare(), decide(Outcome::Aborted)]).is_ok());
        for (here, there) in [
            (vec![commit(9)], vec![prepare(), decide(Outcome::Aborted)]),
            (vec![commit(9)], vec![prepare(), decide(Outcome::Committed(t(8)))]),
            (vec![commit(9), commit(11)], vec![prepare(), decide(done)]),
            (vec![commit(9), abort()], vec![prepare(), decide(done)]),
            (vec![commit(9)], Vec::new()),
            (Vec::new(), vec![prepare(), decide(done)]),
        ] {
            assert_eq!(judge(here, there).unwrap_err().checker, "atomicity");
        }
    }

    #[test]
    fn catches_an_attempt_under_another_name() {
        let key = proto::Key::from_static(b"k");
        let record = |writer| CommitRecord {
            txn: txn(),
            timestamp: t(9),
            writes: vec![Write { key: key.clone(), value: Some(Cell::number(writer, 1).encode()) }],
            participants: Vec::new(),
        };
        assert!(judge(vec![Command::Commit(record(txn()))], Vec::new()).is_ok());
        let other = TxnId { client: 1, seq: 6 };
        assert!(judge(vec![Command::Commit(record(other))], Vec::new()).is_err());
    }

    #[test]
    fn catches_tables_that_differ() {
        let row = |group, outcome| (group, txn(), outcome);
        let (done, other) = (Outcome::Committed(t(9)), Outcome::Aborted);
        assert!(check_tables([row(HERE, done), row(THERE, done)].into_iter()).is_ok());
        assert!(check_tables([row(HERE, done), row(THERE, other)].into_iter()).is_err());
    }
}
