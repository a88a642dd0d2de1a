//! A violation as a person would tell it: who wrote, who was acknowledged, who began when and got
//! what, in absolute time, beside what the clocks said.

use super::relay::Track;
use crate::checkers::external_consistency::{Disorder, disorders};
use crate::history::Operation;
use crate::world::World;
use proto::NodeId;
use truetime::{Interval, Timestamp};

/// A line of a story: absolute time in nanoseconds, who, what.
type Line = (u64, String, String);

/// The first violation of a history, and the plainest: rather between two writes, or of a read that
/// misses the very row, than of a read that would have missed it.
pub fn first(track: &Track, world: &World) -> Option<Story> {
    let disorders = disorders(&track.history);
    let plain = disorders.iter().find(|pair| is_plain(pair));
    let pair = plain.or(disorders.first())?;
    Some(Story { is_plain: plain.is_some(), lines: tell(pair, track, world) })
}

/// A violation, told.
#[derive(Clone, Debug)]
pub struct Story {
    /// Whether it is one that anybody sees.
    pub is_plain: bool,
    /// How it went, line by line.
    pub lines: Vec<String>,
}

fn is_plain(disorder: &Disorder<'_>) -> bool {
    let Disorder { earlier, later, .. } = *disorder;
    !earlier.read_only() && (!later.read_only() || misses(earlier, later))
}

/// Whether a read asked for what was written.
fn misses(earlier: &Operation, later: &Operation) -> bool {
    earlier.writes.keys().any(|key| later.reads.contains_key(key))
}

/// Tells it. Times and timestamps are in milliseconds since the earlier transaction began.
fn tell(disorder: &Disorder<'_>, track: &Track, world: &World) -> Vec<String> {
    let Disorder { earlier, earlier_at, later, later_at } = *disorder;
    let teller = Teller { zero_ns: earlier.began_ns, track, world };
    let mut lines = vec![format!("{:>13}  {:<9} what", "absolute time", "who")];
    for (name, op, at) in [("T1", earlier, earlier_at), ("T2", later, later_at)] {
        let mut told = teller.operation(name, op, at);
        told.sort_by_key(|(at_ns, ..)| *at_ns);
        for (at_ns, who, what) in told {
            lines.push(format!("{:>10.3} ms  {who:<9} {what}", teller.since(at_ns)));
        }
    }
    let (early, late) = (teller.show(earlier_at), teller.show(later_at));
    let after = later.began_ns.saturating_sub(earlier.ended_ns) as f64 / 1e6;
    lines.push(match later.read_only() {
        true if misses(earlier, later) => format!(
            "T1 had been acknowledged for {after:.3} ms when T2 began, and T2 reads at {late}, below \
             {early}: it misses what T1 wrote."
        ),
        true => format!(
            "T1 had been acknowledged for {after:.3} ms when T2 began, and T2 reads at {late}, below \
             {early}: had it read that row too, it would have missed it."
        ),
        false => format!(
            "T1 had been acknowledged for {after:.3} ms when T2 began, and yet T2 has the lower \
             timestamp, {late} against {early}: whoever reads at a time between them sees T2 and \
             not T1."
        ),
    });
    lines
}

struct Teller<'a> {
    zero_ns: u64,
    track: &'a Track,
    world: &'a World,
}

impl Teller<'_> {
    fn since(&self, at_ns: u64) -> f64 {
        (at_ns as f64 - self.zero_ns as f64) / 1e6
    }

    fn show(&self, at: Timestamp) -> String {
        format!("{:.3} ms", self.since(at.micros() * 1_000))
    }

    /// What a clock said at an absolute time, and how far that was in it or outside.
    fn clock(&self, at_ns: u64, said: Interval) -> String {
        let (from_ns, to_ns) = (said.earliest().micros() * 1_000, said.latest().micros() * 1_000);
        let shown = format!("[{:.3}, {:.3}]", self.since(from_ns), self.since(to_ns));
        let by = |ns: u64| format!("{:.3} ms", ns as f64 / 1e6);
        match () {
            () if at_ns < from_ns => {
                format!("its clock says {shown}: not before {} from now", by(from_ns - at_ns))
            }
            () if at_ns > to_ns => {
                format!("its clock says {shown}: not after {} ago", by(at_ns - to_ns))
            }
            () => format!("its clock says {shown}, which is true"),
        }
    }

    fn operation(&self, name: &str, op: &Operation, at: Timestamp) -> Vec<Line> {
        let client = format!("client {}", op.client);
        if op.read_only() {
            return self.read(name, op, at, client);
        }
        let Some(commit) = self.track.commits.get(&op.txn) else { return Vec::new() };
        let key = String::from_utf8_lossy(&commit.key);
        let group = commit.group;
        let begins = format!("begins {name}, to write {key} in {group}");
        let mut lines = vec![(op.began_ns, client.clone(), begins)];
        if let Some(handled) = self.world.handled(op.txn) {
            let node: NodeId = handled.node;
            if let Some(said) = commit.receipt.certificate.as_ref().map(|c| c.arrived) {
                let clock = self.clock(handled.arrived_ns, said);
                let what = format!("takes {name}; {clock}: {name} gets {}", self.show(at));
                lines.push((handled.arrived_ns, node.to_string(), what));
            }
            let waited = commit.receipt.certificate.as_ref().map(|c| c.waited);
            if let (Some(said), Some(left_ns)) = (waited, handled.left_ns) {
                let what = format!("acknowledges {name}; {}", self.clock(left_ns, said));
                lines.push((left_ns, node.to_string(), what));
            }
        }
        let hears = format!("hears that {name} is committed at {}", self.show(at));
        lines.push((op.ended_ns, client, hears));
        lines
    }

    fn read(&self, name: &str, op: &Operation, at: Timestamp, client: String) -> Vec<Line> {
        let keys: Vec<_> = op.reads.keys().map(|key| String::from_utf8_lossy(key)).collect();
        let begins =
            format!("begins {name}, a strong read of {}, at {}", keys.join(", "), self.show(at));
        let seen = op.reads.values().flatten().map(|account| account.writer.to_string());
        let seen: Vec<String> = seen.collect();
        let sees = match seen.is_empty() {
            true => format!("{name} sees no rows"),
            false => format!("{name} sees what was written by {}", seen.join(", ")),
        };
        vec![(op.began_ns, client.clone(), begins), (op.ended_ns, client, sees)]
    }
}
