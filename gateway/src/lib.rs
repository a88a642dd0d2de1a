//! # The front doors
//!
//! Here the sockets of people and programs will end: the PostgreSQL wire protocol first, then
//! Cloud Spanner's gRPC service, and a console over HTTP. A front door turns a foreign protocol
//! into sessions of `sql`, and errors into the codes its users know (SQLSTATE, gRPC status).
//!
//! ## What is absent
//! Everything: this crate is a chapter heading. The table of dependencies already holds its place.
