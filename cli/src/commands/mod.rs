//! One file per command.

pub mod admin;
pub mod bench;
pub mod import;
pub mod sim;
pub mod sql;
