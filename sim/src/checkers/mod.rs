//! One file per promise; each is tested on a made-up violation.
//!
//! | checker | promise | when |
//! |---|---|---|
//! | [`truetime_contains`] | T1: every interval contains absolute time | every reading |
//! | [`visibility`] | X8: nothing is readable anywhere before `after(s)` | every apply |
//! | [`lease_disjoint`] | L3 to L6: leases and timestamps of a group's leaders do not overlap; answers leave within the lease | every step, every answer |
//! | [`agreement`] | P2, P7: equal slot, equal bytes, equal tablets; nothing chosen changes | every step; tablets now and then |
//! | [`durability`] | P1, P3, P6: what was said, applied or acknowledged is never missing again | every message, step, election, restart |
//! | [`locks`] | X1, X2, X10: nobody holds what another one has; who is prepared holds what it writes | every step; none left at the end |
//! | [`atomicity`] | X6, X9: all groups decide alike, nothing runs twice | at the end |
//! | [`receipt`] | X7, X8: a receipt's timestamps and intervals fit together | every answer |
//! | [`external_consistency`] | acknowledged before started ⇒ s1 < s2 | at the end |
//! | [`snapshot`] | R1, R6, X1, P1: every read equals the model at its timestamp | at the end |
//! | [`history`](mod@crate::history) | X1, X7, X8, R3, R4, R6: strict serializability in the order of timestamps and in real time; names the anomaly | at the end |
//! | [`conservation`] | the bank's total never changes | at the end |
//! | `lists`, `long_fork`, `causal_reverse`, `write_skew`, `counter` | what a workload is after, by itself: see [`workloads`](crate::workloads) | at the end |
//! | [`progress`] | P8, X10: service returns within a bound after healing | at the end |

pub mod agreement;
pub mod atomicity;
pub mod conservation;
pub mod durability;
pub mod external_consistency;
pub mod lease_disjoint;
pub mod locks;
pub mod progress;
pub mod receipt;
pub mod snapshot;
pub mod truetime_contains;
pub mod visibility;
