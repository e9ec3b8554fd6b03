//! The birdtape program.
fn main() {}
