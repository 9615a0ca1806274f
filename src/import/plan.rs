//! What becomes of a row of the old database.

use std::collections::BTreeMap;

use super::{PARTS_MAX, Reason};
use crate::meta::original::{OldFile, OldObject, OldPart};
use crate::model::file::{FileName, NAME_METADATA};
use crate::model::ids::Uid;
use crate::model::names::ObjectKey;
use crate::model::object::Headers;
use crate::namespace::Foreign;

/// The type of files of which nothing is known.
const UNKNOWN_TYPE: &str = "application/octet-stream";
/// Longest content type that is taken over.
const TYPE_MAX_BYTES: usize = 255;

/// Where the buckets of the old install are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// The backend below whose root each bucket without one of its own is a folder.
    pub common: Option<String>,
    /// Backends whose root is a bucket, by its name.
    pub own: BTreeMap<String, String>,
}

impl Places {
    fn place(&self, object: &OldObject) -> Result<Foreign, (Reason, String)> {
        let size = u64::try_from(object.size).map_err(|_| {
            let detail = format!("a size of {} bytes", object.size);
            (Reason::InvalidRow, detail)
        })?;
        let (backend, path) = self.find(object).ok_or_else(|| {
            let detail = format!("no backend was named for bucket {}", object.bucket);
            (Reason::NoBackend, detail)
        })?;
        Ok(Foreign {
            backend: backend.to_owned(),
            path,
            size,
        })
    }

    /// The backend of an object and the path below its root; `None` when none was named for its bucket.
    pub(super) fn find(&self, object: &OldObject) -> Option<(&str, String)> {
        match (self.own.get(&object.bucket), &self.common) {
            (Some(backend), _) => Some((backend, object.name.clone())),
            (None, Some(backend)) => Some((backend, format!("{}/{}", object.bucket, object.name))),
            (None, None) => None,
        }
    }
}

/// A version to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) name: FileName,
    pub(super) key: ObjectKey,
    pub(super) headers: Headers,
    /// In order.
    pub(super) objects: Vec<Foreign>,
    pub(super) md5: Option<[u8; 16]>,
}

/// Decides what a file is made of, or why it cannot be adopted, and what was found.
pub(super) fn plan(
    file: &OldFile,
    parts: &[OldPart],
    places: &Places,
) -> Result<Plan, (Reason, String)> {
    let invalid = |what: &str| (Reason::InvalidRow, what.to_owned());
    // A file that was known already when it came has a name of its own and shares an object.
    let name = FileName::of(&file.name)
        .or_else(|| FileName::of(&file.object.name))
        .ok_or_else(|| invalid("it has no name"))?;
    let encoded = name
        .encoded()
        .ok_or_else(|| invalid("its name is too long"))?;
    let key = ObjectKey::parse(&name.key(Uid(file.uid)));
    let key = key.map_err(|_| invalid("its name makes no key"))?;
    let md5 = match file.object.md5.trim() {
        "" => None,
        text => {
            let mut md5 = [0; 16];
            hex::decode_to_slice(text, &mut md5).map_err(|_| invalid("its MD5 is not one"))?;
            Some(md5)
        }
    };
    let objects = match file.parts {
        None => vec![places.place(&file.object)?],
        Some(count) => objects_of(file, count, parts, places)?,
    };
    let told = file.content_type.trim();
    let is_type = told.len() <= TYPE_MAX_BYTES
        && told.contains('/')
        && told.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let content_type = match is_type {
        true => told,
        false => name.content_type().unwrap_or(UNKNOWN_TYPE),
    };
    Ok(Plan {
        key,
        headers: Headers {
            content_type: Some(content_type.to_owned()),
            metadata: vec![(NAME_METADATA.to_owned(), encoded)],
            ..Headers::default()
        },
        objects,
        md5,
        name,
    })
}

/// The parts of a file, which must be 1 to `count`, each once, and as long as the whole together.
fn objects_of(
    file: &OldFile,
    count: i64,
    parts: &[OldPart],
    places: &Places,
) -> Result<Vec<Foreign>, (Reason, String)> {
    let numbers = parts.iter().map(|part| part.number);
    let are_all = parts.len() <= PARTS_MAX && numbers.eq(1..=count) && count > 0;
    if !are_all {
        let detail = format!("{} parts are there, it has {count}, each once", parts.len());
        return Err((Reason::Parts, detail));
    }
    let mut objects = Vec::with_capacity(parts.len());
    for part in parts {
        objects.push(places.place(&part.object)?);
    }
    let sum = objects
        .iter()
        .try_fold(0_u64, |sum, object| sum.checked_add(object.size));
    if sum != u64::try_from(file.object.size).ok() {
        let detail = format!("its parts are not {} bytes together", file.object.size);
        return Err((Reason::Parts, detail));
    }
    // One without bytes holds no run of the whole.
    if objects.len() > 1 && objects.iter().any(|object| object.size > 0) {
        objects.retain(|object| object.size > 0);
    } else {
        objects.truncate(1);
    }
    Ok(objects)
}

/// A digest as rows and people write it.
pub(super) fn digits(md5: &[u8; 16]) -> String {
    hex::encode(md5)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object(name: &str, size: i64) -> OldObject {
        OldObject {
            bucket: "image".to_owned(),
            name: name.to_owned(),
            size,
            md5: String::new(),
        }
    }

    fn file(size: i64, parts: Option<i64>) -> OldFile {
        OldFile {
            id: 1,
            uid: 77,
            name: "a b.png".to_owned(),
            object: object("77.png", size),
            parts,
            is_uploaded: true,
            content_type: String::new(),
            modified: None,
        }
    }

    fn part(number: i64, size: i64) -> OldPart {
        OldPart {
            number,
            object: object(&format!("77_{number}"), size),
        }
    }

    fn common() -> Places {
        Places {
            common: Some("old".to_owned()),
            own: BTreeMap::new(),
        }
    }

    #[test]
    fn a_bucket_is_a_folder_of_the_common_backend_or_the_root_of_its_own() {
        let planned = plan(&file(3, None), &[], &common()).unwrap();
        assert_eq!(planned.objects[0].path, "image/77.png");
        assert_eq!(planned.objects[0].backend, "old");
        assert_eq!(planned.key.as_str(), "77.png");
        assert_eq!(planned.headers.content_type.as_deref(), Some("image/png"));
        assert_eq!(planned.headers.metadata[0].1, "a%20b%2Epng");
        let mut places = common();
        places.own.insert("image".to_owned(), "pictures".to_owned());
        let planned = plan(&file(3, None), &[], &places).unwrap();
        assert_eq!(planned.objects[0].path, "77.png");
        assert_eq!(planned.objects[0].backend, "pictures");
        let refused = plan(&file(3, None), &[], &Places::default()).unwrap_err();
        assert_eq!(refused.0, Reason::NoBackend);
    }

    #[test]
    fn what_is_no_row_of_a_file_is_refused() {
        let refuse = |change: fn(&mut OldFile)| {
            let mut file = file(3, None);
            change(&mut file);
            plan(&file, &[], &common()).unwrap_err().0
        };
        assert_eq!(refuse(|it| it.object.size = -1), Reason::InvalidRow);
        assert_eq!(refuse(|it| it.object.md5 = "12".into()), Reason::InvalidRow);
        assert_eq!(refuse(|it| it.name = "ä".repeat(500)), Reason::InvalidRow);
        assert_eq!(
            refuse(|it| {
                it.name.clear();
                it.object.name.clear();
            }),
            Reason::InvalidRow
        );
    }

    #[test]
    fn a_type_that_is_none_is_told_from_the_name() {
        let told = |content_type: &str| {
            let mut file = file(3, None);
            file.content_type = content_type.to_owned();
            let planned = plan(&file, &[], &common()).unwrap();
            planned.headers.content_type.unwrap()
        };
        assert_eq!(told("image/x-odd; a=b"), "image/x-odd; a=b");
        for none in ["", "png", "image/png\r\nX: y", "image/\u{e4}"] {
            assert_eq!(told(none), "image/png", "{none:?}");
        }
    }

    #[test]
    fn parts_without_bytes_make_no_run() {
        let parts = [part(1, 3), part(2, 0), part(3, 4)];
        let planned = plan(&file(7, Some(3)), &parts, &common()).unwrap();
        let paths: Vec<&str> = planned.objects.iter().map(|it| it.path.as_str()).collect();
        assert_eq!(paths, ["image/77_1", "image/77_3"]);
        let planned = plan(&file(0, Some(2)), &[part(1, 0), part(2, 0)], &common()).unwrap();
        assert_eq!(planned.objects.len(), 1);
    }

    proptest! {
        #[test]
        fn only_the_exact_parts_make_a_file(
            numbers in proptest::collection::vec(0_i64..5, 0..5), count in 0_i64..5, size in 0_i64..12
        ) {
            let parts: Vec<OldPart> = numbers.iter().map(|number| part(*number, 2)).collect();
            let exact = count > 0 && numbers == (1..=count).collect::<Vec<_>>() && size == 2 * count;
            let planned = plan(&file(size, Some(count)), &parts, &common());
            prop_assert_eq!(planned.is_ok(), exact);
            if let Err((reason, _)) = planned {
                prop_assert_eq!(reason, Reason::Parts);
            }
        }
    }
}
