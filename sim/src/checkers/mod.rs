//! One file per promise; each is tested on a made-up violation.
//!
//! | checker | promise | when |
//! |---|---|---|
//! | [`truetime_contains`] | T1: every interval contains absolute time | every reading |
//! | [`visibility`] | X8: nothing is readable anywhere before `after(s)` | every apply |
//! | [`lease_disjoint`] | L3: leases of a group's leaders do not overlap | every step |
//! | [`agreement`] | P2: equal slot, equal bytes; nothing chosen changes | every step |
//! | [`receipt`] | X7, X8: a receipt's timestamps and intervals fit together | every answer |
//! | [`external_consistency`] | acknowledged before started ⇒ s1 < s2 | at the end |
//! | [`snapshot`] | R1, R6, X1, P1: every read equals the model at its timestamp | at the end |
//! | [`conservation`] | the bank's total never changes | at the end |
//!
//! `progress` (service returns after healing) is judged by the world itself.

pub mod agreement;
pub mod conservation;
pub mod external_consistency;
pub mod lease_disjoint;
pub mod receipt;
pub mod snapshot;
pub mod truetime_contains;
pub mod visibility;
