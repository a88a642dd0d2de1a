//! # A node of a cluster

pub mod http;
pub mod metrics;
