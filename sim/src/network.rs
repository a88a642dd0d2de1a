//! The simulated network: when, whether and how often a message arrives.

use crate::options::Options;
use proto::NodeId;
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::{BTreeMap, BTreeSet};

/// Links between nodes, and the randomness of what they carry.
#[derive(Debug)]
pub struct Network {
    rng: SmallRng,
    /// One-way cuts, and how many of them lie on each other: nothing gets from the first node to
    /// the second.
    cut: BTreeMap<(NodeId, NodeId), u32>,
    /// Nothing gets across the border of this set; counts the partitions.
    side: BTreeSet<NodeId>,
    partitions: u64,
    /// The faults have ended.
    healed: bool,
    /// Messages lost, and delivered twice.
    pub lost: u64,
    /// See `lost`.
    pub duplicated: u64,
}

impl Network {
    /// A whole network.
    pub fn new(rng: SmallRng) -> Network {
        Network {
            rng,
            cut: BTreeMap::new(),
            side: BTreeSet::new(),
            partitions: 0,
            healed: false,
            lost: 0,
            duplicated: 0,
        }
    }

    /// After how long the message arrives, for each of its copies; none: lost. `link` is `None`
    /// between clients and servers, which are never cut off.
    pub fn carry(&mut self, options: &Options, link: Option<(NodeId, NodeId)>) -> Vec<u64> {
        if link.is_some_and(|(from, to)| from == to) {
            return vec![1_000];
        }
        let lost = !self.healed && self.rng.random_bool(options.loss);
        if lost || link.is_some_and(|link| self.is_cut(link)) {
            self.lost += 1;
            return Vec::new();
        }
        let latency_us = match link {
            Some(_) => options.latency_us,
            None => options.client_latency_us,
        };
        let mut copies = vec![self.delay_ns(latency_us, options.straggler)];
        if !self.healed && self.rng.random_bool(options.duplication) {
            self.duplicated += 1;
            let echo_ns = self.rng.random_range(0..=options.echo_us * 1_000);
            copies.push(self.delay_ns(latency_us, options.straggler) + echo_ns);
        }
        copies
    }

    fn is_cut(&self, (from, to): (NodeId, NodeId)) -> bool {
        let across = self.side.contains(&from) != self.side.contains(&to);
        self.cut.contains_key(&(from, to)) || (across && !self.side.is_empty())
    }

    fn delay_ns(&mut self, (short, long): (u64, u64), straggler: f64) -> u64 {
        let us = self.rng.random_range(short..=long);
        let straggles = self.rng.random_bool(straggler);
        us * 1_000 * if straggles { self.rng.random_range(2..=20) } else { 1 }
            + self.rng.random_range(0..1_000)
    }

    /// Cuts a link in one direction.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        *self.cut.entry((from, to)).or_default() += 1;
    }

    /// Mends a link.
    pub fn mend(&mut self, from: NodeId, to: NodeId) {
        if let Some(cuts) = self.cut.get_mut(&(from, to)) {
            *cuts -= 1;
            if *cuts == 0 {
                self.cut.remove(&(from, to));
            }
        }
    }

    /// Cuts these nodes off from all others, in place of an earlier partition; its number.
    pub fn part(&mut self, side: BTreeSet<NodeId>) -> u64 {
        self.side = side;
        self.partitions += 1;
        self.partitions
    }

    /// Ends a partition, unless there has been another one since.
    pub fn join(&mut self, number: u64) {
        if number == self.partitions {
            self.side.clear();
        }
    }

    /// Ends all faults.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.side.clear();
        self.healed = true;
    }
}
