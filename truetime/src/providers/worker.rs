//! A thread that does the same thing again and again, and ends with its owner.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Ends the thread and waits for it when it is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Calls `work` again and again, as long after each call as it says.
    ///
    /// # Errors
    /// The operating system has no thread to give.
    pub fn start(
        name: &str,
        mut work: impl FnMut() -> Duration + Send + 'static,
    ) -> io::Result<Worker> {
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Nothing is ever sent: the sender goes when the owner does.
            while stopped.recv_timeout(work()) == Err(RecvTimeoutError::Timeout) {}
        })?;
        Ok(Worker { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // It panicked: that has been printed, and a clock that nobody keeps up grows its ε.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn works_until_it_is_dropped() {
        let calls = Arc::new(AtomicU64::new(0));
        let counter = calls.clone();
        let worker = Worker::start("test-worker", move || {
            counter.fetch_add(1, Ordering::Relaxed);
            Duration::from_millis(1)
        })
        .unwrap();
        while calls.load(Ordering::Relaxed) < 3 {
            thread::yield_now();
        }
        drop(worker);
        assert_eq!(Arc::strong_count(&calls), 1, "the thread is gone, and all that it held");
    }
}
