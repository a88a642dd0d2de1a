//! Whoever runs the cluster: asks for other leaders and other members, loses disks, and puts in
//! order again what is broken.

use crate::executor::ClientPort;
use crate::faults::Damage;
use crate::options::Options;
use crate::workloads::client;
use crate::world::{World, stream};
use futures::future::join_all;
use parking_lot::Mutex;
use proto::request::{Body, GroupStatus, Members, ReplyBody};
use proto::{GroupId, NodeId};
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use txn::client::{Client, ClientClock, ClientConfig};

/// What an operator has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Transfers that a leader began, and refusals.
    pub transfers: u64,
    /// See `transfers`.
    pub transfers_refused: u64,
    /// Changes of members that were seen completed, and those that were not.
    pub changes: u64,
    /// See `changes`.
    pub changes_given_up: u64,
}

/// What the operator is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Orders {
    /// Make trouble.
    #[default]
    Trouble,
    /// Stop, the faults have ended; say so when nothing is under way any more.
    Stop,
    /// It has stopped.
    Stopped,
    /// See to it that these, who are well, are the voters of every group.
    PutInOrder(Vec<NodeId>),
}

/// The orders, shared with whoever gives them.
pub type Desk = Arc<Mutex<Orders>>;

/// The operator of a run.
pub struct Operator {
    client: Client,
    port: ClientPort,
    options: Options,
    nodes: Vec<NodeId>,
    rng: SmallRng,
    desk: Desk,
    done: Arc<Mutex<Done>>,
    /// Its disk was lost: to be removed, then perhaps to be added again.
    lost: Option<NodeId>,
    /// Counts small changes drawn.
    turn: u32,
}

impl Operator {
    /// An operator with orders at a desk.
    pub fn new(world: &mut World, seed: u64, desk: Desk, done: Arc<Mutex<Done>>) -> Operator {
        let port = world.client_port();
        let config = ClientConfig {
            attempt_ms: 100,
            operation_ms: 600,
            seed: seed ^ 1_000,
            ..ClientConfig::default()
        };
        Operator {
            client: client(&port, &world.options, 1_000, config),
            port: world.client_port(),
            options: world.options.clone(),
            nodes: world.node_ids(),
            rng: stream(seed, 6),
            desk,
            done,
            lost: None,
            turn: 0,
        }
    }

    /// Works until it is told to stop, and then sees to it that everyone belongs to the groups who
    /// should.
    pub async fn work(mut self) {
        let changes = self.options.change_every_us;
        let transfers = self.options.transfer_every_us;
        let every = [changes, transfers].into_iter().filter(|every_us| *every_us > 0).min();
        while self.in_trouble() {
            let every_us = every.unwrap_or(100_000);
            self.sleep_us(every_us / 4, every_us * 7 / 4).await;
            let group = GroupId(self.rng.random_range(1..=self.options.groups));
            if changes > 0 && (transfers == 0 || self.rng.random_bool(0.7)) {
                self.govern(group).await;
            } else if transfers > 0 {
                self.transfer(group).await;
            }
        }
        if changes == 0 {
            return;
        }
        if *self.desk.lock() == Orders::Stop {
            *self.desk.lock() = Orders::Stopped;
        }
        loop {
            let orders = self.desk.lock().clone();
            if let Orders::PutInOrder(well) = orders {
                return self.put_in_order(well.into_iter().collect()).await;
            }
            self.sleep_us(10_000, 20_000).await;
        }
    }

    fn in_trouble(&self) -> bool {
        *self.desk.lock() == Orders::Trouble
    }

    async fn sleep_us(&mut self, from: u64, to: u64) {
        let pause_us = self.rng.random_range(from..=to);
        self.port.sleep(Duration::from_micros(pause_us)).await;
    }

    fn any_node(&mut self) -> NodeId {
        self.nodes[self.rng.random_range(0..self.nodes.len())]
    }

    async fn transfer(&mut self, group: GroupId) {
        let leader = self.status(group).await.and_then(|status| status.leader);
        let mut to = self.any_node();
        if Some(to) == leader {
            to = self.any_node(); // one that leads already is asked for less often
        }
        let begun = self.client.router().ask(group, Body::Transfer { to }).await.is_ok();
        let mut done = self.done.lock();
        match begun {
            true => done.transfers += 1,
            false => done.transfers_refused += 1,
        }
    }

    /// What the group's leader says, or somebody who should know.
    async fn status(&self, group: GroupId) -> Option<GroupStatus> {
        let router = self.client.router();
        let asked = self.nodes.iter().map(|node| router.ask_node(*node, group, Body::Status));
        let answers = join_all(asked).await.into_iter().flatten();
        let told = answers.filter_map(|reply| match reply.body {
            ReplyBody::Status(status) => Some(status),
            _ => None,
        });
        told.max_by_key(|status| (status.lease_end.is_some(), status.ballot))
    }

    /// One turn: perhaps a disk is lost first; then the members are changed.
    async fn govern(&mut self, group: GroupId) {
        if self.lost.is_none() && self.rng.random_bool(self.options.damage) {
            let node = self.any_node();
            let what = [Damage::Wiped, Damage::Rotten][self.rng.random_range(0..2)];
            // What was asked for before must have come or gone.
            self.port.sleep(Duration::from_millis(700)).await;
            for _ in 0..15 {
                if self.port.damage(node, what).await {
                    self.lost = Some(node).filter(|_| what == Damage::Wiped);
                    self.sleep_us(10_000, 400_000).await;
                    break;
                }
                self.sleep_us(20_000, 60_000).await; // the group cannot bear it just now
            }
        }
        let Some(status) = self.status(group).await else { return };
        let now = status.members;
        let target = match self.lost {
            Some(node) => without(&now, node),
            None => self.draw(&now),
        };
        if self.change(group, target).await
            && let Some(node) = self.lost.take()
            && self.rng.random_bool(0.5)
        {
            // It comes back at once, and not at some later turn.
            if let Some(status) = self.status(group).await {
                let mut target = status.members;
                target.voters.insert(node);
                self.change(group, target).await;
            }
        }
    }

    /// Random members, biased towards small steps and even numbers.
    fn draw(&mut self, now: &Members) -> Members {
        let mut target = now.clone();
        let node = self.any_node();
        if self.options.eager {
            return self.draw_small();
        }
        match self.rng.random_range(0..10) {
            // One comes, or goes.
            0..=4 => {
                if !target.voters.remove(&node) {
                    target.learners.remove(&node);
                    target.voters.insert(node);
                } else {
                    target.witnesses.remove(&node);
                }
            }
            // One takes the place of another.
            5..=6 => {
                let other = self.any_node();
                target.voters.remove(&node);
                target.witnesses.remove(&node);
                target.learners.remove(&other);
                target.voters.insert(other);
            }
            // A learner.
            7 => {
                if !target.voters.contains(&node) {
                    target.learners.insert(node);
                }
            }
            // Anybody, with a witness now and then.
            _ => {
                let size = self.rng.random_range(1..=self.nodes.len());
                target = Members::default();
                while target.voters.len() < size {
                    let node = self.any_node();
                    target.voters.insert(node);
                }
                target.witnesses = now.witnesses.intersection(&target.voters).copied().collect();
                let newcomer = target.voters.difference(&now.voters).next().copied();
                if let Some(newcomer) = newcomer.filter(|_| self.rng.random_bool(0.3)) {
                    target.witnesses.insert(newcomer);
                }
            }
        }
        if target.voters.is_subset(&target.witnesses) {
            return now.clone();
        }
        target
    }

    /// In turns: one founder less, another one less, all of them again; whatever the members are
    /// just now, so that two leaders are asked for different things from the same beginning. Of an
    /// odd number, one is rather replaced: majorities before and after need not meet.
    fn draw_small(&mut self) -> Members {
        self.turn += 1;
        let mut voters: BTreeSet<NodeId> = (1..=self.options.founders).map(NodeId).collect();
        if !self.turn.is_multiple_of(3) {
            let odd = voters.len() % 2 == 1;
            let newcomer = self.options.founders + 1;
            voters.remove(&NodeId(self.rng.random_range(1..=self.options.founders)));
            if newcomer <= self.options.nodes && odd && self.rng.random_bool(0.7) {
                voters.insert(NodeId(self.rng.random_range(newcomer..=self.options.nodes)));
            }
        }
        Members { voters, ..Members::default() }
    }

    /// Asks for new members and waits until they are; whether that was seen.
    async fn change(&mut self, group: GroupId, target: Members) -> bool {
        let begun = match self.options.eager && self.in_trouble() {
            true => self.ask_all(group, &target).await,
            false => self.client.router().ask(group, Body::Members(target.clone())).await.is_ok(),
        };
        let mut seen = false;
        let patience = match begun {
            true if self.options.eager && self.in_trouble() => self.rng.random_range(0..8),
            true => 40,
            false => 0,
        };
        for _ in 0..patience {
            self.sleep_us(5_000, 40_000).await;
            let Some(status) = self.status(group).await else { continue };
            let settled = !status.joint && !status.changing && status.lease_end.is_some();
            if settled {
                seen = status.members == target;
                break; // or another leader has not taken it up
            }
        }
        let mut done = self.done.lock();
        match seen {
            true => done.changes += 1,
            false => done.changes_given_up += 1,
        }
        seen
    }

    /// Asks whoever may lead, all at once, until somebody begins: the worst moment for a leader
    /// that has just been elected.
    async fn ask_all(&mut self, group: GroupId, target: &Members) -> bool {
        for _ in 0..80 {
            if !self.in_trouble() {
                return false;
            }
            let router = self.client.router();
            let asked = self
                .nodes
                .iter()
                .map(|node| router.ask_node(*node, group, Body::Members(target.clone())));
            if join_all(asked).await.into_iter().any(|answer| answer.is_ok()) {
                return true;
            }
            self.sleep_us(1_000, 8_000).await;
        }
        false
    }

    /// The faults are over: whoever lost a disk leaves, then all who are well become voters; each step
    /// is tried until it is done.
    async fn put_in_order(&mut self, well: BTreeSet<NodeId>) {
        for group in (1..=self.options.groups).map(GroupId) {
            if let Some(node) = self.lost {
                self.insist(group, |now| without(now, node)).await;
            }
            // Learners that a change given up left behind may be witnesses to be.
            self.insist(group, |now| Members { learners: BTreeSet::new(), ..now.clone() }).await;
            self.insist(group, |now| Members {
                voters: well.clone(),
                witnesses: now.witnesses.intersection(&well).copied().collect(),
                learners: BTreeSet::new(),
            })
            .await;
        }
    }

    async fn insist(&mut self, group: GroupId, target: impl Fn(&Members) -> Members) {
        loop {
            if let Some(status) = self.status(group).await {
                let wanted = target(&status.members);
                let settled = !status.joint && !status.changing && status.lease_end.is_some();
                if settled && status.members == wanted {
                    return;
                }
                self.change(group, wanted).await;
            }
            self.sleep_us(5_000, 50_000).await;
        }
    }
}

fn without(now: &Members, node: NodeId) -> Members {
    let mut target = now.clone();
    target.voters.remove(&node);
    target.witnesses.remove(&node);
    target.learners.remove(&node);
    target
}
