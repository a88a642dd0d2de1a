//! How far experiments are, and Ctrl-C, which ends them at their next step.

use crate::interrupt;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use sim::lab::Progress;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The bars of all experiments that run.
pub struct Bars {
    all: MultiProgress,
    stopped: Arc<AtomicBool>,
}

/// The bar of one.
pub struct Bar {
    bar: ProgressBar,
    stopped: Arc<AtomicBool>,
}

impl Bars {
    /// No bars yet. From now on, Ctrl-C is a wish; the second one ends the process.
    pub fn new() -> Bars {
        let stopped = Arc::new(AtomicBool::new(false));
        interrupt::take_over();
        let wish = Arc::clone(&stopped);
        std::thread::spawn(move || {
            futures::executor::block_on(interrupt::ctrl_c());
            wish.store(true, Ordering::Relaxed);
            futures::executor::block_on(interrupt::ctrl_c());
            std::process::exit(130);
        });
        let all = MultiProgress::new();
        if !std::io::stderr().is_terminal() {
            all.set_draw_target(ProgressDrawTarget::hidden());
        }
        Bars { all, stopped }
    }

    /// A bar for an experiment.
    pub fn bar(&self, name: &'static str) -> Bar {
        let style =
            ProgressStyle::with_template("{prefix:14} {bar:40} {pos}/{len} steps, {elapsed}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(0).with_style(style).with_prefix(name);
        let bar = self.all.add(bar);
        bar.enable_steady_tick(std::time::Duration::from_millis(250));
        Bar { bar, stopped: Arc::clone(&self.stopped) }
    }

    /// Whether somebody pressed Ctrl-C.
    pub fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

impl Bar {
    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Bar {
    fn begin(&self, steps: u64) {
        self.bar.set_length(steps);
    }

    fn step(&self) {
        self.bar.inc(1);
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}
