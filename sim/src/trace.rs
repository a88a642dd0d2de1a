//! Events on one line each: the notation of `--trace`.

use paxos::{Entry, Message as M, Payload, SnapshotId};
use proto::request::{Body, ReadAt, Request};
use spanserver::Message;
use std::fmt::Write;

/// A message between servers: `g1 r1 accept b3.n1 after b2.n2#7 +2 chosen #6`.
pub fn message(message: &Message) -> String {
    match message {
        Message::Txn(m) => format!("{} {:?} from {} to {}", m.txn, m.body, m.from, m.to),
        Message::Paxos { group, seat, message } => {
            format!("{group} {seat} {}", paxos_message(message))
        }
        Message::AskMinNext { group, at } => format!("{group} ask-min-next {at}"),
        Message::MinNext { group, ballot, word } => {
            format!("{group} min-next {ballot} {} after {}", word.at, word.slot)
        }
        Message::Beat { anchor, digest, groups, promise, .. } => {
            format!("beat {anchor}.. {digest:08x} lists {} promises {promise}", groups.len())
        }
        Message::BeatTaken { anchor, digest, agrees, awake, .. } => {
            let answer = if *agrees { "taken" } else { "refused" };
            format!("beat {anchor}.. {digest:08x} {answer} awake {awake:?}")
        } // Of sleeping groups.
    }
}

fn paxos_message(message: &M) -> String {
    match message {
        M::Canvass { ballot, last } => format!("canvass {ballot} last {last}"),
        M::Canvassed { ballot, free, promised } => {
            let answer = if *free { "free" } else { "bound" };
            format!("canvassed {ballot} {answer} promised {promised}")
        }
        M::Prepare { ballot, last, released, .. } => match released {
            Some(released) => format!("prepare {ballot} last {last} released {released}"),
            None => format!("prepare {ballot} last {last}"),
        },
        M::Promise { ballot, .. } => format!("promise {ballot}"),
        M::Reject { ballot, promised } => format!("reject {ballot} promised {promised}"),
        M::Accept { ballot, prev, entries, chosen, truncate, .. } => {
            let entries = list(entries);
            format!("accept {ballot} after {prev}{entries} chosen {chosen} truncate {truncate}")
        }
        M::Accepted { ballot, upto, applied, .. } => {
            format!("accepted {ballot} upto {upto} applied {applied}")
        }
        M::Gap { ballot, prev, hint, .. } => format!("gap {ballot} before {prev} hint {hint}"),
        M::Durable { cuts, last } => format!("durable {last} cuts {cuts}"),
        M::Chunk { ballot, chunk } => {
            let last = if chunk.last { " last" } else { "" };
            format!(
                "chunk {ballot} {}:{} upto {} of {} bytes{last}",
                id(&chunk.id),
                chunk.index,
                chunk.base.position,
                chunk.data.len()
            )
        }
        M::ChunkTaken { ballot, id: of, next } => format!("chunk-taken {ballot} {}:{next}", id(of)),
        M::Release { ballot } => format!("release {ballot}"),
        M::TimeoutNow { ballot } => format!("timeout-now {ballot}"),
        M::Greet { invitation } => {
            format!("greet {} members of {}", invitation.ballot, invitation.at)
        }
        M::Greeted { invitation } => format!("greeted {}", invitation.ballot),
        M::Removed { seat, at } => format!("removed {seat} by {at}"),
    }
}

/// The entries of a message: how many, and what is no command.
fn list(entries: &[Entry]) -> String {
    let mut text = String::new();
    if !entries.is_empty() {
        let _ = write!(text, " +{}", entries.len());
    }
    for entry in entries {
        match &entry.payload {
            Payload::Noop => text.push_str(" noop"),
            Payload::Command(_) => {}
            Payload::Configuration(members) => {
                let _ = write!(text, " [{members}]");
            }
        }
    }
    text
}

fn id(id: &SnapshotId) -> String {
    format!("{}/{}", id.ballot, id.number)
}

/// A client's request.
pub fn request(request: &Request) -> String {
    match &request.body {
        Body::Read { txn, mode, .. } => format!("read {txn} {mode:?}"),
        Body::Snapshot { at: ReadAt::Exactly(at), .. } => format!("snapshot {at}"),
        Body::Snapshot { at: ReadAt::Newest { at_least }, .. } => {
            format!("snapshot, newest since {at_least}")
        }
        Body::SafeTime { .. } => "safe time".into(),
        Body::Prepare { txn, coordinator, .. } => format!("prepare {txn} for {coordinator}"),
        Body::Commit { txn, participants, .. } => format!("commit {txn} with {participants:?}"),
        Body::Members(m) => {
            format!("members {:?} witnesses {:?} learners {:?}", m.voters, m.witnesses, m.learners)
        }
        Body::Transfer { to } => format!("transfer to {to}"),
        other => format!("{other:?}"),
    }
}
