//! Real server processes under faults: killed, stopped, cut off, with slow, failing and full disks and
//! wrong clocks, while two workloads are at work. Afterwards what clients saw is judged by `meridian
//! check`, and what the servers have on disk is compared. `docs/fault-matrix.md` has the table.
//!
//! - [`nodes`]: the processes of a cluster, their folders and ports. [`control`]: what they are asked.
//! - [`work`]: the workloads. [`figures`]: what their histories tell about the time after a fault.
//!   [`verdict`]: what must be true in the end.
//! - the other files: the faults, one file for each kind.
//!
//! `MERIDIAN_FAULT_SECONDS` says how long faults last that last (2), `MERIDIAN_FAULT_TABLE` names a file
//! to which each fault adds its row. One cluster runs at a time, whatever the number of test threads.
#![allow(missing_docs, reason = "nobody else names what is here")]

#[path = "../support/mod.rs"]
mod support;

mod control;
mod figures;
mod nodes;
mod verdict;
mod work;

mod clocks;
mod crashes;
mod disks;
mod import;
mod members;
mod namespaces;
mod network;
