//! Orders to a made-up cluster that carries them out a step with each look.

use super::super::made_up::{self, info, lose};
use super::*;
use proto::control::ControlReply;
use proto::request::{Reply, Request};
use proto::universe::UniverseMap;
use std::sync::Mutex;

struct MadeUp(Mutex<Inner>);

struct Inner {
    seen: Seen,
    orders: Vec<ControlRequest>,
    /// What the next orders are refused with.
    refusals: Vec<Error>,
    /// What happens between one look and the next, once an order is taken.
    step: fn(&mut Seen, &ControlRequest),
}

impl MadeUp {
    fn new(seen: Seen, step: fn(&mut Seen, &ControlRequest)) -> MadeUp {
        MadeUp(Mutex::new(Inner { seen, orders: Vec::new(), refusals: Vec::new(), step }))
    }

    fn refusing(self, refusals: &[Error]) -> MadeUp {
        self.0.lock().expect("no test panics with it").refusals = refusals.to_vec();
        self
    }

    fn orders(&self) -> Vec<ControlRequest> {
        self.0.lock().expect("no test panics with it").orders.clone()
    }
}

impl Control for MadeUp {
    async fn map(&self) -> Result<UniverseMap, String> {
        let mut inner = self.0.lock().expect("no test panics with it");
        if let Some(order) = inner.orders.last().cloned() {
            (inner.step)(&mut inner.seen, &order);
        }
        Ok(inner.seen.map.clone())
    }

    async fn node(&self, node: NodeId, request: ControlRequest) -> Result<ControlReply, CallError> {
        let inner = self.0.lock().expect("no test panics with it");
        let Some(Ok(answer)) = inner.seen.answers.get(&node) else {
            let to = rpc::Target::node(node, "nowhere");
            return Err(CallError::Unreachable { to, reason: "gone".into() });
        };
        Ok(match request {
            ControlRequest::Node => ControlReply::Node(Box::new(answer.report.clone())),
            ControlRequest::Groups => ControlReply::Groups(answer.groups.clone()),
            ControlRequest::Now => ControlReply::Now(made_up::now()),
            other => panic!("nobody asks a node for {other:?}"),
        })
    }

    async fn order(&self, request: ControlRequest) -> Result<ControlReply, CallError> {
        let mut inner = self.0.lock().expect("no test panics with it");
        match inner.refusals.pop() {
            Some(error) => Err(error.into()),
            None => {
                inner.orders.push(request);
                Ok(ControlReply::Done)
            }
        }
    }

    async fn ask(&self, _: NodeId, request: Request) -> Result<Reply, CallError> {
        panic!("nobody asks a group for {request:?}")
    }
}

fn nothing(_: &mut Seen, _: &ControlRequest) {}

/// A group is led by another.
fn lead(seen: &mut Seen, group: GroupId, to: NodeId) {
    for answer in seen.answers.values_mut().flatten() {
        for status in answer.groups.iter_mut().filter(|status| status.group == group) {
            status.leader = Some(to);
            status.ballot.round += 1;
            let end = made_up::now().latest().plus_micros(4_000_000);
            status.lease_end = (status.node == to).then_some(end);
        }
    }
}

fn drained(seen: &mut Seen, order: &ControlRequest) {
    let ControlRequest::Drain { node, on } = *order else { panic!("not {order:?}") };
    if on {
        // First it is noted, then one group after the other is handed over.
        let info = seen.map.nodes.get_mut(&node).expect("it is known");
        if info.state != NodeState::Draining {
            info.state = NodeState::Draining;
        } else if let Some(group) = seen.groups().iter().find(|group| group.leader == Some(node)) {
            let group = group.id;
            lead(seen, group, NodeId(1));
        }
    } else {
        seen.map.nodes.get_mut(&node).expect("it is known").state = NodeState::Active;
    }
}

/// One group after the other changes its members, then the node is removed.
fn replaced(seen: &mut Seen, order: &ControlRequest) {
    let ControlRequest::Replace { lost, by } = *order else { panic!("not {order:?}") };
    let of_lost = seen
        .groups()
        .iter()
        .find(|group| group.members.voters.contains(&lost))
        .map(|group| group.id);
    let Some(id) = of_lost else {
        seen.map.nodes.get_mut(&lost).expect("it is known").state = NodeState::Removed;
        seen.answers.remove(&lost);
        return;
    };
    let change = |members: &mut proto::request::Members| {
        members.voters.remove(&lost);
        members.voters.extend(by);
    };
    change(&mut seen.map.groups.get_mut(&id).expect("it is known").members);
    for answer in seen.answers.values_mut().flatten() {
        answer
            .groups
            .iter_mut()
            .filter(|status| status.group == id)
            .for_each(|status| change(&mut status.members));
    }
}

#[track_caller]
fn says(result: Result<(), Exit>, words: &[&str]) {
    let (Exit::Failed(text) | Exit::Usage(text)) = result.expect_err("it is refused") else {
        panic!("nobody pressed Ctrl-C");
    };
    for word in words {
        assert!(text.contains(word), "no '{word}' in: {text}");
    }
}

#[tokio::test]
async fn a_leader_moves_and_is_waited_for() {
    let moved = |seen: &mut Seen, order: &ControlRequest| {
        let ControlRequest::MoveLeader { group, to } = *order else { panic!("not {order:?}") };
        lead(seen, group, to);
    };
    let cluster = MadeUp::new(made_up::healthy(), moved);
    move_leader(&cluster, (GroupId(1), NodeId(3)), &Wait::default()).await.expect("it moves");
    let order = ControlRequest::MoveLeader { group: GroupId(1), to: NodeId(3) };
    assert_eq!(cluster.orders(), [order]);
    move_leader(&cluster, (GroupId(1), NodeId(3)), &Wait::default()).await.expect("it is there");
    assert_eq!(cluster.orders().len(), 1, "nothing is ordered that is so already");
}

#[tokio::test]
async fn what_is_not_there_is_told_with_what_is() {
    let cluster = MadeUp::new(made_up::healthy(), nothing);
    let wait = Wait::default();
    let to = |group, node| move_leader(&cluster, (GroupId(group), NodeId(node)), &wait);
    says(to(1, 9).await, &["no node n9", "n1 (zone a), n2 (zone b), n3 (zone c)"]);
    says(to(7, 1).await, &["no group g7", "of 3 groups, g0, g1, g2"]);
    let mut seen = made_up::healthy();
    seen.map.nodes.insert(NodeId(4), info(4));
    let cluster = MadeUp::new(seen, nothing);
    let refused = move_leader(&cluster, (GroupId(1), NodeId(4)), &wait).await;
    says(refused, &["n4 cannot lead g1", "n1, n2, n3 can"]);
    assert!(cluster.orders().is_empty());
}

#[tokio::test]
async fn a_drained_node_leads_nothing_in_the_end() {
    let cluster = MadeUp::new(made_up::healthy(), drained);
    drain(&cluster, (NodeId(2), true), &Wait::default()).await.expect("it drains");
    let seen = look(&cluster).await.expect("it is made up");
    assert_eq!(led_by(&seen, NodeId(2)), 0);
    drain(&cluster, (NodeId(2), false), &Wait::default()).await.expect("it may lead again");
    assert_eq!(cluster.orders().len(), 2);
}

#[tokio::test]
async fn an_order_is_given_until_somebody_takes_it() {
    let busy = [Error::NotLeader { hint: None }, Error::DeadlineExceeded("an election".into())];
    let cluster = MadeUp::new(made_up::healthy(), drained).refusing(&busy);
    let wait = Wait { no_wait: true, json: true };
    drain(&cluster, (NodeId(2), true), &wait).await.expect("somebody takes it");
    let seen = look(&cluster).await.expect("it is made up");
    assert_eq!(led_by(&seen, NodeId(2)), 1, "nobody waited");
    let never = Error::FailedPrecondition("not while it rains".into());
    let cluster = MadeUp::new(made_up::healthy(), nothing).refusing(&[never]);
    says(drain(&cluster, (NodeId(2), true), &wait).await, &["not while it rains"]);
}

#[tokio::test]
async fn a_lost_node_is_replaced_group_after_group() {
    let mut seen = made_up::healthy();
    seen.map.nodes.insert(NodeId(4), info(4));
    let mut fourth = made_up::answer(3);
    fourth.groups.clear();
    seen.answers.insert(NodeId(4), Ok(fourth));
    let wait = Wait::default();
    let alive = MadeUp::new(seen.clone(), nothing);
    let refused = replace(&alive, (NodeId(3), Some(NodeId(4))), false, &wait).await;
    says(refused, &["n3 answers, so it is not lost", "--force"]);
    lose(&mut seen, 3, "gone");
    let cluster = MadeUp::new(seen, replaced);
    let order = (NodeId(3), Some(NodeId(4)));
    says(replace(&cluster, (NodeId(3), Some(NodeId(3))), false, &wait).await, &["its own place"]);
    replace(&cluster, order, false, &wait).await.expect("it is replaced");
    let seen = look(&cluster).await.expect("it is made up");
    assert_eq!((replicas_at(&seen, NodeId(3)), replicas_at(&seen, NodeId(4))), (0, 3));
    replace(&cluster, order, false, &wait).await.expect("it has been");
    assert_eq!(cluster.orders().len(), 1);
}
