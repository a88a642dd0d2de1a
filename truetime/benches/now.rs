//! What it costs to ask what time it is, beside what the operating system's clock costs alone.
//!
//! `alone`: one thread. `contended`: the same while another thread reads the same clock as fast as
//! it can, and, where there is a bound to publish, a third publishes one every millisecond, which
//! is far more often than any daemon does.
//!
//! Run it with `cargo bench -p truetime`; a name behind `--` picks benchmarks.

use criterion::Criterion;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use truetime::providers::{
    Absolute, Drift, HostTime, Local, Oscillator, Simulated, Skew, Steered, boot_ns,
};
use truetime::{Bound, Known, Synchronization, TrueTime};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    alone(&mut criterion);
    contended(&mut criterion);
    criterion.final_summary();
}

/// A bound as masters give it, as of now.
fn bound() -> Bound {
    let (local_ns, real_ns) = (boot_ns(), HostTime::new().now_ns());
    let half_ns = 1_000_000;
    Bound {
        known: Known::Since(Synchronization::new(local_ns, real_ns - half_ns, real_ns + half_ns)),
        drift_ppm: 200,
        holdover_after_ns: 31_000_000_000,
        epsilon_max_ns: 500_000_000,
    }
}

/// The clocks to read, by provider, and what keeps up the bound of the one that has one.
fn clocks() -> (Vec<(&'static str, TrueTime)>, Steered) {
    let drift = Drift::Linear { offset_ns: 0, rate_ppm: 10.0, since_ns: HostTime::new().now_ns() };
    let skew = Skew::new(drift, 4_000_000);
    let simulated = Simulated::with(Absolute::Host(HostTime::new()), skew, None);
    let steered = Steered::new("masters", Oscillator::Boot);
    steered.publish(bound());
    let clocks = vec![
        ("local", TrueTime::new(Local::default())),
        ("simulated", TrueTime::new(simulated)),
        ("masters", TrueTime::new(steered.clone())),
    ];
    (clocks, steered)
}

fn alone(criterion: &mut Criterion) {
    let mut benches = criterion.benchmark_group("alone");
    benches.bench_function("CLOCK_BOOTTIME", |bencher| bencher.iter(|| black_box(boot_ns())));
    benches.bench_function("Instant::now", |bencher| bencher.iter(|| black_box(Instant::now())));
    let (clocks, _) = clocks();
    for (provider, clock) in &clocks {
        benches.bench_function(*provider, |bencher| {
            bencher.iter(|| black_box(clock.now().expect("a bound")));
        });
    }
    benches.finish();
}

fn contended(criterion: &mut Criterion) {
    let mut benches = criterion.benchmark_group("contended");
    let (clocks, steered) = clocks();
    for (provider, clock) in &clocks {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    black_box(clock.now().expect("a bound"));
                }
            });
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    steered.publish(bound());
                    thread::sleep(Duration::from_millis(1));
                }
            });
            benches.bench_function(*provider, |bencher| {
                bencher.iter(|| black_box(clock.now().expect("a bound")));
            });
            stop.store(true, Ordering::Relaxed);
        });
    }
    benches.finish();
}
