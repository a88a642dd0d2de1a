//! # End-to-end tests
//!
//! What a person would do, done by a test: the real binary, real folders, real kills. Nothing here
//! is linked with the database; it is run. Only the words in which servers are asked are its own.
//!
//! - `tests/tidy.rs`: the rules of the repository itself (who may depend on whom, what cores may
//!   name, documents that exist), held by reading the sources.
//! - `tests/cluster/`: real server processes under faults.
//! - the other files of `tests/`: the command line against folders on disk.
