//! Which key encrypts a content: drawn and wrapped for a new one, found and unwrapped to read one.

use super::ContentStore;
use super::frames::{FRAME_BYTES, Frames, Opening, Sealer};
use crate::keys::{CustomerKey, DataKey, Keys};
use crate::meta::contents::{Location, Sealing};
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{ContentId, WrapKeyId};

/// What the bytes of a new content are protected by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seal {
    /// Nothing: they are stored as they come.
    Plain,
    /// A tenant's own key or one of its KMS. The content's space must be that key's.
    Key(WrapKeyId),
    /// A key that only the customer has. Such a content is never shared.
    Customer(CustomerKey),
}

impl ContentStore {
    /// Draws and wraps a data key for a new content; `None` when it is to be stored as it comes.
    pub(super) async fn begin_sealing(
        &self,
        seal: &Seal,
        content: ContentId,
    ) -> Result<Option<(Sealer, Sealing)>, Fault> {
        if *seal == Seal::Plain {
            return Ok(None);
        }
        let data_key = DataKey::draw()?;
        let (key, key_wrapped) = match seal {
            Seal::Plain => return Ok(None),
            Seal::Key(key) => {
                let wrapped = self.keys.wrap(*key, &data_key, content).await?;
                (Some(wrapped.version), wrapped.bytes)
            }
            Seal::Customer(key) => (None, key.wrap(&data_key, content)?),
        };
        let sealing = Sealing {
            frame_bytes: FRAME_BYTES,
            key_wrapped,
            key,
        };
        Ok(Some((Sealer::new(data_key.cipher()), sealing)))
    }
}

/// Bytes that `length` bytes take when they are stored.
pub(super) fn stored_length(seal: &Seal, length: u64) -> u64 {
    match (seal, Frames::new(FRAME_BYTES, length)) {
        (Seal::Key(_) | Seal::Customer(_), Some(frames)) => frames.stored_length(),
        _ => length,
    }
}

/// Most bytes whose stored form takes no more than `stored_max`.
pub(super) fn plain_capacity(seal: &Seal, stored_max: u64) -> u64 {
    match seal {
        Seal::Plain => stored_max,
        Seal::Key(_) | Seal::Customer(_) => Frames::capacity(FRAME_BYTES, stored_max),
    }
}

/// What opens a content; `None` when it is stored as it came. [`Kind::Corrupt`] when no key at hand does.
pub(super) async fn opening(
    keys: &Keys,
    customer: Option<&CustomerKey>,
    content: ContentId,
    location: &Location,
) -> Result<Option<Opening>, Fault> {
    let Some(sealing) = &location.sealing else {
        return Ok(None);
    };
    let corrupt = |what: &'static str| {
        Fault::new(Kind::Corrupt, "open content")
            .context(format_args!("content {content}"))
            .context(what)
    };
    let frames = Frames::new(sealing.frame_bytes, location.length);
    let frames = frames.ok_or_else(|| corrupt("frames of no bytes"))?;
    let data_key = match sealing.key {
        Some(version) => keys.unwrap(version, &sealing.key_wrapped, content).await?,
        None => customer
            .ok_or_else(|| corrupt("its customer's key is missing"))?
            .unwrap(&sealing.key_wrapped, content)
            .ok_or_else(|| corrupt("another customer's key, or a damaged row"))?,
    };
    Ok(Some(Opening::new(data_key.cipher(), frames)))
}
