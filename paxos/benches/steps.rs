//! What the core itself costs: three replicas of one group in one thread. Messages arrive at once,
//! in order; disks answer at once; nothing is encoded. What is left is the protocol: appending,
//! counting, choosing, applying, forgetting.
//!
//! Run it with `cargo bench -p paxos`; a name behind `--` picks benchmarks.

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use paxos::{Base, Config, Configuration, Limits, Message, Output, Replica, Stored};
use proto::{NodeId, Seat};
use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant};
use truetime::{Interval, Timestamp};

const REPLICAS: u32 = 3;
const ENTRY_BYTES: usize = 100;
const BATCHES: [u64; 3] = [1, 16, 256];

const EPSILON_US: u64 = 50;
/// From one batch to the next, about as long as a sync takes.
const ROUND_US: u64 = 1_000;
const HEARTBEAT_MS: u64 = 100;
/// How often a server's leader asks for truncation.
const TRUNCATE_EVERY_US: u64 = 100_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    entries(&mut criterion);
    election(&mut criterion);
    criterion.final_summary();
}

/// Batches of entries, each proposed with one flush, applied by all three.
fn entries(criterion: &mut Criterion) {
    let mut benches = criterion.benchmark_group("entries");
    for batch in BATCHES {
        let mut calls = Calls::default();
        benches.throughput(Throughput::Elements(batch));
        benches.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut group = Group::founded();
                group.elect();
                let calls_before = group.calls;
                let began = Instant::now();
                for _ in 0..rounds {
                    group.round(batch);
                }
                group.settle();
                let took = began.elapsed();
                calls.add(group.calls - calls_before, rounds * batch, took);
                took
            });
        });
        calls.tell(&format!("entries/{batch}"), "entry");
    }
    benches.finish();
}

/// From three replicas that know of no leader to one that has opened its ballot.
fn election(criterion: &mut Criterion) {
    let mut calls = Calls::default();
    let mut benches = criterion.benchmark_group("election");
    benches.throughput(Throughput::Elements(1));
    benches.bench_function("of_three", |bencher| {
        bencher.iter_batched(
            Group::founded,
            |mut group| {
                let began = Instant::now();
                group.elect();
                calls.add(group.calls, 1, began.elapsed());
                group
            },
            BatchSize::SmallInput,
        );
    });
    benches.finish();
    calls.tell("election/of_three", "election");
}

/// Calls of `step` and `tick`, warming up included.
#[derive(Default)]
struct Calls {
    calls: u64,
    elements: u64,
    took: Duration,
}

impl Calls {
    fn add(&mut self, calls: u64, elements: u64, took: Duration) {
        self.calls += calls;
        self.elements += elements;
        self.took += took;
    }

    fn tell(&self, name: &str, element: &str) {
        if self.calls == 0 {
            return; // not picked on the command line
        }
        let per_second = self.calls as f64 / self.took.as_secs_f64();
        let per_element = self.calls as f64 / self.elements as f64;
        println!(
            "{name}: {per_second:.0} calls of step and tick per second, {per_element:.2} per \
             {element}\n"
        );
    }
}

/// A group whose disks and links take no time.
struct Group {
    replicas: Vec<Replica>,
    now_us: u64,
    /// From, to, what.
    mail: VecDeque<(NodeId, NodeId, Message)>,
    truncate_at_us: u64,
    calls: u64,
}

impl Group {
    fn founded() -> Group {
        let nodes = || (1..=REPLICAS).map(NodeId);
        let configuration = Configuration::founding(nodes());
        let replicas = nodes().map(|node| {
            let config = Config {
                node,
                lease_ms: 500,
                heartbeat_ms: HEARTBEAT_MS,
                election_jitter_ms: 150,
                seed: u64::from(node.0),
                limits: Limits::default(),
            };
            let base = Base { configuration: configuration.clone(), ..Base::default() };
            Replica::recover(config, Stored { seat: Seat::FOUNDER, base, ..Stored::default() })
        });
        Group {
            replicas: replicas.collect(),
            now_us: 1_000_000,
            mail: VecDeque::new(),
            truncate_at_us: 0,
            calls: 0,
        }
    }

    fn now(&self) -> Interval {
        Interval::around_ns(self.now_us * 1_000, EPSILON_US * 1_000)
    }

    /// Lets time pass until somebody leads.
    fn elect(&mut self) {
        while !self.replicas.iter().any(Replica::opened) {
            let wake = self.replicas.iter().map(Replica::wake_at).min().unwrap_or(Timestamp::MIN);
            self.now_us = self.now_us.max(wake.micros() + EPSILON_US + 1);
            self.tick();
        }
    }

    /// One batch. The followers hear with the next one that it is chosen.
    fn round(&mut self, batch: u64) {
        let now = self.now();
        let leader = self.leader();
        let replica = &mut self.replicas[leader];
        assert!(replica.admits(), "everything earlier is chosen");
        let mut out = Output::default();
        for _ in 0..batch {
            let command = Bytes::copy_from_slice(black_box(&[7; ENTRY_BYTES]));
            replica.propose(command, &mut out).expect("it leads");
        }
        replica.flush(now, &mut out);
        if self.now_us >= self.truncate_at_us {
            self.truncate_at_us = self.now_us + TRUNCATE_EVERY_US;
            replica.advance_truncation(now, &mut out);
        }
        self.carry_out(leader, out);
        self.now_us += ROUND_US;
        self.tick();
    }

    /// A heartbeat later, everybody has applied everything.
    fn settle(&mut self) {
        self.now_us += HEARTBEAT_MS * 1_000 + 2 * EPSILON_US + 1;
        self.tick();
        let (_, last, ..) = self.replicas[self.leader()].positions();
        for replica in &self.replicas {
            let (_, _, _, applied) = replica.positions();
            assert_eq!(applied, last, "everything is applied everywhere");
        }
    }

    fn leader(&self) -> usize {
        self.replicas.iter().position(|r| r.leading().is_some()).expect("somebody leads")
    }

    /// Ticks whoever asked for it, and delivers what comes of it.
    fn tick(&mut self) {
        let now = self.now();
        for index in 0..self.replicas.len() {
            if now.after(self.replicas[index].wake_at()) {
                let mut out = Output::default();
                self.replicas[index].tick(now, &mut out);
                self.calls += 1;
                self.carry_out(index, out);
            }
        }
    }

    /// The disk takes the writes, then all messages are on their way; and whatever they lead to.
    fn carry_out(&mut self, index: usize, out: Output) {
        self.post(index, out);
        let now = self.now();
        while let Some((from, to, message)) = self.mail.pop_front() {
            let index = to.0 as usize - 1;
            let replica = &mut self.replicas[index];
            let mut out = Output::default();
            replica.step(now, (from, Seat::FOUNDER), message, &mut out);
            self.calls += 1;
            while let Some((slot, payload)) = replica.next_to_apply() {
                black_box(payload);
                replica.applied(now, slot, &mut out);
            }
            self.post(index, out);
        }
    }

    fn post(&mut self, index: usize, out: Output) {
        let Output { writes, send, send_after, read, forget } = out;
        assert!(read.is_empty() && forget.is_empty(), "nobody needs a snapshot");
        drop(black_box(writes));
        let from = NodeId(index as u32 + 1);
        let sent = send.into_iter().chain(send_after);
        self.mail.extend(sent.map(|(to, message)| (from, to, message)));
    }
}
