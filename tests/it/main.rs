//! The one integration binary: a module per theme.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests may stop where they stand and look at the clock")]

mod rooms;
