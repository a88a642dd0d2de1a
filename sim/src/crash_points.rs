//! The points of a commit over several groups at which a leader can be struck.

use std::fmt;

/// A point of a commit over several groups, at its coordinator or at a participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum Point {
    /// The commit request is here, and no participant has been asked to prepare.
    BeforePrepares,
    /// Some participants have prepared, and others not.
    SomePrepared,
    /// All have prepared, and the last one's word is just arriving: there is no timestamp yet.
    AllPrepared,
    /// The commit record is in the leader's log, on its way.
    Proposed,
    /// The commit record is chosen, and its timestamp has not passed.
    CommitWait,
    /// The wait is over, and nobody has heard.
    BeforeAck,
    /// The client is being answered, and no participant has been told.
    BeforeNotify,
    /// Some participants have been told, and others not.
    SomeNotified,
    /// All participants have acknowledged, and the record is still there.
    BeforeCollected,
    /// The prepare request is here, and nothing is logged.
    BeforeLogged,
    /// The prepare record is in the leader's log, on its way.
    PrepareProposed,
    /// Prepared, and neither coordinator nor client has heard.
    BeforeReply,
    /// Prepared, the coordinator is being told, its decision unknown.
    InDoubt,
    /// The decision is arriving, and not logged.
    OutcomeReceived,
    /// The decision is chosen, and has not taken effect.
    BeforeApply,
    /// The decision has taken effect, and the coordinator has not heard.
    BeforeAcknowledged,
}

impl Point {
    /// How many there are.
    pub const COUNT: usize = Point::COORDINATOR.len() + Point::PARTICIPANT.len();

    /// Those of a coordinator.
    pub const COORDINATOR: [Point; 9] = [
        Point::BeforePrepares,
        Point::SomePrepared,
        Point::AllPrepared,
        Point::Proposed,
        Point::CommitWait,
        Point::BeforeAck,
        Point::BeforeNotify,
        Point::SomeNotified,
        Point::BeforeCollected,
    ];

    /// Those of a participant.
    pub const PARTICIPANT: [Point; 7] = [
        Point::BeforeLogged,
        Point::PrepareProposed,
        Point::BeforeReply,
        Point::InDoubt,
        Point::OutcomeReceived,
        Point::BeforeApply,
        Point::BeforeAcknowledged,
    ];

    /// What reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Point::BeforePrepares => "before a prepare is sent",
            Point::SomePrepared => "after some are prepared",
            Point::AllPrepared => "all prepared, no timestamp",
            Point::Proposed => "commit record proposed",
            Point::CommitWait => "chosen, in commit wait",
            Point::BeforeAck => "after the wait, before the ack",
            Point::BeforeNotify => "after the ack, before notify",
            Point::SomeNotified => "after part of the notifies",
            Point::BeforeCollected => "before the record is collected",
            Point::BeforeLogged => "before prepare is logged",
            Point::PrepareProposed => "prepare proposed",
            Point::BeforeReply => "prepared, before reply",
            Point::InDoubt => "in doubt",
            Point::OutcomeReceived => "outcome received",
            Point::BeforeApply => "outcome logged, before apply",
            Point::BeforeAcknowledged => "applied, before ack",
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
