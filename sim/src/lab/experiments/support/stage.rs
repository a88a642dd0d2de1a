//! A quiet world, and who leads what in it, before an experiment begins.

use crate::executor::ClientPort;
use crate::history::Violation;
use crate::options::Options;
use crate::world::World;
use futures::FutureExt;
use proto::request::Body;
use proto::{GroupId, Key, NodeId};
use std::sync::Arc;
use truetime::providers::{Drift, Skew};
use txn::client::{Client, ClientConfig, HashPlacement, Placement};

/// How often leaders are asked to hand over until all groups are led as they should be.
const ROUNDS_MAX: u32 = 400;

/// At how many slots tablets are compared: these worlds live long.
const COMPARE_SLOTS: u64 = 256;

/// A world whose groups are led, and to which clients come.
pub struct Stage {
    /// The world.
    pub world: World,
    groups: u32,
    seed: u64,
    clients: u64,
    /// Asks for leaders.
    operator: Client,
}

impl Stage {
    /// A world with these clocks, the first for the first node, once every group is led by the
    /// node that `leaders` has for it, the first for the first group.
    ///
    /// # Errors
    /// What checkers see meanwhile, or that the leaders could not be had.
    pub fn open(
        seed: u64,
        options: Options,
        clocks: &[Skew],
        leaders: &[NodeId],
    ) -> Result<Stage, Violation> {
        let mut world = World::new(seed, options, false);
        world.allow_events(u64::MAX);
        for (node, skew) in world.nodes().into_iter().zip(clocks) {
            world.skew(node).set(|now| *now = *skew);
        }
        Stage::around(seed, world, leaders)
    }

    /// The same around a world that is there already.
    ///
    /// # Errors
    /// As [`open`](Stage::open).
    pub fn around(seed: u64, mut world: World, leaders: &[NodeId]) -> Result<Stage, Violation> {
        world.compare_tablets_every(COMPARE_SLOTS);
        let groups = world.options.groups;
        let mut clients = 0;
        let config = ClientConfig { attempt_ms: 500, ..ClientConfig::default() };
        let nodes = world.nodes();
        let operator = open_client(&mut world, &mut clients, seed, nodes, config).0;
        let mut stage = Stage { world, groups, seed, clients, operator };
        stage.place(leaders)?;
        Ok(stage)
    }

    /// Has every group led by the node that `leaders` has for it.
    ///
    /// # Errors
    /// What checkers see meanwhile, or that the leaders could not be had.
    pub fn place(&mut self, leaders: &[NodeId]) -> Result<(), Violation> {
        for _ in 0..ROUNDS_MAX {
            let groups: Vec<GroupId> = (1..=self.groups).map(GroupId).collect();
            let led = groups.iter().all(|group| self.world.leader(*group).is_some());
            if led && self.astray(leaders).is_empty() {
                return Ok(());
            }
            self.ask_for(leaders);
            self.world.run_for(100_000)?;
        }
        let what = format!("{leaders:?} do not lead after {ROUNDS_MAX} rounds");
        Err(Violation::new("progress", "P8/P10", what))
    }

    fn astray(&self, leaders: &[NodeId]) -> Vec<(GroupId, NodeId)> {
        let wanted = (1..).map(GroupId).zip(leaders.iter().copied());
        wanted.filter(|(group, node)| self.world.leader(*group) != Some(*node)).collect()
    }

    /// Asks every leader that should be another one to hand over; run the world for it to come
    /// about.
    pub fn ask_for(&mut self, leaders: &[NodeId]) {
        for (group, to) in self.astray(leaders) {
            let operator = self.operator.clone();
            let ask = async move {
                // Refused, or not heard: whoever wants it asks again.
                let _ = operator.router().ask(group, Body::Transfer { to }).await;
            };
            self.world.spawn(ask.boxed());
        }
    }

    /// A client whose clock is right, to within ε.
    pub fn client(&mut self) -> Client {
        let nodes = self.world.nodes();
        self.client_of(nodes, ClientConfig { attempt_ms: 500, ..ClientConfig::default() }).0
    }

    /// The same, asking nodes in this order as long as it knows no leader, with its port: clock and
    /// timers.
    pub fn client_of(
        &mut self,
        nodes: Vec<NodeId>,
        config: ClientConfig,
    ) -> (Client, Arc<ClientPort>) {
        open_client(&mut self.world, &mut self.clients, self.seed, nodes, config)
    }

    /// How many groups there are.
    pub fn groups(&self) -> u32 {
        self.groups
    }
}

fn open_client(
    world: &mut World,
    clients: &mut u64,
    seed: u64,
    nodes: Vec<NodeId>,
    config: ClientConfig,
) -> (Client, Arc<ClientPort>) {
    let groups = world.options.groups;
    let port = Arc::new(world.port(nodes, steady(0, world.options.epsilon_us * 1_000)));
    *clients += 1;
    let config = ClientConfig { client: *clients, seed: seed ^ *clients, ..config };
    (Client::new(port.clone(), port.clone(), Arc::new(placement(groups)), config), port)
}

fn placement(groups: u32) -> HashPlacement {
    HashPlacement { groups, root_prefix: Key::new(), directory: |key| Some(key) }
}

/// A key of that name in a group: the name with a number that puts it there.
pub fn key_in(group: GroupId, groups: u32, name: &str) -> Key {
    let placement = placement(groups);
    let mut keys = (0u32..).map(|n| Key::from(format!("{name}-{n}")));
    keys.find(|key| placement.group_of(key) == group).expect("a hash that leaves no group out")
}

/// The leaders of groups: the first node leads the first group, and so on, around.
pub fn in_turn(groups: u32, nodes: u32) -> Vec<NodeId> {
    (0..groups).map(|group| NodeId(1 + group % nodes)).collect()
}

/// A clock that is always off by the same.
pub fn steady(offset_ns: i64, epsilon_ns: u64) -> Skew {
    Skew::new(Drift::Constant { offset_ns }, epsilon_ns)
}
