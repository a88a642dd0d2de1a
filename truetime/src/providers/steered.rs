//! A clock whose bound is kept up by somebody else: a thread that listens to masters or asks the
//! kernel, or the simulated world.

use super::host;
use super::simulated::{Absolute, Drift};
use crate::bound::Bound;
use crate::{Clock, ClockError, Reading, Sources};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::time::Duration;

/// What counts the time between synchronisations: nobody sets it, and it runs on through a
/// suspension.
#[derive(Clone, Debug)]
pub enum Oscillator {
    /// The host's: `CLOCK_BOOTTIME`.
    Boot,
    /// A simulated one: absolute time with these errors.
    Simulated {
        /// Absolute time.
        absolute: Absolute,
        /// How it runs. Replace it through the same pointer to change that.
        drift: Arc<ArcSwap<Drift>>,
    },
}

impl Oscillator {
    /// What it shows, in nanoseconds.
    pub fn now_ns(&self) -> u64 {
        match self {
            Oscillator::Boot => host::boot_ns(),
            Oscillator::Simulated { absolute, drift } => {
                let absolute_ns = absolute.now_ns();
                absolute_ns.saturating_add_signed(drift.load().offset_ns(absolute_ns))
            }
        }
    }
}

/// A clock that goes by a [`Bound`] which somebody else publishes; reading it takes no lock. Clones
/// are the same clock.
#[derive(Clone, Debug)]
pub struct Steered {
    provider: &'static str,
    oscillator: Oscillator,
    bound: Arc<ArcSwap<Bound>>,
    sources: Arc<ArcSwap<Sources>>,
}

impl Steered {
    /// A clock without a bound as yet.
    pub fn new(provider: &'static str, oscillator: Oscillator) -> Steered {
        let bound = Bound::none("nothing has been heard from its sources yet");
        Steered {
            provider,
            oscillator,
            bound: Arc::new(ArcSwap::from_pointee(bound)),
            sources: Arc::default(),
        }
    }

    /// What it counts the time by.
    pub fn oscillator(&self) -> &Oscillator {
        &self.oscillator
    }

    /// From now on the clock goes by this bound.
    pub fn publish(&self, bound: Bound) {
        self.bound.store(Arc::new(bound));
    }

    /// The bound that it goes by now.
    pub fn bound(&self) -> Arc<Bound> {
        self.bound.load_full()
    }

    /// What [`Clock::sources`] tells.
    pub fn tell(&self, sources: Sources) {
        self.sources.store(Arc::new(sources));
    }
}

impl Clock for Steered {
    fn read(&self) -> Result<Reading, ClockError> {
        // The bound before the oscillator: a reading is of the time of the call.
        let bound = self.bound.load();
        bound.read(self.oscillator.now_ns(), self.provider)
    }

    fn rest(&self, duration: Duration) {
        host::rest(duration);
    }

    fn sources(&self) -> Sources {
        (**self.sources.load()).clone()
    }
}
