//! The fake TwitterAPI.io beside the live connection: history and management.

use std::time::Instant;

use crate::model::Response;
use crate::provider::past::Past;
use crate::provider::{Asked, RestSettings};

/// History and management.
#[derive(Debug)]
pub struct Rest {
    settings: RestSettings,
}

impl Rest {
    /// Before anybody asked for anything.
    pub fn new(settings: RestSettings) -> Self {
        Self { settings }
    }

    /// Answers a request.
    pub fn asked(&mut self, _asked: &Asked<'_>, _past: &mut Past<'_>, _now: Instant) -> Response {
        tracing::debug!(settings = ?self.settings, "not served");
        Response::json(404, r#"{"detail":"Not Found"}"#)
    }
}
