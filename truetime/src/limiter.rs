//! How often a source may ask: a token bucket per source, and a bounded number of buckets.
//!
//! The first request that finds the bucket empty is told so; those after it are passed over in
//! silence until a token has come back. A table that is full forgets the source whose bucket is
//! the fullest: when it is quite full, nothing is forgotten. Who comes in that way starts with one
//! token: nobody is kept out by others, and to be forgotten is worth less than a token. (Somebody
//! with more addresses than the table has places gets as many answers as he has addresses. He
//! needs the masters' key for that, and could have as many by asking from each as he should.)

use core::net::IpAddr;
use std::collections::BTreeMap;

/// One token, in the units in which they are counted: it takes a second to earn `per_second` of
/// them, a nanosecond to earn `per_second` billionths.
const TOKEN: u64 = 1_000_000_000;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is answered.
    Admitted,
    /// It is answered that it came too soon.
    Refused,
    /// It is not answered.
    Ignored,
}

/// The limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimiterConfig {
    /// Requests a second from one source, in the long run. At least one.
    pub per_second: u32,
    /// Requests at once from one source. At least one.
    pub burst: u32,
    /// How many sources are remembered. At least one.
    pub sources_max: usize,
}

impl Default for LimiterConfig {
    /// For daemons that poll every few seconds, some of them on one host.
    fn default() -> LimiterConfig {
        LimiterConfig { per_second: 100, burst: 200, sources_max: 1_024 }
    }
}

/// See the [module](self). Addresses count without the port, which costs nothing to change.
#[derive(Debug)]
pub struct Limiter {
    config: LimiterConfig,
    buckets: BTreeMap<IpAddr, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// In billionths of a token, as of `filled_ns`.
    content: u64,
    filled_ns: u64,
    told: bool,
}

impl Limiter {
    /// Nobody has asked yet. Limits of nothing count as one.
    pub fn new(config: LimiterConfig) -> Limiter {
        let config = LimiterConfig {
            per_second: config.per_second.max(1),
            burst: config.burst.max(1),
            sources_max: config.sources_max.max(1),
        };
        Limiter { config, buckets: BTreeMap::new() }
    }

    /// What becomes of a request from `source` that arrives at `now_ns`, by a clock that does not
    /// go back (if it does, nobody earns anything meanwhile).
    pub fn admit(&mut self, source: IpAddr, now_ns: u64) -> Admission {
        let LimiterConfig { per_second, burst, sources_max } = self.config;
        let full = u64::from(burst) * TOKEN;
        if !self.buckets.contains_key(&source) {
            let crowded = self.buckets.len() >= sources_max;
            if crowded {
                self.forget_the_fullest(now_ns);
            }
            let content = if crowded { TOKEN } else { full };
            self.buckets.insert(source, Bucket { content, filled_ns: now_ns, told: false });
        }
        let Some(bucket) = self.buckets.get_mut(&source) else { return Admission::Ignored };
        bucket.content = bucket.content_at(now_ns, per_second, full);
        bucket.filled_ns = bucket.filled_ns.max(now_ns);
        if bucket.content >= TOKEN {
            bucket.content -= TOKEN;
            bucket.told = false;
            return Admission::Admitted;
        }
        if bucket.told {
            return Admission::Ignored;
        }
        bucket.told = true;
        Admission::Refused
    }

    fn forget_the_fullest(&mut self, now_ns: u64) {
        let LimiterConfig { per_second, burst, .. } = self.config;
        let full = u64::from(burst) * TOKEN;
        // Of equally full ones, the one that has not been heard of for the longest time.
        let rank = |bucket: &Bucket| {
            let content = bucket.content_at(now_ns, per_second, full);
            (content, u64::MAX - bucket.filled_ns)
        };
        let fullest = self.buckets.iter().max_by_key(|(_, bucket)| rank(bucket));
        if let Some(source) = fullest.map(|(source, _)| *source) {
            self.buckets.remove(&source);
        }
    }
}

impl Bucket {
    fn content_at(&self, now_ns: u64, per_second: u32, full: u64) -> u64 {
        let earned = now_ns.saturating_sub(self.filled_ns).saturating_mul(u64::from(per_second));
        self.content.saturating_add(earned).min(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Admission::{Admitted, Ignored, Refused};

    const S: u64 = 1_000_000_000;

    fn limiter(per_second: u32, burst: u32, sources_max: usize) -> Limiter {
        Limiter::new(LimiterConfig { per_second, burst, sources_max })
    }

    fn source(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    fn admitted(limiter: &mut Limiter, source: IpAddr, at_ns: impl Iterator<Item = u64>) -> usize {
        at_ns.filter(|ns| limiter.admit(source, *ns) == Admitted).count()
    }

    #[test]
    fn a_burst_is_answered_then_told_then_ignored() {
        let mut limiter = limiter(10, 3, 8);
        let mut ask = |ns| limiter.admit(source(1), ns);
        assert_eq!([ask(S), ask(S), ask(S)], [Admitted; 3]);
        assert_eq!([ask(S), ask(S), ask(S + 99_999_999)], [Refused, Ignored, Ignored]);
        assert_eq!([ask(S + 100_000_000), ask(S + 100_000_001)], [Admitted, Refused]);
    }

    #[test]
    fn in_the_long_run_the_rate_counts_and_an_idle_source_saves_up_no_more_than_a_burst() {
        let mut limiter = limiter(10, 3, 8);
        let every_ms = (0..60_000).map(|ms| ms * 1_000_000);
        assert_eq!(admitted(&mut limiter, source(1), every_ms), 3 + 599);
        let later = (0..10).map(|_| 1_000_000 * S);
        assert_eq!(admitted(&mut limiter, source(1), later), 3);
    }

    #[test]
    fn sources_have_buckets_of_their_own() {
        let mut limiter = limiter(1, 2, 8);
        assert_eq!(admitted(&mut limiter, source(1), (0..100).map(|_| S)), 2);
        assert_eq!(admitted(&mut limiter, source(2), (0..100).map(|_| S)), 2);
    }

    #[test]
    fn a_clock_that_goes_back_earns_nothing() {
        let mut limiter = limiter(10, 1, 8);
        let mut ask = |ns| limiter.admit(source(1), ns);
        assert_eq!([ask(10 * S), ask(5 * S), ask(10 * S + 1)], [Admitted, Refused, Ignored]);
        assert_eq!(ask(10 * S + 100_000_000), Admitted);
    }

    #[test]
    fn a_full_table_forgets_whom_it_costs_nothing_to_forget() {
        let mut limiter = limiter(1, 2, 2);
        assert_eq!(admitted(&mut limiter, source(1), [S; 5].into_iter()), 2);
        assert_eq!(limiter.admit(source(2), S), Admitted);
        // Source 2 has a token left and goes; source 1 has none and stays.
        assert_eq!(limiter.admit(source(3), S), Admitted);
        assert_eq!(limiter.buckets.len(), 2);
        assert_eq!(limiter.admit(source(1), S), Ignored);
    }

    /// Somebody who has a thousand addresses, against one who asks as he should, and one who asks
    /// for more than he may get.
    #[test]
    fn a_full_table_keeps_nobody_out_and_nobody_gains_by_being_forgotten() {
        let mut limiter = limiter(10, 20, 64);
        let (good, greedy) = (source(1), source(2));
        let mut answered = [0; 3];
        for ms in 0..10_000u32 {
            let now_ns = S + u64::from(ms) * 1_000_000;
            let mut ask = |who: usize, source| {
                answered[who] += u32::from(limiter.admit(source, now_ns) == Admitted);
            };
            ask(0, source(1_000 + ms % 1_000));
            ask(1, greedy);
            if ms % 1_000 == 0 {
                ask(2, good);
            }
        }
        let [_, greedy, good] = answered;
        assert_eq!(good, 10, "who asks once a second is always answered");
        // Alone it gets 20 + 100. When the others come, it is forgotten only while nobody has
        // asked less lately, and gains no more than a part of one token by it.
        assert!(greedy <= 20 + 200, "{greedy}");
        assert_eq!(limiter.buckets.len(), 64);
        let now = [11 * S; 5].into_iter();
        assert_eq!(admitted(&mut limiter, source(9), now), 1, "no burst for who comes in");
    }

    #[test]
    fn limits_of_nothing_count_as_one() {
        let mut limiter = limiter(0, 0, 0);
        assert_eq!(limiter.admit(source(1), 0), Admitted);
        assert_eq!(limiter.admit(source(1), 0), Refused);
        assert_eq!(limiter.admit(source(2), 0), Admitted);
        assert_eq!(limiter.admit(source(1), S), Admitted);
    }
}
