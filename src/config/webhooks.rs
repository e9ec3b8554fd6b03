//! `[webhooks]`, and what sources say of theirs.

use std::net::SocketAddr;

use super::{Config, ConfigError, Env, Source, Table, TypedSource, TypedWebhooks, read_key_file, variable_of};
use crate::model::{Provider, Secret};
use crate::provider::webhook::Webhook;

/// Where ScrapeBadger's secret is looked for.
const SECRET_VARIABLE: &str = "SCRAPEBADGER_WEBHOOK_SECRET";

/// Whether a source takes what is delivered by webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookSecret {
    /// Its provider has none, or they are switched off.
    None,
    /// What would tell the provider's deliveries from others' is not in this variable.
    Missing(String),
    /// What tells them.
    Known(Secret),
}

impl Config {
    /// Receives webhooks at an address that was typed as a flag; the file's permission to be reached from elsewhere holds.
    ///
    /// # Errors
    /// An address beyond this machine without that permission, or no source that has webhooks.
    pub fn receive_webhooks_at(&mut self, address: SocketAddr) -> Result<(), ConfigError> {
        let table = Table { page: None, origin: "--webhooks", path: Vec::new() };
        self.webhooks = Some(checked(&table, address, self.plain_webhooks)?);
        if self.takes_webhooks() { Ok(()) } else { Err(ConfigError::NoWebhooks) }
    }

    /// Refuses to receive webhooks that could not be told from others'. What the file says of them is for its sources that have
    /// webhooks: where none of those is to be recorded, none are received.
    ///
    /// # Errors
    /// A secret that is missing.
    pub fn settle_webhooks(&mut self) -> Result<(), ConfigError> {
        if self.webhooks.is_none() {
            return Ok(());
        }
        for Source { name, webhook, .. } in &self.sources {
            if let WebhookSecret::Missing(variable) = webhook {
                return Err(ConfigError::NoWebhookSecret { name: name.clone(), variable: variable.clone() });
            }
        }
        if !self.takes_webhooks() {
            self.webhooks = None;
        }
        Ok(())
    }

    fn takes_webhooks(&self) -> bool {
        self.sources.iter().any(|source| source.webhook != WebhookSecret::None)
    }
}

pub(super) fn listen(table: &Table<'_>, typed: &TypedWebhooks) -> Result<Option<SocketAddr>, ConfigError> {
    let Some(text) = &typed.listen else { return Ok(None) };
    let address = text.parse().map_err(|_| table.bad("listen", r#"is no address with a port, such as "127.0.0.1:8090""#))?;
    checked(table, address, typed.allow_plain.unwrap_or(false)).map(Some)
}

fn checked(table: &Table<'_>, address: SocketAddr, allow_plain: bool) -> Result<SocketAddr, ConfigError> {
    if address.ip().to_canonical().is_loopback() || allow_plain {
        return Ok(address);
    }
    Err(table.bad_with_cure(
        "listen",
        format!("is {address}, which others can reach, and keys would travel readable"),
        "receive on 127.0.0.1 behind a proxy that speaks TLS; for one in another container, say `allow_plain = true` in [webhooks]",
    ))
}

pub(super) fn secret(
    table: &Table<'_>,
    typed: &TypedSource,
    (provider, key): (Provider, Option<&Secret>),
    env: Env<'_>,
) -> Result<WebhookSecret, ConfigError> {
    let wanted = typed.webhook == Some(true);
    let says = typed.webhook_secret_env.is_some() || typed.webhook_secret_file.is_some();
    if !Webhook::is_of(provider) && (wanted || says) {
        let key = if wanted { "webhook" } else { "webhook_secret_env" };
        return Err(table.bad(key, format!("is not for {provider}, which has no webhooks")));
    }
    if provider == Provider::TwitterapiIo && says {
        return Err(table.bad("webhook_secret_env", format!("is not for {provider}, whose webhooks carry the API key")));
    }
    if !Webhook::is_of(provider) || typed.webhook == Some(false) {
        return Ok(WebhookSecret::None);
    }
    if provider == Provider::TwitterapiIo {
        return Ok(key.map_or(WebhookSecret::None, |key| WebhookSecret::Known(key.clone())));
    }
    if typed.webhook_secret_env.is_some() && typed.webhook_secret_file.is_some() {
        return Err(table.bad("webhook_secret_file", "stands beside `webhook_secret_env`; give one of them"));
    }
    let name = variable_of(table, "webhook_secret_env", typed.webhook_secret_env.as_deref())?.unwrap_or(SECRET_VARIABLE);
    let found = match &typed.webhook_secret_file {
        Some(file) => Secret::new(read_key_file(table, "webhook_secret_file", file)?),
        None => env(name).and_then(Secret::new),
    };
    match found {
        Some(secret) => Ok(WebhookSecret::Known(secret)),
        None if typed.webhook_secret_file.is_some() => Err(table.bad("webhook_secret_file", "names a file that is empty")),
        None => Ok(WebhookSecret::Missing(name.to_owned())),
    }
}
