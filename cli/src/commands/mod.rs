//! One file per command.

pub mod admin;
pub mod bench;
pub mod check;
pub mod demo;
pub mod import;
pub mod lab;
pub mod server;
pub mod sim;
pub mod sql;
pub mod timemaster;
