//! What golden scripts can say to a lock table.

use super::notation::{Mode, Txn, Wanted};
use proto::TxnId;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use truetime::Timestamp;
use txn::server::locks::{Changes, LockTable, Ticket};

#[derive(goldenscript::Command)]
pub enum Command {
    /// `lock t3 shared=a exclusive=b..d`: asks for spans, in this order.
    Lock(Txn, Vec<(Mode, Wanted)>),
    /// The transaction ends.
    Release(Txn),
    /// It is prepared, or deciding: never wounded from now on.
    Immune(Txn),
    /// Somebody does not wait any longer.
    Withdraw(Ticket),
    /// A new leader finds a prepared transaction.
    Restore(Txn, Vec<(Mode, Wanted)>),
    /// The table as people see it; times are microseconds.
    Table,
    /// Whether a senior waits for what the transaction holds.
    Hinders(Txn),
}

/// A table; each command takes a millisecond.
#[derive(Default)]
pub struct Runner {
    table: LockTable,
    ticket: Ticket,
    ms: u64,
    /// Whose tickets they are, of those that wait.
    waiting: BTreeMap<Ticket, TxnId>,
    /// Tried before this command.
    tries: u64,
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(
        &mut self,
        command: &Command,
        _: &goldenscript::Context,
    ) -> Result<String, Box<dyn Error>> {
        let mut changes = Changes::default();
        let mut output = String::new();
        self.ms += 1;
        self.tries = self.table.tries();
        let now = Timestamp::from_micros(self.ms * 1_000);
        match command {
            Command::Lock(txn, wanted) => {
                self.ticket += 1;
                self.waiting.insert(self.ticket, txn.0);
                let spans = wanted.iter().map(|(mode, span)| (span.0.clone(), mode.0)).collect();
                self.table.request(self.ticket, txn.0, txn.age(), spans, now, &mut changes);
                self.changes(changes, Some(self.ticket), &mut output)?;
            }
            Command::Release(txn) => {
                self.table.release(txn.0, now, &mut changes);
                self.waiting.retain(|_, waiting| *waiting != txn.0);
                self.changes(changes, None, &mut output)?;
                let tries = self.table.tries() - self.tries;
                writeln!(output, "{tries} tried")?;
            }
            Command::Immune(txn) => self.table.make_immune(txn.0),
            Command::Withdraw(ticket) => {
                self.table.withdraw(*ticket, now, &mut changes);
                self.waiting.remove(ticket);
                self.changes(changes, None, &mut output)?;
            }
            Command::Restore(txn, wanted) => {
                let spans = wanted.iter().map(|(mode, span)| (span.0.clone(), mode.0));
                self.table.restore(txn.0, txn.age(), spans, now);
            }
            Command::Table => writeln!(output, "{}", self.table.report(1_000))?,
            Command::Hinders(txn) => match self.table.hinders_senior(txn.0) {
                true => writeln!(output, "{} is in the way of a senior", txn.0)?,
                false => writeln!(output, "{} is in no senior's way", txn.0)?,
            },
        }
        Ok(output)
    }
}

impl Runner {
    fn changes(
        &mut self,
        changes: Changes,
        asked: Option<Ticket>,
        output: &mut String,
    ) -> Result<(), std::fmt::Error> {
        for txn in changes.wounded {
            writeln!(output, "{txn} is wounded")?;
            self.waiting.retain(|_, waiting| *waiting != txn);
        }
        for txn in changes.hindering {
            writeln!(output, "{txn} is in the way, its coordinator should hear of it")?;
        }
        for (txn, ticket) in changes.granted {
            writeln!(output, "{txn} has all of ticket {ticket}")?;
            self.waiting.remove(&ticket);
        }
        if let Some((ticket, txn)) = asked.and_then(|ticket| self.waiting.get_key_value(&ticket)) {
            writeln!(output, "{txn} waits with ticket {ticket}")?;
        }
        Ok(())
    }
}
