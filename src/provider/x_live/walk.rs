//! The walk through history, not written yet.

use crate::model::{Decoded, Response};
use crate::provider::Settings;
use crate::provider::history::{Known, Next, Page, Price, Trouble, Wanted};

/// A walk.
#[derive(Debug)]
pub struct Walk {}

impl Walk {
    pub(crate) fn new(_settings: &Settings, _wanted: Wanted, _cursor: Option<&str>) -> Self {
        todo!()
    }

    pub(crate) fn price(&self) -> Price {
        todo!()
    }

    pub(crate) fn next(&mut self) -> Next {
        todo!()
    }

    pub(crate) fn answered(&mut self, _response: &Response, _known: &mut dyn Known) -> Result<Page, Trouble> {
        todo!()
    }

    pub(crate) fn cursor(&self) -> String {
        todo!()
    }
}

/// Reads a page.
pub fn decode_page(_body: &[u8]) -> Decoded {
    todo!()
}
