//! TLS: who gets in, and what the log says of those who do not.

mod support;

use proto::control::{ControlReply, ControlRequest, Heartbeat};
use proto::{Error, GroupId, NodeId};
use rpc::security::{SecurityError, Tls, TlsFiles, node_name};
use rpc::{CallError, Connections, Faults, Security, Target};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use support::certificates::{Authority, Valid};
use support::{Node, Plan, linked, log, numbered, request, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tracing::Level;
use truetime::Timestamp;

const LONG: Duration = Duration::from_secs(30);

fn connections(security: Security) -> Connections {
    Connections::new(security, Arc::new(Faults::new(1)), 1)
}

/// Asks with these certificates; why it could not.
async fn refused(security: Security, to: &Target) -> String {
    match connections(security).try_ask(to, &request(GroupId(1)), LONG).await {
        Err(CallError::Unreachable { reason, .. }) => reason,
        other => panic!("expected to be refused: {other:?}"),
    }
}

/// Waits until the server has said why it refused a connection.
async fn refusal_is_logged(reason: &str) {
    until(&format!("{reason:?} in the log"), || {
        log::has(Level::WARN, &["connection refused", "127.0.0.1:", reason])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_and_clients_of_one_authority_work_together() {
    let authority = Authority::new("good");
    let plans = (1..=2).map(|node| Plan::new(node).security(authority.node(node))).collect();
    let nodes = linked(plans).await;
    assert!(nodes[0].links.send(NodeId(2), numbered(1)));
    assert!(nodes[1].links.send(NodeId(1), numbered(2)));
    until("messages", || nodes[0].seen.count(2) == 1 && nodes[1].seen.count(1) == 1).await;
    let client = connections(authority.client());
    for to in [Target::address(nodes[0].address()), Target::node(NodeId(1), nodes[0].address())] {
        assert!(client.ask(&to, &request(GroupId(1)), LONG).await.is_ok(), "{to}");
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_and_tls_do_not_mix() {
    log::keep();
    let authority = Authority::new("mixed");
    let node = Node::start(Plan::new(1).security(authority.node(1))).await;
    let to = Target::address(node.address());
    let reason = refused(Security::Plaintext, &to).await;
    assert!(reason.contains("it wants TLS: give --tls-cert"), "{reason}");
    refusal_is_logged("it speaks plaintext on a TLS port").await;
    let plain = Node::start(Plan::new(2)).await;
    let reason = refused(authority.client(), &Target::address(plain.address())).await;
    assert!(reason.contains("does it speak TLS?"), "{reason}");
    refusal_is_logged("it speaks TLS, and this server was started without certificates").await;
    let mut browser = TcpStream::connect(plain.address()).await.expect("somebody listens");
    browser.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").await.expect("sent");
    refusal_is_logged("it does not speak gRPC").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_authority_is_refused_by_either_side() {
    log::keep();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let node = Node::start(Plan::new(1).security(ours.node(1))).await;
    let to = Target::address(node.address());
    theirs.sign("mallory", &["mallory.example".into()], Valid::Now);
    // It trusts us, we do not trust it.
    let reason = refused(theirs.security_trusting("mallory", &ours), &to).await;
    assert!(reason.contains("it refused our certificate"), "{reason}");
    refusal_is_logged("not signed by our certificate authority").await;
    // It does not trust us.
    let reason = refused(theirs.security("mallory"), &to).await;
    assert!(reason.contains("not signed by our certificate authority"), "{reason}");
    refusal_is_logged("it refused our certificate").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_count_in_their_time() {
    log::keep();
    let authority = Authority::new("time");
    let node = Node::start(Plan::new(1).security(authority.node(1))).await;
    let to = Target::address(node.address());
    authority.sign("old", &["old.example".into()], Valid::Before);
    let reason = refused(authority.security("old"), &to).await;
    assert!(reason.contains("it refused our certificate: expired"), "{reason}");
    refusal_is_logged("its certificate has expired").await;
    authority.sign("early", &["early.example".into()], Valid::Later);
    refused(authority.security("early"), &to).await;
    refusal_is_logged("its certificate is not valid yet").await;
    // A server's.
    authority.sign("stale", &[node_name(NodeId(2)), "127.0.0.1".into()], Valid::Before);
    let stale = Node::start(Plan::new(2).security(authority.security("stale"))).await;
    let reason = refused(authority.client(), &Target::address(stale.address())).await;
    assert!(reason.contains("its certificate has expired"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_certificate_is_no_entry() {
    log::keep();
    let authority = Authority::new("mutual");
    let node = Node::start(Plan::new(1).security(authority.node(1))).await;
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(authority.path("ca.crt")).expect("a certificate");
    roots.add(ca).expect("an authority");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(node.address()).await.expect("somebody listens");
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    // In TLS 1.3 the refusal comes after what the client takes for the end of the handshake.
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("so far");
    assert!(stream.read_u8().await.is_err());
    refusal_is_logged("it shows no certificate, and TLS is mutual here").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_no_node_and_no_node_is_another() {
    log::keep();
    let authority = Authority::new("identity");
    let one = Node::start(Plan::new(1).security(authority.node(1))).await;
    // A link with a client's certificate, and with another node's.
    authority.sign("n9", &[node_name(NodeId(9))], Valid::Now);
    for (node, security) in [(2, authority.client()), (3, authority.security("n9"))] {
        let impostor = Node::start(Plan::new(node).security(security)).await;
        impostor.knows(&[&one]);
        let reason = format!("does not make it n{node}: it lacks the name n{node}.node.meridian");
        until("the refusal", || impostor.report(1).error.contains(&reason)).await;
        assert!(log::has(Level::WARN, &["link refused", &reason]));
        assert!(!one.is_linked(node));
        impostor.stop().await;
    }
    // A heartbeat.
    let heartbeat = |node| {
        ControlRequest::Heartbeat(Heartbeat {
            cluster: String::new(),
            node: NodeId(node),
            instance: "i".into(),
            address: "a".into(),
            version: Timestamp::default(),
            changed: vec![],
            leads: vec![],
            has_time: true,
            stopping: false,
        })
    };
    let to = Target::address(one.address());
    let answer = connections(authority.client()).control(&to, &heartbeat(2), LONG).await;
    assert!(
        matches!(&answer, Err(CallError::Refused(Error::FailedPrecondition(reason)))
            if reason.contains("does not make it n2")),
        "{answer:?}"
    );
    assert!(log::has(Level::WARN, &["order refused", "does not make it n2"]));
    let two = connections(authority.node(2));
    assert!(two.control(&to, &heartbeat(3), LONG).await.is_err());
    assert_eq!(two.control(&to, &heartbeat(2), LONG).await, Ok(ControlReply::Done));
    // Who answers where n1 should be is not n1.
    let elsewhere = Target::node(NodeId(4), one.address());
    let reason = refused(authority.client(), &elsewhere).await;
    assert!(reason.contains("its certificate is for somebody else"), "{reason}");
    let five = Node::start(Plan::new(5).security(authority.node(5))).await;
    five.links.set_peers(BTreeMap::from([(NodeId(4), one.address())]));
    until("the refusal", || five.report(4).error.contains("for somebody else")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_the_certificate_does_not_name_is_not_it() {
    let authority = Authority::new("hosts");
    authority.sign("n1", &[node_name(NodeId(1))], Valid::Now);
    let node = Node::start(Plan::new(1).security(authority.security("n1"))).await;
    let reason = refused(authority.client(), &Target::address(node.address())).await;
    assert!(reason.contains("its certificate is for somebody else"), "{reason}");
    let client = connections(authority.client());
    let as_node = Target::node(NodeId(1), node.address());
    assert!(client.ask(&as_node, &request(GroupId(1)), LONG).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn renewed_certificates_are_used_without_a_restart() {
    let authority = Authority::new("renewed");
    authority.sign("n1", &[node_name(NodeId(1)), "127.0.0.1".into()], Valid::Before);
    let security = authority.security("n1");
    let Security::Tls(tls) = security.clone() else { panic!("TLS was asked for") };
    let node = Node::start(Plan::new(1).security(security)).await;
    let to = Target::address(node.address());
    let reason = refused(authority.client(), &to).await;
    assert!(reason.contains("its certificate has expired"), "{reason}");
    assert!(!tls.refresh().expect("good files"), "nothing has changed");
    fs::write(authority.path("n1.crt"), "no certificate").expect("written");
    assert!(tls.refresh().is_err());
    let reason = refused(authority.client(), &to).await;
    assert!(reason.contains("its certificate has expired"), "what was read before stays: {reason}");
    authority.sign("n1", &[node_name(NodeId(1)), "127.0.0.1".into()], Valid::Now);
    assert!(tls.refresh().expect("good files"));
    assert!(connections(authority.client()).ask(&to, &request(GroupId(1)), LONG).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_is_dropped() {
    log::keep();
    let authority = Authority::new("silence");
    let node = Node::start(Plan::new(1).security(authority.node(1))).await;
    let mut silent = TcpStream::connect(node.address()).await.expect("somebody listens");
    let me = silent.local_addr().expect("connected").to_string();
    assert!(matches!(silent.read(&mut [0]).await, Ok(0) | Err(_)), "the server hangs up");
    until("the reason", || log::has(Level::WARN, &[&me, "no handshake within 5 s"])).await;
    // A probe that only looks whether somebody listens is nobody's business.
    let probe = TcpStream::connect(node.address()).await.expect("somebody listens");
    let me = probe.local_addr().expect("connected").to_string();
    drop(probe);
    assert!(
        connections(authority.client())
            .ask(&Target::address(node.address()), &request(GroupId(1)), LONG)
            .await
            .is_ok()
    );
    assert_eq!(log::lines(&me), Vec::<String>::new());
}

#[test]
fn files_that_are_wrong_are_named() {
    let authority = Authority::new("files");
    authority.sign("a", &["a.example".into()], Valid::Now);
    authority.sign("b", &["b.example".into()], Valid::Now);
    fs::write(authority.path("empty"), "").expect("written");
    fs::write(
        authority.path("cut"),
        "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
    )
    .expect("written");
    let wrong = |cert: &str, key: &str, ca: &str| {
        let path = |file: &str| -> PathBuf { authority.path(file) };
        let files = TlsFiles { cert: path(cert), key: path(key), ca: path(ca) };
        Tls::read(files).expect_err("something is wrong").to_string()
    };
    let says = |text: String, words: &[&str]| {
        assert!(words.iter().all(|word| text.contains(word)), "{text:?} lacks one of {words:?}");
    };
    says(wrong("absent", "a.key", "ca.crt"), &["reading", "absent", "No such file"]);
    says(wrong("empty", "a.key", "ca.crt"), &["empty has no certificate", "BEGIN CERTIFICATE"]);
    says(wrong("a.crt", "empty", "ca.crt"), &["empty has no private key"]);
    says(wrong("a.crt", "a.crt", "ca.crt"), &["a.crt has no private key"]);
    says(
        wrong("a.crt", "b.key", "ca.crt"),
        &["b.key is not the key of the certificate in", "a.crt"],
    );
    says(wrong("cut", "a.key", "ca.crt"), &["cut is damaged"]);
    says(wrong("a.crt", "a.key", "empty"), &["empty has no certificate"]);
    let some = Security::from_files(Some(authority.path("a.crt")), None, None);
    assert!(matches!(some, Err(SecurityError::Incomplete { missing: "--tls-key" })));
    assert!(matches!(Security::from_files(None, None, None), Ok(Security::Plaintext)));
}

#[tokio::test]
async fn plaintext_is_for_loopback_or_for_those_who_insist() {
    let loopback = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let loopback = loopback.local_addr().expect("bound");
    let exposed: SocketAddr = ([0, 0, 0, 0], 7000).into();
    let plain = Security::Plaintext;
    assert!(plain.check_listen(loopback, false).is_ok());
    assert!(plain.check_listen(exposed, true).is_ok());
    let error = plain.check_listen(exposed, false).expect_err("exposed").to_string();
    assert!(error.contains("0.0.0.0:7000") && error.contains("--insecure"), "{error}");
    let authority = Authority::new("exposed");
    assert!(authority.client().check_listen(exposed, false).is_ok());
}
