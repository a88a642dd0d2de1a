use super::*;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};

/// A node that is as well as it is told to be.
struct Node {
    health: Mutex<Health>,
    /// Its threads answer.
    answers: watch::Sender<bool>,
}

impl Observed for Node {
    fn health(&self) -> Health {
        self.health.lock().unwrap().clone()
    }

    fn report(&self) -> BoxFuture<'_, NodeReport> {
        Box::pin(async { NodeReport { replicas: 5, ..NodeReport::default() } })
    }

    fn groups(&self) -> BoxFuture<'_, Vec<GroupStatus>> {
        let mut answers = self.answers.subscribe();
        Box::pin(async move {
            answers.wait_for(|answers| *answers).await.unwrap();
            Vec::new()
        })
    }

    fn now(&self) -> Option<Interval> {
        None
    }
}

struct Served {
    node: Arc<Node>,
    address: std::net::SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    serving: tokio::task::JoinHandle<io::Result<()>>,
}

impl Served {
    async fn start() -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let health = Health { live: true, ready: true, reasons: Vec::new() };
        let node = Arc::new(Node { health: Mutex::new(health), answers: watch::channel(true).0 });
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(serve(listener, node.clone(), async {
            stopped.await.unwrap();
        }));
        Served { node, address, stop: Some(stop), serving }
    }

    /// Status and body.
    async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

#[tokio::test]
async fn a_node_that_is_well_says_so() {
    let served = Served::start().await;
    let well = (200, "{\"live\":true,\"ready\":true,\"reasons\":[]}\n".to_owned());
    assert_eq!(served.get("/healthz").await, well);
    assert_eq!(served.get("/readyz").await, well);
    let (status, page) = served.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(page.contains("\nmeridian_replicas 5\n"), "{page}");
    assert_eq!(served.get("/").await, (200, INDEX.to_owned()));
    assert_eq!(served.get("/secrets").await.0, 404);
}

#[tokio::test]
async fn a_node_without_a_leader_is_alive_and_not_ready() {
    let served = Served::start().await;
    *served.node.health.lock().unwrap() =
        Health { live: true, ready: false, reasons: vec!["g3 has no leader".to_owned()] };
    assert_eq!(served.get("/healthz").await.0, 200);
    let (status, body) = served.get("/readyz").await;
    assert_eq!(status, 503);
    assert_eq!(body, "{\"live\":true,\"ready\":false,\"reasons\":[\"g3 has no leader\"]}\n");
}

#[tokio::test]
async fn a_node_whose_threads_are_stuck_is_not_alive() {
    let served = Served::start().await;
    served.node.answers.send_replace(false);
    // Real sockets and a clock that is moved do not go together: this waits for ANSWER_MAX.
    let ((health, body), (metrics, _)) =
        tokio::join!(served.get("/healthz"), served.get("/metrics"));
    assert_eq!((health, metrics), (503, 503));
    assert!(body.contains("has not answered for 2 s"), "{body}");
    served.node.answers.send_replace(true);
    assert_eq!(served.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn too_many_looks_are_refused_at_once() {
    let served = Arc::new(Served::start().await);
    served.node.answers.send_replace(false);
    let looks: Vec<_> = (0..LOOKS_MAX)
        .map(|_| {
            let served = served.clone();
            tokio::spawn(async move { served.get("/metrics").await.0 })
        })
        .collect();
    while served.node.answers.receiver_count() < LOOKS_MAX {
        tokio::task::yield_now().await;
    }
    let (status, body) = served.get("/metrics").await;
    assert_eq!((status, body.as_str()), (503, "too many are looking at once; ask again\n"));
    // Readiness costs nothing and is always told.
    assert_eq!(served.get("/readyz").await.0, 200);
    served.node.answers.send_replace(true);
    for look in looks {
        assert_eq!(look.await.unwrap(), 200);
    }
}

#[tokio::test]
async fn who_is_connected_and_silent_does_not_keep_the_server() {
    let mut served = Served::start().await;
    let _silent = TcpStream::connect(served.address).await.unwrap();
    assert_eq!(served.get("/").await.0, 200);
    served.stop.take().unwrap().send(()).unwrap();
    served.serving.await.unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn connections_are_bounded_and_places_come_back() {
    let served = Served::start().await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        silent.push(TcpStream::connect(served.address).await.unwrap());
    }
    // Every place is taken once the last of them is served.
    let mut stream = silent.pop().unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: n1\r\n\r\n").await.unwrap();
    stream.read_u8().await.unwrap();
    let mut late = Box::pin(served.get("/"));
    // It is connected by the kernel, and not looked at.
    for _ in 0..1_000 {
        assert!(futures::poll!(late.as_mut()).is_pending(), "one too many");
        tokio::task::yield_now().await;
    }
    drop(stream);
    assert_eq!(late.await.0, 200);
    drop(silent);
}
