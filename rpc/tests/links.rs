//! Links between real servers on loopback.

mod support;

use bytes::Bytes;
use proto::NodeId;
use proto::control::LinkFault;
use rpc::links::QueueLimits;
use rpc::wire::meridian_client::MeridianClient;
use rpc::wire::{self, Frame};
use rpc::{Hello, Versions};
use std::collections::BTreeMap;
use std::time::Duration;
use support::{Node, Plan, hello, linked, log, number, numbered, until};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tracing::Level;

#[tokio::test(flavor = "multi_thread")]
async fn messages_flow_both_ways_in_order() {
    const COUNT: u64 = 2_000;
    let nodes = linked(vec![Plan::new(1), Plan::new(2), Plan::new(3)]).await;
    for number in 0..COUNT {
        for (from, to) in pairs(&nodes) {
            assert!(from.links.send(to.node, numbered(number)));
        }
    }
    for (from, to) in pairs(&nodes) {
        until("all messages", || to.seen.count(from.node.0) == COUNT as usize).await;
        assert!(to.seen.from(from.node.0).iter().map(number).eq(0..COUNT));
        let (there, here) = (from.report(to.node.0), to.report(from.node.0));
        assert_eq!((there.sent, here.received, there.dropped), (COUNT, COUNT, 0));
        assert_eq!((there.connects, here.connects), (1, 1), "one link for both directions");
    }
    for node in nodes {
        node.stop().await;
    }
}

fn pairs(nodes: &[Node]) -> impl Iterator<Item = (&Node, &Node)> {
    let all = nodes.iter().flat_map(|from| nodes.iter().map(move |to| (from, to)));
    all.filter(|(from, to)| from.node != to.node)
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_arrive_whole() {
    let nodes = linked(vec![Plan::new(1), Plan::new(2)]).await;
    let large: Bytes = (0..40_u32 << 20).map(|i| (i ^ (i >> 8)) as u8).collect::<Vec<_>>().into();
    assert!(nodes[0].links.send(NodeId(2), large.clone()));
    until("the large one", || nodes[1].seen.count(1) == 1).await;
    assert!(nodes[1].seen.from(1)[0] == large);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_link_messages_are_dropped_and_counted() {
    let node = Node::start(Plan::new(2)).await;
    assert!(!node.links.send(NodeId(9), numbered(0)), "a stranger");
    node.links.set_peers(BTreeMap::from([(NodeId(3), String::new())]));
    assert!(!node.links.send(NodeId(3), numbered(0)), "it has not dialled us yet");
    assert_eq!(node.report(3).dropped, 1);
    assert!(!node.links.send(NodeId(2), numbered(0)), "there is no link to oneself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_comes_back_after_a_restart() {
    let mut nodes = linked(vec![Plan::new(1), Plan::new(2)]).await;
    let two = nodes.pop().expect("two nodes");
    // The dialled one restarts where it was.
    let one = nodes.pop().expect("two nodes");
    let address = one.server.address();
    one.stop().await;
    until("the end", || !two.is_linked(1)).await;
    let one = Node::start(Plan::new(1).listen(address)).await;
    until("the second link", || two.is_linked(1) && one.is_linked(2)).await;
    assert!(one.links.send(NodeId(2), numbered(1)) && two.links.send(NodeId(1), numbered(2)));
    until("messages", || one.seen.count(2) == 1 && two.seen.count(1) == 1).await;
    assert_eq!(two.report(1).connects, 2);
    // Then somewhere else: its new address is enough.
    one.stop().await;
    let one = Node::start(Plan::new(1)).await;
    two.knows(&[&one]);
    until("the third link", || two.is_linked(1) && one.is_linked(2)).await;
    // The dialling one restarts.
    two.stop().await;
    until("the end", || !one.is_linked(2)).await;
    let two = Node::start(Plan::new(2)).await;
    two.knows(&[&one]);
    until("the fourth link", || two.is_linked(1) && one.is_linked(2)).await;
    assert_eq!(one.report(2).connects, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_is_noticed_at_both_ends() {
    let mut nodes = linked(vec![Plan::new(1), Plan::new(2)]).await;
    let two = nodes.pop().expect("two nodes");
    let one = nodes.pop().expect("two nodes");
    // As when a process is killed: nobody says goodbye.
    let (one_links, server) = (one.links, one.server);
    drop(server);
    until("both ends", || !two.is_linked(1) && !one_links.report()[&NodeId(2)].connected).await;
    assert_ne!(two.report(1).error, "");
}

/// A machine that has lost its network: connections stay, nothing moves. HTTP/2's PINGs notice.
#[tokio::test(flavor = "multi_thread")]
async fn silence_is_noticed_at_both_ends() {
    let (one, two) = (Node::start(Plan::new(1)).await, Node::start(Plan::new(2)).await);
    let wire = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = wire.local_addr().expect("bound").to_string();
    let (moving, end) = (watch::Sender::new(true), one.address());
    let mut still = moving.subscribe();
    tokio::spawn(async move {
        let (mut near, _) = wire.accept().await.expect("a connection");
        let mut far = TcpStream::connect(end).await.expect("somebody listens");
        tokio::select! {
            _ = copy_bidirectional(&mut near, &mut far) => {}
            _ = still.wait_for(|moving| !moving) => {}
        }
        std::future::pending::<()>().await; // holds both connections
    });
    two.links.set_peers(BTreeMap::from([(NodeId(1), at)]));
    until("the link", || one.is_linked(2) && two.is_linked(1)).await;
    moving.send_replace(false);
    for number in 0..100 {
        assert!(two.links.send(NodeId(1), numbered(number)), "nobody knows yet");
    }
    until("both ends", || !one.is_linked(2) && !two.is_linked(1)).await;
    assert_eq!(one.seen.count(2), 0);
    assert!(!two.links.send(NodeId(1), numbered(0)), "now it is known");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_not_wanted_loses_its_link() {
    let nodes = linked(vec![Plan::new(1), Plan::new(2), Plan::new(3)]).await;
    nodes[1].knows(&[&nodes[0]]);
    until("n3 is gone", || !nodes[1].is_linked(3)).await;
    assert!(nodes[1].is_linked(1));
    nodes[2].knows(&[&nodes[0]]);
    until("n2 is gone", || !nodes[2].is_linked(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_receiver_costs_a_bounded_queue() {
    const BYTES: usize = 100_000;
    let limits = QueueLimits {
        count_max: 50,
        bytes_max: 64 << 20,
        age_max: Duration::from_secs(3_600),
        frame_bytes_max: 1 << 20,
    };
    let nodes = linked(vec![Plan::new(1), Plan::new(2).queue(limits)]).await;
    let (one, two) = (&nodes[0], &nodes[1]);
    one.open(false);
    let message = |number: u64| {
        let mut bytes = vec![0; BYTES];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        Bytes::from(bytes)
    };
    // Until the queue has been full for a hundred messages in a row: HTTP/2 takes nothing any more.
    let (mut number_next, mut taken, mut full) = (0_u64, Vec::new(), 0);
    while full < 100 {
        assert!(number_next < 10_000, "a gigabyte was taken: nothing holds it back");
        match two.links.send(NodeId(1), message(number_next)) {
            true => {
                taken.push(number_next);
                full = 0;
            }
            false => full += 1,
        }
        number_next += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let report = two.report(1);
    assert_eq!(report.dropped, number_next - taken.len() as u64, "what is dropped is counted");
    assert_eq!(report.sent + 50, taken.len() as u64, "the queue is full");
    // What has left it fills the receiver's window of 4 MiB, and a frame at either end.
    assert!(report.sent as usize * BYTES < 16 << 20, "{} messages under way", report.sent);
    one.open(true);
    until("what was taken", || one.seen.count(2) == taken.len()).await;
    assert!(one.seen.from(2).iter().map(number).eq(taken), "in order, nothing twice");
    assert_eq!(two.report(1).dropped, report.dropped);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_belong_is_refused_at_both_ends() {
    log::keep();
    let one = Node::start(Plan::new(1)).await;
    one.links.set_peers(BTreeMap::new());
    let stranger = |hello: Hello| Plan { hello, ..Plan::new(2) };
    let cases = [
        (
            Hello { cluster: "ffff".into(), ..hello(2) },
            "n1 is of cluster 0123456789abcdef, n2 of cluster ffff",
        ),
        (
            Hello { versions: Versions { min: 7, max: 9 }, ..hello(2) },
            "no version in common: n1 speaks 1 to 1, n2 7 to 9",
        ),
    ];
    for (hello, reason) in cases {
        let two = Node::start(stranger(hello)).await;
        two.knows(&[&one]);
        until("the refusal", || two.report(1).error.contains(reason)).await;
        assert!(!two.is_linked(1) && !one.is_linked(2));
        assert!(log::has(Level::WARN, &["link refused", reason]), "at the acceptor");
        assert!(log::has(Level::WARN, &["no link", reason]), "at the dialler");
        two.stop().await;
    }
    *one.seen.disliked.lock() = Some(NodeId(3));
    let three = Node::start(Plan::new(3)).await;
    three.knows(&[&one]);
    until("the handler's refusal", || three.report(1).error.contains("n3 is not wanted here"))
        .await;
    let two = Node::start(Plan::new(2)).await;
    *two.seen.disliked.lock() = Some(NodeId(1));
    two.knows(&[&one]);
    until("the dialler's refusal", || two.report(1).error.contains("n1 is not wanted here")).await;
    until("the acceptor sees it", || one.report(2).connects > 0 && !one.is_linked(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_one_node() {
    let mut nodes = linked(vec![Plan::new(1), Plan::new(2)]).await;
    let two = nodes.pop().expect("two nodes");
    let one = nodes.pop().expect("two nodes");
    // Where n1 is expected, somebody else is.
    let three = Node::start(Plan::new(3)).await;
    let impostor = Node::start(Plan::new(2)).await;
    three.links.set_peers(BTreeMap::from([(NodeId(1), impostor.address())]));
    until("the wrong one", || three.report(1).error.contains("n2 is there instead of n1")).await;
    // One that says that it is n1, to n1.
    let (status, _) = open(&one, hello(1)).await.expect_err("a second n1");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("both are n1"), "{}", status.message());
    // n2 with a blank disk: its number is used up (P9).
    two.stop().await;
    until("the end", || !one.is_linked(2)).await;
    let blank = Hello { instance: "blank".into(), ..hello(2) };
    let two = Node::start(Plan { hello: blank, ..Plan::new(2) }).await;
    two.knows(&[&one]);
    until("the refusal", || two.report(1).error.contains("another data folder")).await;
    assert!(!one.is_linked(2));
}

/// Opens a link by hand: what it says, and what it hears.
async fn open(
    to: &Node,
    hello: Hello,
) -> Result<(mpsc::Sender<Frame>, Streaming<Frame>), (Status, ())> {
    let channel = Channel::from_shared(format!("http://{}", to.address())).expect("an address");
    let channel = channel.connect().await.expect("somebody listens");
    let (frames, sent) = mpsc::channel(16);
    let hello = wire::Hello {
        cluster: hello.cluster,
        node: hello.node.0,
        instance: hello.instance,
        version_min: hello.versions.min,
        version_max: hello.versions.max,
        address: hello.address,
        host: hello.host,
        clock: hello.clock,
    };
    let first = Frame { hello: Some(hello), ..Frame::default() };
    frames.send(first).await.expect("room");
    let answer = MeridianClient::new(channel).link(ReceiverStream::new(sent)).await;
    match answer {
        Ok(answer) => Ok((frames, answer.into_inner())),
        Err(status) => Err((status, ())),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_make_no_sense_end_the_link() {
    log::keep();
    let one = Node::start(Plan::new(1)).await;
    let damaged = Frame { messages: vec![numbered(1)], checksum: 1, ..Frame::default() };
    let again = Frame { hello: Some(wire::Hello::default()), ..Frame::default() };
    for (node, frame, reason) in [(31, damaged, "bad checksum"), (32, again, "a second Hello")] {
        let (frames, mut heard) = open(&one, hello(node)).await.expect("welcome");
        let first = heard.message().await.expect("a frame").expect("a frame");
        assert_eq!(first.hello.expect("a Hello").node, 1);
        until("the link", || one.is_linked(node)).await;
        frames.send(frame).await.expect("room");
        assert!(matches!(heard.message().await, Ok(None)), "the link ends");
        until("the end", || !one.is_linked(node)).await;
        assert!(one.report(node).error.contains(reason));
        assert!(log::has(Level::WARN, &[&format!("n{node}"), reason]));
        assert_eq!(one.seen.count(node), 0, "what is damaged is not delivered");
    }
    let (status, ()) = open(&one, Hello { node: NodeId(0), ..hello(1) }).await.expect_err("n0");
    assert!(status.message().contains("says 0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lower_number_does_not_dial() {
    let five = Node::start(Plan::new(5)).await;
    let (status, ()) = open(&five, hello(4)).await.expect_err("n4 waits for n5");
    assert!(status.message().contains("n4 is dialled by n5"), "{}", status.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_link_takes_the_place_of_the_older() {
    let one = Node::start(Plan::new(1)).await;
    let (_old_frames, mut old) = open(&one, hello(6)).await.expect("welcome");
    assert!(old.message().await.expect("a frame").is_some(), "its Hello");
    let (_new_frames, mut new) = open(&one, hello(6)).await.expect("welcome");
    assert!(new.message().await.expect("a frame").is_some(), "its Hello");
    assert!(matches!(old.message().await, Ok(None)), "the older one ends");
    assert!(one.is_linked(6));
    assert!(one.links.send(NodeId(6), numbered(4)));
    let frame = new.message().await.expect("a frame").expect("a frame");
    assert_eq!(frame.messages, [numbered(4)]);
    assert_eq!(one.report(6).connects, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_are_one_way_and_end_when_they_are_taken_back() {
    const COUNT: u64 = 300;
    let nodes = linked(vec![Plan::new(1), Plan::new(2)]).await;
    let (one, two) = (&nodes[0], &nodes[1]);
    let fault = |fault: LinkFault| two.faults.set(vec![LinkFault { to: NodeId(1), ..fault }]);
    let send_all = |from: &Node, to: u32| {
        (0..COUNT).for_each(|number| assert!(from.links.send(NodeId(to), numbered(number))));
    };
    fault(LinkFault { drop_permille: 1_000, ..LinkFault::default() });
    send_all(two, 1);
    send_all(one, 2);
    until("the other way", || two.seen.count(1) == COUNT as usize).await;
    two.faults.set(vec![]);
    assert!(two.links.send(NodeId(1), numbered(COUNT)));
    until("the first one", || one.seen.count(2) > 0).await;
    assert_eq!(one.seen.from(2), [numbered(COUNT)], "all the others are lost");
    one.seen.messages.lock().clear();
    fault(LinkFault { duplicate_permille: 1_000, ..LinkFault::default() });
    send_all(two, 1);
    until("all of them twice", || one.seen.count(2) == 2 * COUNT as usize).await;
    one.seen.messages.lock().clear();
    fault(LinkFault { delay_ms: 5, jitter_ms: 5, ..LinkFault::default() });
    send_all(two, 1);
    until("all of them, later", || one.seen.count(2) == COUNT as usize).await;
    assert!(one.seen.from(2).iter().map(number).eq(0..COUNT), "a delay keeps the order");
    one.seen.messages.lock().clear();
    fault(LinkFault { reorder_permille: 300, ..LinkFault::default() });
    send_all(two, 1);
    until("all of them, somehow", || one.seen.count(2) == COUNT as usize).await;
    let mut numbers: Vec<_> = one.seen.from(2).iter().map(number).collect();
    assert!(!numbers.is_sorted());
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..COUNT));
}
