//! Bytes that come again for a content that is lost: it lies in the new blobs from then on.
//!
//! Only bytes that were received and hashed get there, so they are what the content is known by. All of it is part of
//! the transaction that refers to the content, so that either both happen or the new bytes are dropped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::receive::Received;
use crate::blob::CopyName;
use crate::meta::contents::{self, NewContent, NewRun};
use crate::meta::splits::{self, Renewed};
use crate::meta::{Session, releases};
use crate::model::fault::Fault;
use crate::model::ids::ContentId;

/// What the runs of one transaction tell each other.
#[derive(Default)]
pub(super) struct Renewal {
    /// The equal content that a run found to be lost.
    lost: Mutex<Option<ContentId>>,
    /// Whether that got the bytes, in the run that was last.
    is_done: AtomicBool,
}

impl Renewal {
    fn lost(&self) -> MutexGuard<'_, Option<ContentId>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Received {
    /// Begins a run of the transaction that links these bytes: what the run before found to be lost is taken alone, before
    /// anything shares it.
    pub(super) async fn begin_renewal(&self, session: &mut Session) -> Result<(), Fault> {
        self.renewal.is_done.store(false, Ordering::SeqCst);
        let lost = *self.renewal.lost();
        if let Some(lost) = lost {
            contents::lock_alone(session, lost).await?;
        }
        Ok(())
    }

    /// Gives these bytes to `lost`, and answers it; or the new content, where that must stand beside it.
    pub(super) async fn renew(
        &self,
        session: &mut Session,
        lost: ContentId,
        new: &NewContent<'_>,
        runs: &[NewRun<'_>],
    ) -> Result<ContentId, Fault> {
        // What another system wrote is noted with the content that it was adopted as.
        if self.is_adopted() {
            return contents::insert_beside(session, new, runs).await;
        }
        // It was found under a lock that others share. Two that share it and both want it alone would wait for each other
        // until the database ends one of them, so whoever wants it lets go of all locks and takes this one first.
        if self.renewal.lost().replace(lost) != Some(lost) {
            return Err(contents::overtaken(
                session,
                "renew content",
                "found to be lost",
            ));
        }
        let place = NewContent { id: lost, ..*new };
        match splits::renew(session, &place, runs).await? {
            Renewed::Well => Ok(lost),
            Renewed::TooMany => contents::insert_beside(session, new, runs).await,
            Renewed::Done(given_up) => {
                for part in given_up {
                    releases::release(session, self.uids.next()?, part, new.now).await?;
                }
                self.renewal.is_done.store(true, Ordering::SeqCst);
                Ok(lost)
            }
        }
    }

    /// Whether `content`, to which the transaction refers, lies in the blobs of this.
    pub(super) fn is_in(&self, content: ContentId) -> bool {
        content == self.new_id || self.renewal.is_done.load(Ordering::SeqCst)
    }

    fn is_adopted(&self) -> bool {
        let mut copies = self.segments().iter().flat_map(|it| &it.blob().copies);
        copies.any(|copy| CopyName::parse(&copy.name).is_some_and(|name| name.is_adopted()))
    }
}
