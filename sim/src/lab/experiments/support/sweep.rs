//! Many points of one experiment, each a world of its own.

use crate::history::Violation;
use crate::lab::{LabError, Progress};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

/// Measures every point, on as many threads as there are processors; the results are in the order
/// of the points, whoever was first. One step of progress for each.
///
/// # Errors
/// The first failure by the order of points, or [`LabError::Stopped`].
pub fn sweep<P: Sync, R: Send>(
    points: &[P],
    progress: &dyn Progress,
    measure: impl Fn(&P) -> Result<R, LabError> + Sync,
) -> Result<Vec<R>, LabError> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<Result<R, LabError>>>> =
        Mutex::new(points.iter().map(|_| None).collect());
    let worker = || {
        while !progress.stopped() {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(point) = points.get(place) else { return };
            let result = measure(point);
            results.lock()[place] = Some(result);
            progress.step();
        }
    };
    let threads = available_parallelism().map_or(1, usize::from).min(points.len()).max(1);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(worker);
        }
    });
    let results = results.into_inner().into_iter();
    results.map(|result| result.unwrap_or(Err(LabError::Stopped))).collect()
}

/// The seed of one point: another one for each.
pub fn seed_of(seed: u64, point: u64) -> u64 {
    (seed ^ 0x5eed_1ab5).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(point)
}

/// A broken promise where none was to be broken: the run went wrong.
pub fn failed(violation: Violation) -> LabError {
    LabError::Failed(violation.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Silent;

    #[test]
    fn results_are_in_the_order_of_the_points() {
        let points: Vec<u64> = (0..100).collect();
        let squares = sweep(&points, &Silent, |n| Ok(n * n)).unwrap();
        assert!(squares.iter().enumerate().all(|(n, square)| *square == (n * n) as u64));
        let failed = sweep(&points, &Silent, |n| match n {
            40.. => Err(LabError::failed(format!("{n}"))),
            n => Ok(*n),
        });
        assert_eq!(failed, Err(LabError::failed("40")));
    }
}
