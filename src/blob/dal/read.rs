//! Reading ranges of blobs at a service, and listing its blobs.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use opendal::{FuturesBytesStream, Lister};

use super::{Store, opendal_error};
use crate::blob::{BlobName, CopyName, MARKER};
use crate::model::fault::{Fault, Kind};

/// Names taken from a listing in one turn.
const LIST_BATCH: usize = 1000;

/// A range of a blob while it is read.
pub(in crate::blob) struct Reader {
    store: Arc<Store>,
    name: CopyName,
    remaining: u64,
    first: Option<Bytes>,
    /// `None` after the end or a fault.
    stream: Option<FuturesBytesStream>,
}

impl Reader {
    /// Fetches the first bytes too, so that a missing blob is known before anything is answered.
    pub(super) async fn open(
        store: Arc<Store>,
        name: CopyName,
        range: Range<u64>,
    ) -> Result<Self, Fault> {
        let remaining = range.end - range.start;
        let act = async {
            let source = store.operator.reader(&name.path()).await?;
            let mut stream = source.into_bytes_stream(range).await?;
            let first = stream.try_next().await.map_err(opendal_error)?;
            Ok((stream, first))
        };
        let (stream, first) = store.turn("open blob", &name, act).await?;
        Ok(Self {
            store,
            name,
            remaining,
            first: Some(first.unwrap_or_default()),
            stream: Some(stream),
        })
    }

    pub(in crate::blob) async fn next(&mut self) -> Option<Result<Bytes, Fault>> {
        if self.remaining == 0 {
            self.stream = None;
        }
        let stream = self.stream.as_mut()?;
        let next = match self.first.take() {
            Some(first) => Ok(first),
            None => {
                let act = async { stream.try_next().await.map_err(opendal_error) };
                self.store
                    .turn("read blob", &self.name, act)
                    .await
                    .map(Option::unwrap_or_default)
            }
        };
        let next = next.and_then(|bytes| self.count(bytes));
        if next.is_err() {
            self.stream = None;
        }
        Some(next)
    }

    /// Empty means that the stream has ended, which it may only after the whole range.
    fn count(&mut self, bytes: Bytes) -> Result<Bytes, Fault> {
        match self.remaining.checked_sub(bytes.len() as u64) {
            Some(remaining) if !bytes.is_empty() => {
                self.remaining = remaining;
                Ok(bytes)
            }
            _ => Err(self
                .store
                .watch
                .fault(Kind::Corrupt, "read blob", &self.name)
                .context(format_args!(
                    "{} bytes came where {} were left of the range",
                    bytes.len(),
                    self.remaining
                ))),
        }
    }
}

/// The blobs of the service while they are listed.
pub(in crate::blob) struct List {
    store: Arc<Store>,
    path: String,
    lister: Option<Lister>,
    batch: VecDeque<BlobName>,
    skipped: u64,
    ended: bool,
}

impl List {
    pub(super) fn new(store: Arc<Store>, directory: Option<usize>) -> Self {
        Self {
            store,
            path: directory.map_or_else(|| "/".to_owned(), |number| format!("{number:02x}/")),
            lister: None,
            batch: VecDeque::new(),
            skipped: 0,
            ended: false,
        }
    }

    pub(in crate::blob) fn skipped(&self) -> u64 {
        self.skipped
    }

    pub(in crate::blob) async fn next(&mut self) -> Option<Result<BlobName, Fault>> {
        while self.batch.is_empty() {
            if self.ended {
                return None;
            }
            if let Err(fault) = self.fill().await {
                self.ended = true;
                return Some(Err(fault));
            }
        }
        self.batch.pop_front().map(Ok)
    }

    async fn fill(&mut self) -> Result<(), Fault> {
        let Self {
            store,
            path,
            lister,
            batch,
            skipped,
            ended,
        } = self;
        let act = async {
            let lister = match lister {
                Some(lister) => lister,
                None => lister.insert(store.operator.lister_with(path).recursive(true).await?),
            };
            for _ in 0..LIST_BATCH {
                let Some(entry) = lister.next().await.transpose()? else {
                    *ended = true;
                    break;
                };
                match BlobName::from_path(entry.path()) {
                    Some(name) => batch.push_back(name),
                    None if entry.path().ends_with('/') => {}
                    None if entry.path().trim_start_matches('/') == MARKER => {}
                    None => *skipped += 1,
                }
            }
            Ok(())
        };
        store.turn("list blobs", &BlobName::new(0), act).await
    }
}
