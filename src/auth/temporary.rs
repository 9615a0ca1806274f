//! Temporary keys: made with another key, for a while, with no more rights than that one has.
//!
//! A temporary key is a row like any other, with its parent, its end and the session's policy. It is valid only
//! together with its token, which is derived from its secret and so needs no place of its own; it ends with its
//! parent; and it never gains possession.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::{Authority, Identity, Malformed, Pair, Place, Policy, Secret};
use crate::meta::identities::{self, NewTemporaryKey};
use crate::model::clock::{Millis, millis};
use crate::model::fault::Fault;
use crate::model::ids::SenderId;

/// Most bytes of a session's policy ("AssumeRole").
pub const SESSION_POLICY_MAX_BYTES: usize = 2048;
/// Most temporary keys of one tenant that have not expired: they are rows, and any key can make them.
const LIVE_MAX: u64 = 10_000;
/// How long an expired key is remembered, so that its use is answered as expired and not as unknown.
const EXPIRED_KEPT: Duration = Duration::from_secs(24 * 3600);
/// Rows taken away in one transaction.
const PURGE_BATCH: usize = 500;
/// How the generated access keys begin.
const PREFIX: &str = "OSTS";

/// A session to be begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRequest {
    /// What narrows it; `None` leaves it the rights of its parent.
    pub policy: Option<String>,
    /// The role that is assumed and the session's name, where one is.
    pub role: Option<(String, String)>,
    /// How long it lasts.
    pub lasts: Duration,
}

/// A session that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    /// Its key.
    pub pair: Pair,
    /// What must accompany every use of the key.
    pub token: String,
    /// When it ends.
    pub expires_at: Millis,
}

/// Why no session was begun.
#[derive(Debug, thiserror::Error)]
pub enum NoSession {
    /// A temporary key cannot make another.
    #[error("a temporary key cannot begin a session")]
    Temporary,
    /// The session's policy is none.
    #[error(transparent)]
    Policy(#[from] Malformed),
    /// The tenant has too many temporary keys already.
    #[error("the tenant has {LIVE_MAX} temporary keys")]
    TooMany,
    /// A store failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// What became of the token that came with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenCheck {
    /// It is the key's, or the key needs none and none came.
    Right,
    /// The key needs one and none came.
    Missing,
    /// It is not the key's.
    Wrong,
}

impl Identity {
    /// Compares the token that came with a request, in a time that tells nothing of it.
    pub fn check_token(&self, given: Option<&[u8]>) -> TokenCheck {
        match (&self.temporary, given) {
            (None, None) => TokenCheck::Right,
            (None, Some(_)) => TokenCheck::Wrong,
            (Some(_), None) => TokenCheck::Missing,
            (Some(_), Some(given)) => {
                let end = self.expires_at.unwrap_or_default();
                let wanted = token(&self.secret, &self.access_key, end);
                match wanted.as_bytes().ct_eq(given).into() {
                    true => TokenCheck::Right,
                    false => TokenCheck::Wrong,
                }
            }
        }
    }
}

/// A temporary key's token: a keyed digest of what the key is, under its secret.
fn token(secret: &Secret, access_key: &str, expires_at: Millis) -> String {
    // A key of any length is one for HMAC.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.reveal().as_bytes()) else {
        return String::new();
    };
    mac.update(b"osproxy session token 1\0");
    mac.update(access_key.as_bytes());
    mac.update(&expires_at.to_be_bytes());
    BASE64.encode(mac.finalize().into_bytes())
}

impl Authority {
    /// Makes a temporary key with `parent`'s.
    pub async fn begin_session(
        &self,
        parent: &Identity,
        wanted: SessionRequest,
    ) -> Result<NewSession, NoSession> {
        if parent.is_temporary() {
            return Err(NoSession::Temporary);
        }
        if let Some(policy) = &wanted.policy {
            Policy::parse(policy, Place::Key)?;
        }
        let pair = Pair::generate_as(PREFIX)?;
        let (id, now) = (SenderId(self.uids.next()?), self.clock.now());
        let lasts = millis(wanted.lasts);
        let new = Arc::new(NewTemporaryKey {
            id,
            access_key: pair.access_key.clone(),
            secret_sealed: self.master_key.seal(id, &pair.secret_key)?,
            tenant: parent.tenant.id,
            parent: parent.sender,
            policy: wanted.policy,
            role: wanted.role,
            expires_at: now.saturating_add(lasts),
            created: now,
        });
        let expires_at = new.expires_at;
        self.meta
            .transact("begin session", move |session| {
                let new = Arc::clone(&new);
                Box::pin(async move {
                    let live = identities::count_temporary_keys(session, new.tenant, now).await?;
                    if live >= LIVE_MAX {
                        return Err(NoSession::TooMany);
                    }
                    Ok(identities::insert_temporary_key(session, &new).await?)
                })
            })
            .await?;
        Ok(NewSession {
            token: token(&pair.secret_key, &pair.access_key, expires_at),
            pair,
            expires_at,
        })
    }

    /// Takes away the rows of temporary keys that expired some time ago, and says how many.
    pub async fn purge_expired(&self) -> Result<usize, Fault> {
        let kept = millis(EXPIRED_KEPT);
        let before = self.clock.now().saturating_sub(kept);
        let mut purged = 0;
        loop {
            let gone = self
                .meta
                .transact("purge keys", move |session| {
                    Box::pin(async move {
                        let ids = identities::expired_keys(session, before, PURGE_BATCH).await?;
                        for id in &ids {
                            identities::remove_key(session, *id).await?;
                        }
                        Ok::<_, Fault>(ids.len())
                    })
                })
                .await?;
            purged += gone;
            if gone < PURGE_BATCH {
                return Ok(purged);
            }
        }
    }
}
