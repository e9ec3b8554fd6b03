//! birdtape keeps a *tape* of real-time tweet streams that can be trusted.
//!
//! (The map of the code follows with the rooms.)

pub mod archive;
pub mod cli;
pub mod config;
pub mod model;
pub mod net;
pub mod provider;
