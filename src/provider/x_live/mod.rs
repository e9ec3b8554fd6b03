//! stub
#![allow(missing_docs)]
use super::*;
pub const LATENESS_HORIZON: Duration = Duration::from_secs(60);
pub fn default_settings() -> Settings {
    unimplemented!()
}
pub fn decode(_text: &str) -> Decoded {
    unimplemented!()
}
#[derive(Debug)]
pub struct Client;
impl Client {
    pub fn new(_settings: Settings) -> Self {
        Self
    }
    pub fn on(&mut self, _now: Instant, _input: Input<'_>) {}
    pub fn next_action(&mut self) -> Option<Action> {
        None
    }
    pub fn deadline(&self) -> Option<Instant> {
        None
    }
    pub fn opening(&self) -> Opening {
        unimplemented!()
    }
}
#[derive(Debug)]
pub struct Server;
impl Server {
    pub fn new(_settings: ServerSettings) -> Self {
        Self
    }
    pub fn asked(&mut self, _peer: PeerId, _asked: &Asked<'_>, _now: Instant) -> Answer {
        unimplemented!()
    }
    pub fn greeting(&mut self, _peer: PeerId, _next: Option<&[u8]>) -> Vec<Bytes> {
        Vec::new()
    }
    pub fn wants(&mut self, _peer: PeerId, _envelope: &[u8]) -> bool {
        true
    }
    pub fn heard(&mut self, _peer: PeerId, _message: &[u8], _now: Instant) -> Vec<PeerAction> {
        Vec::new()
    }
    pub fn gone(&mut self, _peer: PeerId) {}
    pub fn keepalive(&self) -> Duration {
        Duration::from_secs(20)
    }
}
