use super::*;

/// Nodes 1.. in these zones, all alive.
fn nodes(zones: &[&str]) -> BTreeMap<NodeId, Node> {
    let node = |zone: &&str| Node {
        zone: (*zone).to_owned(),
        state: NodeState::Active,
        alive: true,
        replaced_by: None,
    };
    (1..).map(NodeId).zip(zones.iter().map(node)).collect()
}

fn set(of: &[u32]) -> BTreeSet<NodeId> {
    of.iter().copied().map(NodeId).collect()
}

fn group(voters: &[u32], leader: u32) -> Group {
    let members = Members { voters: set(voters), ..Members::default() };
    Group { members, leader: Some(NodeId(leader)), changing: false, tried: 0 }
}

fn situation(zones: &[&str], groups: &[Group]) -> Situation {
    let groups = (0..).map(GroupId).zip(groups.iter().cloned()).collect();
    Situation { replicas: 3, nodes: nodes(zones), groups }
}

fn members(step: &Step) -> &BTreeSet<NodeId> {
    let Step::Members(_, members) = step else { panic!("{step:?}") };
    &members.voters
}

/// Plans are carried out at once, until there are none.
fn settle(situation: &mut Situation) -> usize {
    for round in 0..1_000 {
        let steps = plan(situation);
        if steps.is_empty() {
            return round;
        }
        for step in steps {
            let group = situation.groups.get_mut(&step.group()).unwrap();
            match step {
                Step::Members(_, members) => {
                    if !group.leader.is_some_and(|leader| members.voters.contains(&leader)) {
                        group.leader = members.voters.first().copied();
                    }
                    group.members = members;
                }
                Step::Lead(_, to) => {
                    assert!(group.members.voters.contains(&to), "only a voter leads");
                    group.leader = Some(to);
                }
            }
        }
    }
    panic!("it never ends: {situation:?}");
}

#[test]
fn one_node_and_two_nodes_keep_one_replica() {
    for zones in [&["a"][..], &["a", "b"]] {
        assert_eq!(plan(&situation(zones, &[group(&[1], 1)])), []);
    }
}

#[test]
fn with_a_third_node_both_come_in_one_change() {
    let steps = plan(&situation(&["a", "b", "c"], &[group(&[1], 1)]));
    assert_eq!(members(&steps[0]), &set(&[1, 2, 3]));
}

#[test]
fn zones_come_before_numbers() {
    let steps = plan(&situation(&["a", "a", "b", "a", "c"], &[group(&[1], 1)]));
    assert_eq!(members(&steps[0]), &set(&[1, 3, 5]));
}

#[test]
fn a_node_that_was_given_up_is_replaced_by_whom_was_named() {
    let mut s = situation(&["a", "b", "c", "c", "b"], &[group(&[1, 2, 3], 1)]);
    assert_eq!(plan(&s), [], "dead or not, it stays until it is given up");
    let lost = s.nodes.get_mut(&NodeId(3)).unwrap();
    (lost.state, lost.alive) = (NodeState::Removed, false);
    assert_eq!(members(&plan(&s)[0]), &set(&[1, 2, 4]), "the same zone");
    s.nodes.get_mut(&NodeId(3)).unwrap().replaced_by = Some(NodeId(5));
    assert_eq!(members(&plan(&s)[0]), &set(&[1, 2, 5]), "the one that was named");
    for other in [4, 5] {
        s.nodes.get_mut(&NodeId(other)).unwrap().alive = false;
    }
    assert_eq!(plan(&s), [], "nobody can take its place");
}

#[test]
fn a_learner_that_was_left_behind_is_used() {
    let mut left = group(&[1], 1);
    left.members.learners = set(&[4]);
    let steps = plan(&situation(&["a", "b", "b", "b"], &[left]));
    assert_eq!(members(&steps[0]), &set(&[1, 2, 4]));
}

#[test]
fn what_is_under_way_is_left_alone_and_bounded() {
    let mut groups = vec![group(&[1], 1); 40];
    groups[3].changing = true;
    let steps = plan(&situation(&["a", "b", "c"], &groups));
    assert_eq!(steps.iter().filter(|s| matches!(s, Step::Members(..))).count(), CHANGES_MAX - 1);
    assert!(steps.iter().all(|step| step.group() != GroupId(3)));
}

#[test]
fn groups_that_cannot_be_changed_do_not_keep_the_others_waiting() {
    let mut groups = vec![group(&[1], 1); 40];
    groups[..16].iter_mut().for_each(|group| group.tried = 3);
    groups[20].leader = None;
    let steps = plan(&situation(&["a", "b", "c"], &groups));
    let changed = steps.iter().filter(|step| matches!(step, Step::Members(..)));
    let changed: Vec<u32> = changed.map(|step| step.group().0).collect();
    assert_eq!(changed.len(), CHANGES_MAX);
    assert!(changed.iter().all(|group| *group >= 16 && *group != 20), "{changed:?}");
}

#[test]
fn leaders_and_replicas_spread_and_it_comes_to_rest() {
    let mut s = situation(&["a", "b", "c"], &vec![group(&[1], 1); 10]);
    settle(&mut s);
    let leads = |s: &Situation, node: u32| {
        s.groups.values().filter(|group| group.leader == Some(NodeId(node))).count()
    };
    assert!((1..=3).all(|node| (3..=4).contains(&leads(&s, node))), "{s:?}");
    s.nodes.get_mut(&NodeId(2)).unwrap().state = NodeState::Draining;
    settle(&mut s);
    assert_eq!((leads(&s, 1), leads(&s, 2), leads(&s, 3)), (5, 0, 5));
    assert!(s.groups.values().all(|group| group.members.voters.len() == 3), "replicas stay");
}
