//! Calls to real servers on loopback.

mod support;

use proto::control::{ControlReply, ControlRequest, LinkFault};
use proto::request::{Body, ReadAt, ReadSet, ReplyBody, Request};
use proto::{Error, GroupId, NodeId};
use rpc::wire::Envelope;
use rpc::wire::meridian_client::MeridianClient;
use rpc::{CallError, Connections, Faults, MESSAGE_BYTES_MAX, Security, Target};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use support::{HANGS, Node, Plan, SLOW, STALE, request, until};
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;
use tonic::transport::Channel;
use truetime::Timestamp;

const LONG: Duration = Duration::from_secs(30);

fn connections() -> (Connections, Arc<Faults>) {
    let faults = Arc::new(Faults::new(5));
    (Connections::new(Security::Plaintext, faults.clone(), 5), faults)
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_and_typed_errors_travel() {
    let node = Node::start(Plan::new(1)).await;
    let (connections, _) = connections();
    for to in [Target::address(node.address()), Target::node(NodeId(1), node.address())] {
        let reply = connections.ask(&to, &request(GroupId(1)), LONG).await.expect("an answer");
        assert_eq!(reply.body, ReplyBody::SafeTime(Timestamp::from_micros(77)));
        let within = node.seen.within.lock().expect("the deadline travels");
        assert!(within <= LONG && within > LONG / 2, "{within:?}");
        let stale = connections.ask(&to, &request(STALE), LONG).await;
        assert_eq!(stale, Err(Error::StaleRoute { descriptor: None }));
        let order = ControlRequest::Locks(GroupId(3));
        let answer = connections.control(&to, &order, LONG).await;
        assert_eq!(answer, Ok(ControlReply::Locks("locks of g3".into())));
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_means_another_universe_is_turned_away_unseen() {
    let node = Node::start(Plan::new(1)).await;
    let to = Target::address(node.address());
    for (cluster, taken) in [("c1", true), ("c2", false)] {
        let (connections, _) = connections();
        assert!(connections.ask(&to, &request(GroupId(1)), LONG).await.is_ok(), "of none yet");
        connections.belong_to(cluster);
        let reply = connections.ask(&to, &request(GroupId(1)), LONG).await;
        let order = connections.control(&to, &ControlRequest::Node, LONG).await;
        assert_eq!((reply.is_ok(), order.is_ok()), (taken, taken), "{cluster}");
        if !taken {
            assert_eq!(reply, Err(Error::NotLeader { hint: None }), "nothing happened");
        }
    }
    assert_eq!(node.seen.orders.load(Ordering::SeqCst), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_waiting_stops_the_work() {
    let node = Node::start(Plan::new(1)).await;
    let (connections, _) = connections();
    let to = Target::address(node.address());
    let call = tokio::spawn(connections.ask(&to, &request(HANGS), LONG));
    until("the handler hangs", || node.seen.hanging.load(Ordering::SeqCst) == 1).await;
    call.abort();
    until("its future is dropped", || node.seen.hanging.load(Ordering::SeqCst) == 0).await;
    // The other calls of the connection are not touched.
    assert!(connections.ask(&to, &request(GroupId(1)), LONG).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_given_up_do_not_cost_the_others_their_connection() {
    let node = Node::start(Plan::new(1)).await;
    let (connections, _) = connections();
    let to = Target::address(node.address());
    assert!(connections.ask(&to, &request(GroupId(1)), LONG).await.is_ok());
    let patient = tokio::spawn(connections.try_ask(&to, &request(HANGS), LONG));
    until("the patient one hangs", || node.seen.hung.load(Ordering::SeqCst) == 1).await;
    // Some before they are sent, some before they are looked at, some while they hang.
    for round in 0..50 {
        let calls: Vec<_> =
            (0..50).map(|_| tokio::spawn(connections.ask(&to, &request(HANGS), LONG))).collect();
        for _ in 0..round % 5 {
            tokio::task::yield_now().await;
        }
        calls.iter().for_each(tokio::task::JoinHandle::abort);
    }
    assert!(connections.try_ask(&to, &request(GroupId(1)), LONG).await.is_ok());
    until("only the patient one", || node.seen.hanging.load(Ordering::SeqCst) == 1).await;
    assert!(!patient.is_finished());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_the_work_and_says_that_nobody_knows() {
    let node = Node::start(Plan::new(1)).await;
    let (connections, _) = connections();
    let to = Target::address(node.address());
    // Long enough for the request to arrive, however busy the machine is.
    let mut within = Duration::from_millis(50);
    while node.seen.hung.load(Ordering::SeqCst) == 0 && within < LONG {
        let lost = connections.try_ask(&to, &request(HANGS), within).await;
        assert!(matches!(lost, Err(CallError::Lost { .. })), "{lost:?}");
        within *= 2;
    }
    assert_ne!(node.seen.hung.load(Ordering::SeqCst), 0);
    until("its future is dropped", || node.seen.hanging.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_happened_and_nobody_knows_are_told_apart() {
    let node = Node::start(Plan::new(1)).await;
    let (connections, _) = connections();
    let (to, address) = (Target::address(node.address()), node.server.address());
    let known = tokio::spawn(connections.try_ask(&to, &request(HANGS), LONG));
    let endless = tokio::spawn(connections.ask(&to, &request(HANGS), LONG));
    until("both hang", || node.seen.hanging.load(Ordering::SeqCst) == 2).await;
    drop(node); // killed
    let lost = known.await.expect("no panic");
    assert!(matches!(lost, Err(CallError::Lost { .. })), "{lost:?}");
    // When its port is closed too, nobody is there: that is another matter.
    let nobody = |answer: &Result<_, CallError>| matches!(answer, Err(CallError::Unreachable { reason, .. }) if reason.contains("nobody listens"));
    let mut answer = connections.try_ask(&to, &request(GroupId(1)), LONG).await;
    let began = Instant::now();
    while !nobody(&answer) && began.elapsed() < LONG {
        tokio::time::sleep(Duration::from_millis(5)).await;
        answer = connections.try_ask(&to, &request(GroupId(1)), LONG).await;
    }
    assert!(nobody(&answer), "{answer:?}");
    let nothing = connections.ask(&to, &request(GroupId(1)), LONG).await;
    assert_eq!(nothing, Err(Error::NotLeader { hint: None }));
    assert!(!endless.is_finished(), "a lost answer is a future that does not end");
    endless.abort();
    // And when it is back, it is found.
    let node = Node::start(Plan::new(1).listen(address)).await;
    let mut found = false;
    let began = Instant::now();
    while !found && began.elapsed() < LONG {
        found = connections.ask(&to, &request(GroupId(1)), LONG).await.is_ok();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(found);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_survive_a_restart_between_them() {
    let node = Node::start(Plan::new(1)).await;
    let (connections, _) = connections();
    let (to, address) = (Target::address(node.address()), node.server.address());
    let mut node = Some(node);
    for _ in 0..20 {
        let answer = connections.try_ask(&to, &request(GroupId(1)), LONG).await;
        assert!(answer.is_ok(), "{answer:?}");
        node.take().expect("it is there").stop().await;
        node = Some(Node::start(Plan::new(1).listen(address)).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_answers_what_it_was_asked() {
    let node = Node::start(Plan::new(1)).await;
    let (connections, _) = connections();
    let (to, gate) = (Target::address(node.address()), node.gate.clone());
    node.open(false);
    let call = tokio::spawn(connections.try_ask(&to, &request(SLOW), LONG));
    until("the call waits", || node.seen.hung.load(Ordering::SeqCst) == 1).await;
    let stopping = tokio::spawn(node.server.shutdown(LONG));
    while TcpStream::connect(&to.address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(2)).await; // until it accepts no more
    }
    assert!(!call.is_finished() && !stopping.is_finished());
    gate.send_replace(true);
    assert!(call.await.expect("no panic").is_ok());
    stopping.await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_does_not_wait_for_ever() {
    let node = Node::start(Plan::new(1)).await;
    let (connections, _) = connections();
    let to = Target::address(node.address());
    let call = tokio::spawn(connections.try_ask(&to, &request(HANGS), LONG));
    until("the call hangs", || node.seen.hanging.load(Ordering::SeqCst) == 1).await;
    // It never ends by itself, so the bound of the shutdown ends it.
    let began = Instant::now();
    node.server.shutdown(Duration::from_millis(100)).await;
    assert!(began.elapsed() >= Duration::from_millis(100), "it waits for calls under way");
    let lost = call.await.expect("no panic");
    assert!(matches!(lost, Err(CallError::Lost { .. })), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_costs_one_attempt() {
    // Takes connections, says nothing: what a frozen machine looks like.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let to = Target::address(listener.local_addr().expect("bound").to_string());
    let (connections, _) = connections();
    let calls: Vec<_> = (0..20)
        .map(|_| tokio::spawn(connections.try_ask(&to, &request(GroupId(1)), LONG)))
        .collect();
    for call in calls {
        let answer = call.await.expect("no panic");
        assert!(
            matches!(&answer, Err(CallError::Unreachable { reason, .. }) if reason.contains("1000 ms")),
            "{answer:?}"
        );
    }
    let mut accepted = 0;
    while let Ok(connection) =
        tokio::time::timeout(Duration::from_millis(1), listener.accept()).await
    {
        accepted += usize::from(connection.is_ok());
    }
    assert_eq!(accepted, 1, "twenty calls, one attempt");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_at_home() {
    let (connections, _) = connections();
    let keys = vec![proto::Key::from(vec![7_u8; MESSAGE_BYTES_MAX])];
    let body = Body::Snapshot {
        at: ReadAt::Exactly(Timestamp::from_micros(1)),
        what: ReadSet::Keys(keys),
    };
    let request = Request { body, ..request(GroupId(1)) };
    let refused = connections.ask(&Target::address("127.0.0.1:1"), &request, LONG).await;
    assert!(
        matches!(&refused, Err(Error::InvalidArgument(reason)) if reason.contains("bytes")),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn other_versions_and_other_words_are_refused() {
    let node = Node::start(Plan::new(1)).await;
    let channel = Channel::from_shared(format!("http://{}", node.address())).expect("an address");
    let mut client = MeridianClient::new(channel.connect().await.expect("somebody listens"));
    let newer = Envelope { version: 99, body: vec![1].into(), cluster: String::new() };
    let status = client.ask(newer.clone()).await.expect_err("newer");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("version 99 is not spoken here"));
    assert_eq!(client.control(newer).await.expect_err("newer").code(), Code::FailedPrecondition);
    let words = Envelope { version: 1, body: vec![1, 250, 3].into(), cluster: String::new() };
    assert_eq!(
        client.ask(words.clone()).await.expect_err("no words").code(),
        Code::InvalidArgument
    );
    assert_eq!(client.control(words).await.expect_err("no words").code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_on_purpose_hit_calls_to_nodes() {
    let node = Node::start(Plan::new(1)).await;
    let (connections, faults) = connections();
    let to = Target::node(NodeId(1), node.address());
    let fault = |fault: LinkFault| faults.set(vec![LinkFault { to: NodeId(1), ..fault }]);
    fault(LinkFault { drop_permille: 1_000, ..LinkFault::default() });
    let lost = connections.control(&to, &ControlRequest::Now, Duration::from_millis(20)).await;
    assert!(matches!(lost, Err(CallError::Lost { .. })), "{lost:?}");
    assert_eq!(node.seen.orders.load(Ordering::SeqCst), 0, "it never left");
    fault(LinkFault { delay_ms: 30, ..LinkFault::default() });
    let began = Instant::now();
    assert!(connections.control(&to, &ControlRequest::Now, LONG).await.is_ok());
    assert!(began.elapsed() >= Duration::from_millis(30));
    faults.set(vec![]);
    assert!(connections.control(&to, &ControlRequest::Now, LONG).await.is_ok());
}
