//! One sealed value: what every key here wraps, whatever it is.
//!
//! ```text
//!   1 byte    version, 1
//!   12 bytes  nonce, random for every sealing
//!   n bytes   AES-256-GCM of the value, with what it is bound to as associated data
//!   16 bytes  tag
//! ```

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use zeroize::Zeroizing;

use crate::model::fault::{Fault, Kind};

/// Bytes of every key.
pub const KEY_BYTES: usize = 32;

const VERSION: u8 = 1;
const NONCE_BYTES: usize = 12;

/// Seals `value`; it opens only with the same `bound`.
pub(super) fn seal(cipher: &Aes256Gcm, bound: &[u8], value: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut nonce = [0; NONCE_BYTES];
    fill(&mut nonce)?;
    let payload = Payload {
        msg: value,
        aad: bound,
    };
    let sealed = cipher
        .encrypt(&Nonce::from(nonce), payload)
        .map_err(|_| Fault::new(Kind::Internal, "seal"))?;
    Ok([&[VERSION][..], &nonce, &sealed].concat())
}

/// Opens what [`seal`] made; `None` when it was sealed by another key or for something else, or was changed.
pub(super) fn open(cipher: &Aes256Gcm, bound: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (version, rest) = sealed.split_first()?;
    if *version != VERSION {
        return None;
    }
    let (nonce, text) = rest.split_first_chunk::<NONCE_BYTES>()?;
    let payload = Payload {
        msg: text,
        aad: bound,
    };
    cipher
        .decrypt(&Nonce::from(*nonce), payload)
        .ok()
        .map(Zeroizing::new)
}

/// Random bytes from the operating system.
pub fn fill(bytes: &mut [u8]) -> Result<(), Fault> {
    getrandom::fill(bytes).map_err(|error| {
        Fault::new(Kind::Unavailable, "draw random bytes").source(error.to_string())
    })
}
