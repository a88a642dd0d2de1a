//! What can be wrong with certificates, by name.

use std::fmt;

/// What is wrong with a certificate, or with two of them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// The seal is not that of the key over this certificate: somebody changed it, or made it up.
    ForgedSeal,
    /// There is a key, and no seal.
    NoSeal,
    /// It is another transaction's, or has another timestamp than its client was told.
    NotItsReceipt,
    /// Its client heard of the end before it began.
    EndedBeforeBegun,
    /// A participant had prepared above its timestamp (X7).
    BelowPrepare,
    /// Its timestamp may have passed when its request arrived (X7).
    NotAboveArrival,
    /// Its timestamp may not have passed when the commit wait ended (X8).
    WaitCutShort,
    /// The coordinator's clock went back (T1).
    ClockWentBack,
    /// The clock had no bound, or nobody says which it was (T5, T6).
    NoBound,
    /// Another node's clock than that of the node which led the group (T6).
    AnothersClock,
    /// A group prepared twice, or for itself (X6).
    OddParticipants,
    /// The parts of its course are longer than the whole.
    OddTiming,
    /// Two transactions have one timestamp in one group (L4).
    SharedTimestamp,
    /// One transaction has two certificates (X9).
    TwoCertificates,
    /// A later ballot of a group gave out a lower timestamp (L3, L4).
    BallotsCross,
    /// One was acknowledged before the other began, and has no lower timestamp (X7, X8).
    WrongOrder,
}

impl Flaw {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Flaw::ForgedSeal => "forged seal",
            Flaw::NoSeal => "no seal",
            Flaw::NotItsReceipt => "not its receipt",
            Flaw::EndedBeforeBegun => "ended before begun",
            Flaw::BelowPrepare => "below a prepare",
            Flaw::NotAboveArrival => "not above its arrival",
            Flaw::WaitCutShort => "commit wait cut short",
            Flaw::ClockWentBack => "clock went back",
            Flaw::NoBound => "clock without a bound",
            Flaw::AnothersClock => "another node's clock",
            Flaw::OddParticipants => "odd participants",
            Flaw::OddTiming => "odd timing",
            Flaw::SharedTimestamp => "shared timestamp",
            Flaw::TwoCertificates => "two certificates",
            Flaw::BallotsCross => "ballots cross",
            Flaw::WrongOrder => "wrong order",
        }
    }

    /// The rule that is broken.
    pub fn rule(self) -> &'static str {
        match self {
            Flaw::ForgedSeal | Flaw::NoSeal | Flaw::NotItsReceipt | Flaw::OddTiming => "X13",
            Flaw::EndedBeforeBegun | Flaw::ClockWentBack => "T1",
            Flaw::BelowPrepare | Flaw::NotAboveArrival => "X7",
            Flaw::WaitCutShort => "X8",
            Flaw::NoBound => "T5/T6",
            Flaw::AnothersClock => "T6",
            Flaw::OddParticipants => "X6",
            Flaw::SharedTimestamp => "L4",
            Flaw::TwoCertificates => "X9",
            Flaw::BallotsCross => "L3/L4",
            Flaw::WrongOrder => "X7/X8",
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A flaw with those who show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// What it is called.
    pub flaw: Flaw,
    /// The lines of the file that show it: one or two.
    pub lines: Vec<usize>,
    /// What they say, and why that cannot be.
    pub story: String,
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.lines.iter().map(usize::to_string).collect();
        let noun = if lines.len() == 1 { "line" } else { "lines" };
        let Objection { flaw, story, .. } = self;
        write!(f, "{flaw} ({}), {noun} {}: {story}", flaw.rule(), lines.join(" and "))
    }
}
