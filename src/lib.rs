//! birdtape keeps a *tape* of real-time tweet streams that can be trusted.
//!
//! (The map of the code follows with the rooms.)

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make their own instants"))]

pub mod archive;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod import;
pub mod model;
#[allow(clippy::disallowed_methods, reason = "the one room that reads the clock")]
pub mod net;
pub mod provider;
pub mod record;
pub mod replay;
pub mod segment;
