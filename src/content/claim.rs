//! Whose the blobs at a backend are: asked before any of them is taken for one that nobody names.
//!
//! A database that is new, or another one, names none of the blobs that lie at a backend already, and would take all of
//! them for orphans. So each backend has a [marker](MARKER) that says of which install its blobs are. Nothing is deleted
//! as an orphan where another's marker lies, and where none does the first look decides:
//!
//! ```text
//!   marker         ours              go on
//!                  another's         refuse
//!                  none   unnamed blobs <= named ones, all ages    claim it, go on
//!                         old unnamed blobs > named ones           refuse
//!                         else: some are too young to tell         delete nothing yet
//! ```
//!
//! An install of before there were markers so claims its backends by the first sweep, and a move those that it is about.
//! Where a move has left nothing its end takes the marker away, and what a run of it writes there late is still this
//! install's. Whoever knows better writes the marker, or deletes it.

use super::ContentStore;
use crate::blob::{Claim, MARKER};
use crate::meta::{install, moves};
use crate::model::clock::{Millis, millis};
use crate::model::fault::{Fault, Kind};
use crate::model::ids::minted_at;

/// Whose the blobs at a backend are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    /// This install's: what no row names is an orphan.
    Ours,
    /// That cannot be told yet: nothing may be deleted, and there is little to be.
    Unknown(Seen),
    /// Perhaps another's: nothing may be deleted. The text is for an operator and says what to do.
    Another(String),
}

/// The blobs at a backend, as they were listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Those that a row names.
    pub(super) named: u64,
    /// Those that none names and that are old enough to be orphans.
    pub(super) old: u64,
    /// Those that none names and that may be named yet.
    pub(super) young: u64,
}

/// What a backend without a marker is to this install.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Claim,
    Wait,
    Refuse,
}

impl Seen {
    fn verdict(self) -> Verdict {
        if self.named >= self.old + self.young {
            Verdict::Claim
        } else if self.named >= self.old {
            Verdict::Wait
        } else {
            Verdict::Refuse
        }
    }
}

impl ContentStore {
    /// Whose the blobs at a backend are, where one that no row names is old when it was born before `before`. Claims the
    /// backend for this install where it is free.
    pub(super) async fn owner_of(&self, backend: &str, before: Millis) -> Result<Owner, Fault> {
        let ours = self.identity().await?;
        if let Some(found) = self.blobs.marker(backend).await? {
            return Ok(marked(&found, &ours));
        }
        let seen = self.count_named(backend, before).await?;
        let verdict = seen.verdict();
        // What a move had emptied was this install's: what a run of it leaves there late is too.
        if verdict != Verdict::Claim && self.was_emptied(backend).await? {
            return Ok(Owner::Ours);
        }
        match verdict {
            Verdict::Wait => return Ok(Owner::Unknown(seen)),
            Verdict::Refuse => return Ok(Owner::Another(too_few(seen, &ours))),
            Verdict::Claim => {}
        }
        // What was moved away from is left as empty as it is.
        if seen == Seen::default() && self.is_left(backend).await? {
            return Ok(Owner::Ours);
        }
        self.blobs.mark(backend, &ours, Claim::IfNone).await?;
        match self.blobs.marker(backend).await? {
            Some(found) => {
                tracing::info!(backend, ?seen, "claimed for this install");
                Ok(marked(&found, &ours))
            }
            None => Err(Fault::new(Kind::Unavailable, "claim backend")
                .context(format_args!("backend {backend}"))
                .context("what was written is not there")),
        }
    }

    /// Claims a backend of a move, if that can be done.
    pub async fn claim(&self, backend: i64) {
        let claim = async {
            let before = self.horizon(millis(self.config.grace())).await?.1;
            let backend = self.backend(backend).await?;
            self.owner_of(&backend.name, before).await
        };
        match claim.await {
            Ok(Owner::Ours) => {}
            Ok(owner) => tracing::info!(backend, ?owner, "not claimed"),
            // The move meets it too.
            Err(fault) => tracing::debug!(%fault, "backend not claimed"),
        }
    }

    /// Deletes this install's marker at a backend where nothing else is left.
    pub async fn give_up(&self, backend: i64) -> Result<(), Fault> {
        let backend = self.backend(backend).await?;
        match self.blobs.marker(&backend.name).await? {
            Some(found) if found == self.identity().await? => {
                self.blobs.unmark(&backend.name).await
            }
            _ => Ok(()),
        }
    }

    /// What this install is known by.
    async fn identity(&self) -> Result<String, Fault> {
        let found = self
            .meta
            .read("find install", |session| {
                Box::pin(install::identity(session))
            })
            .await?;
        found.ok_or_else(|| {
            Fault::new(Kind::Internal, "find install").context("nothing is recorded of it")
        })
    }

    async fn count_named(&self, backend: &str, before: Millis) -> Result<Seen, Fault> {
        let (mut seen, mut list) = (Seen::default(), self.blobs.list(backend)?);
        while let Some(name) = list.next().await {
            let name = name?;
            if name.is_manifest() {
                continue;
            }
            if self.is_named(name).await? {
                seen.named += 1;
            } else if minted_at(name.id()) < before {
                seen.old += 1;
            } else {
                seen.young += 1;
            }
        }
        Ok(seen)
    }

    /// Whether a move of this install has left nothing at a backend.
    async fn was_emptied(&self, backend: &str) -> Result<bool, Fault> {
        let name = backend.to_owned();
        self.meta
            .scan("find moves", move |session| {
                let name = name.clone();
                Box::pin(async move { moves::has_emptied(session, &name).await })
            })
            .await
    }

    /// Whether another backend stands for this one.
    async fn is_left(&self, backend: &str) -> Result<bool, Fault> {
        let moved = self
            .meta
            .scan("find moved backends", |session| {
                Box::pin(moves::redirected(session))
            })
            .await?;
        Ok(moved.iter().any(|(from, _)| from == backend))
    }
}

fn marked(found: &str, ours: &str) -> Owner {
    if found == ours {
        return Owner::Ours;
    }
    Owner::Another(format!(
        "blobs of another install lie there; give each install a root of its own, or restore the database of that \
         one; to hand the backend over to this install, delete the object {MARKER} there"
    ))
}

fn too_few(seen: Seen, ours: &str) -> String {
    let Seen { named, old, .. } = seen;
    format!(
        "{old} blobs lie there that this database does not name, and only {named} that it does: they may be of another \
         install; give each install a root of its own, or restore the database that names them; to have this install \
         delete what it does not name, write {ours} into the object {MARKER} there"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_claimed_where_most_is_named_and_refused_where_most_is_old_and_unnamed() {
        let verdict = |named, old, young| Seen { named, old, young }.verdict();
        for (named, old, young) in [(0, 0, 0), (1, 0, 0), (1, 1, 0), (5, 2, 3)] {
            assert_eq!(verdict(named, old, young), Verdict::Claim);
        }
        for (named, old, young) in [(0, 1, 0), (1, 2, 0), (1, 2, 9)] {
            assert_eq!(verdict(named, old, young), Verdict::Refuse);
        }
        // Another install may have begun a moment ago.
        for (named, old, young) in [(0, 0, 1), (1, 0, 2), (3, 2, 2)] {
            assert_eq!(verdict(named, old, young), Verdict::Wait);
        }
    }

    #[test]
    fn who_is_refused_is_told_what_to_do() {
        assert_eq!(marked("a", "a"), Owner::Ours);
        let Owner::Another(why) = marked("a", "b") else {
            panic!("taken for ours");
        };
        assert!(why.contains("delete the object osproxy-install"), "{why}");
        let seen = Seen {
            named: 1,
            old: 7,
            young: 0,
        };
        let why = too_few(seen, "me");
        assert!(why.starts_with("7 blobs") && why.contains("only 1") && why.contains("write me"));
    }
}
