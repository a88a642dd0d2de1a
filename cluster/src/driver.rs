//! Carries out what `placement` plans, where this node leads the root group.

use crate::root::{Root, Seen};
use placement::{Group, Node, Situation, Step, plan};
use proto::request::{Body, Members};
use proto::universe::UniverseMap;
use proto::{GroupId, NodeId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often is looked whether something is to be done: while something happens, and else.
const LOOK_OFTEN: Duration = Duration::from_millis(200);
const LOOK_SELDOM: Duration = Duration::from_secs(1);
/// Something happens for so long after it did.
const EVENTFUL: Duration = Duration::from_secs(3);
/// A change that has not come about is planned anew after this: the group has given it up, or its
/// leader has gone.
const CHANGE_WITHIN: Duration = Duration::from_secs(40);
/// The same for one that the group has refused, or a leadership that was to move.
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// How often the leader of the root group reads its rows, should it have missed something.
const RELOAD_EVERY: Duration = Duration::from_secs(10);
/// A new leader of the root group listens for so long before it moves anything.
const LISTEN_FOR: Duration = Duration::from_millis(1_500);

/// Runs for as long as the node does.
pub(crate) async fn drive(root: Arc<Root>) {
    let mut reloaded: Option<Instant> = None;
    let mut eventful = Instant::now();
    let mut version = root.atlas.map().version;
    loop {
        let often = eventful.elapsed() < EVENTFUL;
        tokio::time::sleep(if often { LOOK_OFTEN } else { LOOK_SELDOM }).await;
        if root.atlas.map().version != version {
            (eventful, version) = (Instant::now(), root.atlas.map().version);
        }
        if root.leads().await.is_err() {
            root.seen.lock().leads_since = None;
            reloaded = None;
            continue;
        }
        // What the leader before has written, this one may not have heard; and two may have led.
        if reloaded.is_none_or(|at| at.elapsed() >= RELOAD_EVERY) {
            if let Err(error) = root.reload().await {
                tracing::debug!(%error, "the map is not read yet");
                continue;
            }
            reloaded = Some(Instant::now());
        }
        let since = *root.seen.lock().leads_since.get_or_insert_with(Instant::now);
        if since.elapsed() < LISTEN_FOR && !is_founding(&root.atlas.map()) {
            continue;
        }
        let situation = look(&root);
        for step in plan(&situation) {
            eventful = Instant::now();
            begin(&root, step);
        }
    }
}

/// Nobody has a second replica yet, so there is nobody else to listen to.
fn is_founding(map: &UniverseMap) -> bool {
    map.groups.values().all(|group| group.members.voters.len() <= 1)
}

/// What is known, for the plan.
fn look(root: &Root) -> Situation {
    let map = root.atlas.map();
    let node = |info: &proto::universe::NodeInfo| Node {
        zone: info.zone.clone(),
        state: info.state,
        alive: root.is_alive(info.node),
        replaced_by: info.replaced_by,
    };
    let nodes = map.nodes.values().map(|info| (info.node, node(info))).collect();
    let mut seen = root.seen.lock();
    let now = Instant::now();
    let Seen { under_way, tried, .. } = &mut *seen;
    under_way.retain(|group, (until, wanted)| {
        let there = map.groups.get(group).map(|descriptor| &descriptor.members);
        let done = wanted.as_ref().is_some_and(|wanted| there == Some(wanted));
        if done {
            tried.remove(group);
        }
        now < *until && !done
    });
    let mut leaders: BTreeMap<GroupId, NodeId> = BTreeMap::new();
    for (at, beat) in seen.heartbeats.values() {
        if at.elapsed() < crate::root::ALIVE_FOR {
            leaders.extend(beat.leads.iter().map(|group| (*group, beat.node)));
        }
    }
    let group = |descriptor: &proto::universe::Descriptor| Group {
        members: descriptor.members.clone(),
        leader: leaders.get(&descriptor.group).copied(),
        changing: seen.under_way.contains_key(&descriptor.group),
        tried: seen.tried.get(&descriptor.group).copied().unwrap_or(0),
    };
    let groups = map.groups.values().map(|d| (d.group, group(d))).collect();
    Situation { replicas: map.founding.replicas, nodes, groups }
}

fn begin(root: &Arc<Root>, step: Step) {
    let group = step.group();
    let (body, wanted, within): (Body, Option<Members>, Duration) = match step {
        Step::Members(_, members) => (Body::Members(members.clone()), Some(members), CHANGE_WITHIN),
        Step::Lead(_, to) => (Body::Transfer { to }, None, TRY_AGAIN),
    };
    {
        let mut seen = root.seen.lock();
        if wanted.is_some() {
            *seen.tried.entry(group).or_default() += 1;
        }
        seen.under_way.insert(group, (Instant::now() + within, wanted));
    }
    let root = root.clone();
    tokio::spawn(async move {
        tracing::debug!(%group, ?body, "placement");
        if let Err(error) = root.client.router().ask(group, body).await {
            tracing::debug!(%group, %error, "placement has to wait");
            let again = Instant::now() + TRY_AGAIN;
            if let Some((until, _)) = root.seen.lock().under_way.get_mut(&group) {
                *until = again.min(*until);
            }
        }
    });
}
