//! A new blob while it is written to every backend of its placement at once.
//!
//! All copies get the same bytes in one pass, each batch before the next one is taken: the slowest of them sets the
//! pace of its own request. One that fails is dropped while enough others are left, and noted as missing beside
//! them; a backend that failed a moment ago is not even tried then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use futures::future::join_all;
use tokio::runtime::Handle;

use super::ContentStore;
use super::health::Health;
use crate::blob::{BlobName, BlobStore, Writer};
use crate::meta::contents::{CopyRow, NewBlob, Owner};
use crate::meta::placements;
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{BlobId, SpaceId};

/// A blob being written.
pub(super) struct Mirrored {
    id: BlobId,
    copies: Vec<Copy>,
    /// Fewer copies are a fault.
    required: usize,
    /// Backends that will have no copy yet.
    missing: Vec<i64>,
    /// The longest blob that every backend of the placement takes, those included that have no copy yet.
    size_max: u64,
    health: Arc<Health>,
    blobs: BlobStore,
}

struct Copy {
    backend: i64,
    backend_name: String,
    name: BlobName,
    writer: Writer,
}

impl ContentStore {
    /// Begins a blob where the placement of `space` says, of `size` bytes where that is known.
    pub(super) async fn new_blob(
        &self,
        space: SpaceId,
        size: Option<u64>,
    ) -> Result<Mirrored, Fault> {
        let placement = self
            .meta
            .read("find placement", move |session| {
                Box::pin(placements::of_space(session, space))
            })
            .await?;
        if placement.backends.is_empty() {
            return Err(
                Fault::new(Kind::Corrupt, "find placement").context(format_args!("space {space}"))
            );
        }
        let required = placement.copies_required;
        let size_max = self.longest_at(&placement.backends).await;
        let (avoided, healthy): (Vec<i64>, Vec<i64>) = placement
            .backends
            .iter()
            .partition(|backend| self.health.is_avoided(**backend));
        let (missing, chosen) = if healthy.len() >= required {
            (avoided, healthy)
        } else {
            (Vec::new(), placement.backends)
        };
        let mut new = Mirrored {
            id: BlobId(self.uids.next()?),
            copies: Vec::with_capacity(chosen.len()),
            required,
            missing,
            size_max,
            health: Arc::clone(&self.health),
            blobs: self.blobs.clone(),
        };
        let mut refused = None;
        for backend in chosen {
            match self.begin_copy(new.id, backend, size).await {
                Ok(copy) => new.copies.push(copy),
                Err(fault) => new.give_up(backend, &mut refused, fault),
            }
        }
        new.enough(refused)?;
        Ok(new)
    }

    /// Most bytes of a blob where the placement of `space` says.
    pub(super) async fn blob_max(&self, space: SpaceId) -> Result<u64, Fault> {
        let placement = self
            .meta
            .read("find placement", move |session| {
                Box::pin(placements::of_space(session, space))
            })
            .await?;
        Ok(self.longest_at(&placement.backends).await)
    }

    async fn longest_at(&self, backends: &[i64]) -> u64 {
        let mut longest = u64::MAX;
        for backend in backends {
            // One that is not configured here cannot be asked.
            if let Ok(row) = self.backend(*backend).await
                && let Ok(most) = self.blobs.blob_max_bytes(&row.name)
            {
                longest = longest.min(most);
            }
        }
        longest
    }

    async fn begin_copy(&self, id: BlobId, backend: i64, size: Option<u64>) -> Result<Copy, Fault> {
        let backend_name = self.backend(backend).await?.name.clone();
        let name = BlobName::new(id.0);
        let mut writer = self.blobs.create(&backend_name, &name)?;
        if let Some(size) = size {
            writer = writer.expect_size(size);
        }
        Ok(Copy {
            backend,
            backend_name,
            name,
            writer,
        })
    }
}

impl Mirrored {
    /// The longest blob that every backend of the placement takes.
    pub(super) fn size_max(&self) -> u64 {
        self.size_max
    }

    /// Says how long the blob will be, so that a short one reserves no more memory than it needs.
    pub(super) fn expect_size(&mut self, size: u64) {
        let copies = std::mem::take(&mut self.copies);
        self.copies = copies
            .into_iter()
            .map(|copy| Copy {
                writer: copy.writer.expect_size(size),
                ..copy
            })
            .collect();
    }

    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), Fault> {
        if let [only] = &mut self.copies[..] {
            let written = only.writer.write(bytes).await;
            self.health
                .note(only.backend, written.as_ref().err().map(Fault::kind));
            return written;
        }
        let writes = self
            .copies
            .iter_mut()
            .map(|it| it.writer.write(bytes.clone()));
        let outcomes = join_all(writes).await;
        let mut refused = None;
        let copies = std::mem::take(&mut self.copies);
        for (copy, outcome) in copies.into_iter().zip(outcomes) {
            match outcome {
                Ok(()) => self.copies.push(copy),
                // Dropped, the writer takes along what it has written.
                Err(fault) => self.give_up(copy.backend, &mut refused, fault),
            }
        }
        self.enough(refused)
    }

    /// Removes what has been written, as well as that can be done.
    pub(super) async fn abort(self) {
        join_all(self.copies.into_iter().map(|copy| copy.writer.abort())).await;
    }

    /// Completes the blob, which must be of `expected` bytes.
    pub(super) async fn finish(mut self, expected: u64) -> Result<StoredBlob, Fault> {
        let copies = std::mem::take(&mut self.copies);
        let finishes = copies.into_iter().map(async |copy| {
            let Copy {
                backend,
                backend_name,
                name,
                writer,
            } = copy;
            (backend, backend_name, name, writer.finish().await)
        });
        let outcomes = join_all(finishes).await;
        let mut stored = StoredBlob {
            blob: NewBlob {
                id: self.id,
                size: expected,
                copies: Vec::new(),
                missing: Vec::new(),
                owner: Owner::Ours,
            },
            blobs: self.blobs.clone(),
            copies: Vec::new(),
            wrong: Vec::new(),
            state: AtomicU8::new(FRESH),
            runtime: Handle::try_current().ok(),
        };
        let mut refused = None;
        for (backend, backend_name, name, outcome) in outcomes {
            let outcome = outcome.and_then(|size| match size == expected {
                true => Ok(()),
                false => {
                    // Its bytes are there and nobody may name them.
                    stored.wrong.push((backend_name.clone(), name));
                    Err(Fault::new(Kind::Corrupt, "write blob")
                        .context(format_args!("{expected} bytes sent, {size} stored")))
                }
            });
            match outcome {
                Ok(()) => {
                    self.health.note(backend, None);
                    stored.blob.copies.push(CopyRow {
                        backend,
                        name: name.as_str().to_owned(),
                    });
                    stored.copies.push((backend_name, name));
                }
                Err(fault) => self.give_up(backend, &mut refused, fault),
            }
        }
        if stored.copies.len() < self.required {
            return Err(too_few(refused));
        }
        stored.drop_wrong();
        // A name that was tried may have bytes still: the copy to come gets one of its own.
        let missing = self.missing.iter();
        stored.blob.missing = missing.map(|it| copy_to_come(self.id, *it)).collect();
        Ok(stored)
    }

    fn give_up(&mut self, backend: i64, refused: &mut Option<Fault>, fault: Fault) {
        tracing::warn!(%fault, "copy of a new blob not written");
        self.health.note(backend, Some(fault.kind()));
        self.missing.push(backend);
        *refused = Some(fault);
    }

    fn enough(&self, refused: Option<Fault>) -> Result<(), Fault> {
        if self.copies.len() < self.required {
            return Err(too_few(refused));
        }
        Ok(())
    }
}

/// A copy that is to be written later.
pub(super) fn copy_to_come(blob: BlobId, backend: i64) -> CopyRow {
    CopyRow {
        backend,
        name: BlobName::new(blob.0).as_str().to_owned(),
    }
}

fn too_few(refused: Option<Fault>) -> Fault {
    refused.unwrap_or_else(|| {
        Fault::new(Kind::Unavailable, "write blob").context("too few backends are left")
    })
}

/// Nobody has tried to name it: dropping it deletes the bytes.
const FRESH: u8 = 0;
/// A transaction may name it at any moment: dropping it leaves the bytes.
const COMMITTING: u8 = 1;
/// The transaction ended without naming it.
const DISCARDED: u8 = 2;

/// A finished blob that no row is known to name.
pub(super) struct StoredBlob {
    blob: NewBlob,
    blobs: BlobStore,
    copies: Vec<(String, BlobName)>,
    /// Finished, but not as they should be.
    wrong: Vec<(String, BlobName)>,
    state: AtomicU8,
    /// Where it was made: a transaction may drop it on the database's own thread, which has none.
    runtime: Option<Handle>,
}

impl StoredBlob {
    /// One whose bytes another system wrote: dropping it leaves them.
    pub(super) fn adopted(blob: NewBlob, blobs: BlobStore) -> Self {
        Self {
            blob,
            blobs,
            copies: Vec::new(),
            wrong: Vec::new(),
            state: AtomicU8::new(FRESH),
            runtime: Handle::try_current().ok(),
        }
    }

    pub(super) fn blob(&self) -> &NewBlob {
        &self.blob
    }

    /// From here on the bytes stay unless they are discarded.
    pub(super) fn begin_commit(&self) {
        self.state.store(COMMITTING, Ordering::SeqCst);
    }

    pub(super) fn discard(&self) {
        self.state.store(DISCARDED, Ordering::SeqCst);
    }

    fn drop_wrong(&mut self) {
        let wrong = std::mem::take(&mut self.wrong);
        delete_later(self.runtime.as_ref(), self.blobs.clone(), wrong);
    }
}

impl Drop for StoredBlob {
    fn drop(&mut self) {
        self.drop_wrong();
        if self.state.load(Ordering::SeqCst) != COMMITTING {
            let copies = std::mem::take(&mut self.copies);
            delete_later(self.runtime.as_ref(), self.blobs.clone(), copies);
        }
    }
}

/// Deletes copies in the background. What is left is found by the sweep.
fn delete_later(runtime: Option<&Handle>, blobs: BlobStore, copies: Vec<(String, BlobName)>) {
    let Some(runtime) = runtime.filter(|_| !copies.is_empty()) else {
        return;
    };
    runtime.spawn(async move {
        for (backend, name) in copies {
            if let Err(fault) = blobs.delete(&backend, &name).await {
                tracing::debug!(%fault, "drop unused blob");
            }
        }
    });
}
