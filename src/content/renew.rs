//! Bytes that come again for a content that is lost: it lies in the new blobs from then on.
//!
//! Only bytes that were received and hashed get there, so they are what the content is known by. All of it is part of
//! the transaction that refers to the content, so that either both happen or the new bytes are dropped.

use std::sync::atomic::Ordering;

use super::receive::Received;
use crate::blob::CopyName;
use crate::meta::contents::{self, NewContent, NewRun};
use crate::meta::splits::{self, Renewed};
use crate::meta::{Session, releases};
use crate::model::fault::Fault;
use crate::model::ids::ContentId;

impl Received {
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
        let place = NewContent { id: lost, ..*new };
        match splits::renew(session, &place, runs).await? {
            Renewed::Well => Ok(lost),
            Renewed::TooMany => contents::insert_beside(session, new, runs).await,
            Renewed::Done(given_up) => {
                for part in given_up {
                    releases::release(session, self.uids.next()?, part, new.now).await?;
                }
                self.renewed.store(true, Ordering::SeqCst);
                Ok(lost)
            }
        }
    }

    /// Whether `content`, to which the transaction refers, lies in the blobs of this.
    pub(super) fn is_in(&self, content: ContentId) -> bool {
        content == self.new_id || self.renewed.load(Ordering::SeqCst)
    }

    fn is_adopted(&self) -> bool {
        let mut copies = self.segments().iter().flat_map(|it| &it.blob().copies);
        copies.any(|copy| CopyName::parse(&copy.name).is_some_and(|name| name.is_adopted()))
    }
}
