//! The client half against groups that keep the protocol and nothing else ([`groups`]), in a world
//! where time is counted and messages are lost, repeated and late as a seed says ([`world`]).

mod bounds;
mod cancelled;
mod exactly_once;
mod groups;
mod ledger;
mod overlay;
mod together;
mod world;
