//! Which objects files were adopted from, and which others need: in a file, as there may be any number of them.

use std::path::Path;

use crate::meta::scratch::Scratch;
use crate::model::fault::Fault;
use crate::namespace::Foreign;

/// Marks of objects that an adopted file is made of.
const ADOPTED: u8 = 1;
/// Marks of objects that a row names by which nothing was adopted.
const NEEDED: u8 = 2;

/// What one import saw of the old database, as far as objects are concerned.
pub(super) struct Ledger(Scratch);

impl Ledger {
    /// An empty one, kept at `path`.
    pub(super) fn create(path: &Path) -> Result<Self, Fault> {
        Scratch::create(path).map(Self)
    }

    /// A file that is made of these objects was adopted.
    pub(super) fn adopted(&mut self, objects: &[Foreign]) -> Result<(), Fault> {
        for object in objects {
            self.0.mark(ADOPTED, &key(&object.backend, &object.path))?;
        }
        Ok(())
    }

    /// A row names the object at this place and was not adopted. One that has no place is at none of those that files were
    /// adopted from.
    pub(super) fn needed(&mut self, place: Option<(&str, String)>) -> Result<(), Fault> {
        if let Some((backend, path)) = place {
            self.0.mark(NEEDED, &key(backend, &path))?;
        }
        Ok(())
    }

    /// Whether all these objects are known by files that were adopted, and none by another. Those of another old database
    /// are not: it is for its own import to tell.
    pub(super) fn is_free(&self, objects: &[(String, String)]) -> Result<bool, Fault> {
        for (backend, path) in objects {
            let key = key(backend, path);
            if self.0.is_marked(NEEDED, &key)? || !self.0.is_marked(ADOPTED, &key)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn key(backend: &str, path: &str) -> Vec<u8> {
    // No name of a backend has a slash.
    format!("{backend}/{path}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_objects_that_adopted_files_alone_name_are_free() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::create(&dir.path().join("scratch")).unwrap();
        let foreign = |path: &str| Foreign {
            backend: "old".to_owned(),
            path: path.to_owned(),
            size: 1,
        };
        let place = |path: &str| ("old".to_owned(), path.to_owned());
        ledger.adopted(&[foreign("a"), foreign("b")]).unwrap();
        ledger.needed(Some(("old", "b".to_owned()))).unwrap();
        ledger.needed(Some(("other", "a".to_owned()))).unwrap();
        ledger.needed(None).unwrap();
        assert!(ledger.is_free(&[place("a")]).unwrap());
        assert!(ledger.is_free(&[]).unwrap());
        for not_free in [
            vec![place("b")],
            vec![place("a"), place("b")],
            vec![place("c")],
        ] {
            assert!(!ledger.is_free(&not_free).unwrap(), "{not_free:?}");
        }
    }
}
