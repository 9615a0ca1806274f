//! `encryption` and `kms`: the wrapping keys of an install.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::text::date;
use super::{Failure, Printer, encode};
use crate::app::{self, KeyCommand, KeyReport, KeyStatus, KmsName, NewKmsKey, Operator};
use crate::model::progress::untold;

#[derive(Debug, Subcommand)]
pub(super) enum EncryptionCommand {
    /// Make new versions of the tenants' own keys and wrap every data key anew; no object is rewritten
    Rotate {
        /// Only of this tenant
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Show every key, and how many contents it and its older versions wrap
    Status,
}

#[derive(Debug, Subcommand)]
pub(super) enum KmsCommand {
    /// Make a KMS key
    Create {
        /// The key id that clients name; without it one is drawn
        key_id: Option<String>,
        /// Whose it is
        #[arg(long, default_value = app::DEFAULT_TENANT)]
        tenant: String,
        /// Another name for it, which clients write as alias/NAME
        #[arg(long, value_name = "NAME")]
        alias: Option<String>,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
    },
    /// List all KMS keys
    List,
    /// Allow the use of a disabled key
    Enable(Named),
    /// Forbid the use of a key: its objects can be neither written nor read
    Disable(Named),
    /// Make a new version of a key and wrap every data key anew
    Rotate(Named),
}

#[derive(Debug, Args)]
pub(super) struct Named {
    /// The key id, or alias/NAME
    key: String,
    /// Whose it is
    #[arg(long, default_value = app::DEFAULT_TENANT)]
    tenant: String,
}

impl From<Named> for KmsName {
    fn from(named: Named) -> Self {
        Self {
            tenant: named.tenant,
            key: named.key,
        }
    }
}

pub(super) async fn encryption(
    operator: &Operator,
    printer: &Printer,
    command: EncryptionCommand,
) -> Result<(), Failure> {
    match command {
        EncryptionCommand::Status => {
            let report = operator.keyring(KeyCommand::Status, &untold).await?;
            printer.table(report.keys.iter().map(row))
        }
        EncryptionCommand::Rotate { tenant } => {
            let report = rotate(operator, printer, KeyCommand::Rotate { tenant }).await?;
            rotated(printer, &report)
        }
    }
}

pub(super) async fn kms(
    operator: &Operator,
    printer: &Printer,
    command: KmsCommand,
) -> Result<(), Failure> {
    let (command, what) = match command {
        KmsCommand::List => {
            let report = operator.keyring(KeyCommand::Status, &untold).await?;
            let is_kms = |key: &&KeyStatus| key.key_id.is_some();
            return printer.table(report.keys.iter().filter(is_kms).map(row));
        }
        KmsCommand::Rotate(named) => {
            let command = KeyCommand::RotateKms(named.into());
            let report = rotate(operator, printer, command).await?;
            return rotated(printer, &report);
        }
        KmsCommand::Create {
            key_id,
            tenant,
            alias,
            description,
        } => {
            let new = NewKmsKey {
                tenant,
                key_id,
                alias,
                description,
            };
            (KeyCommand::CreateKms(new), "made")
        }
        KmsCommand::Enable(named) => (KeyCommand::EnableKms(named.into()), "enabled"),
        KmsCommand::Disable(named) => (KeyCommand::DisableKms(named.into()), "disabled"),
    };
    let report = operator.keyring(command, &untold).await?;
    let key = report.keys.first();
    let name = key
        .and_then(|key| key.key_id.as_deref())
        .unwrap_or_default();
    let tenant = key.map_or("", |key| key.tenant.as_str());
    printer.done(
        &encode(&key)?,
        &format!("KMS key {name} of tenant {tenant} {what}"),
    )
}

async fn rotate(
    operator: &Operator,
    printer: &Printer,
    command: KeyCommand,
) -> Result<KeyReport, Failure> {
    let watch = printer.watch("wrapping data keys");
    Ok(operator.keyring(command, &|now| watch.tell(now)).await?)
}

fn rotated(printer: &Printer, report: &KeyReport) -> Result<(), Failure> {
    let text = format!(
        "keys       {} rotated\n\
         data keys  {} wrapped anew, {} failed",
        report.rotated, report.rewrap.rewrapped, report.rewrap.failed
    );
    printer.done(&encode(report)?, &text)
}

fn row(key: &KeyStatus) -> Vec<(&'static str, Value)> {
    let state = if key.enabled { "enabled" } else { "disabled" };
    vec![
        ("tenant", json!(key.tenant)),
        ("key_id", json!(key.key_id)),
        ("alias", json!(key.alias)),
        ("state", json!(state)),
        ("version", json!(key.version)),
        ("contents", json!(key.contents)),
        ("outdated", json!(key.outdated)),
        ("created", json!(date(key.created))),
        ("description", json!(key.description)),
    ]
}
