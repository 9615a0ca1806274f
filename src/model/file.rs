//! Names of files in the native API, and what they say: bucket, key and type.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::model::ids::Uid;
use crate::model::names::BucketName;

/// The name of a version's user metadata that holds the name it came under, percent-encoded.
pub const NAME_METADATA: &str = "filename";
/// Longest name, encoded: user metadata has a limit.
const NAME_MAX_BYTES: usize = 1536;
/// Longest extension; a longer one says nothing.
const EXTENSION_MAX: usize = 16;

/// The groups of extensions that have a bucket of their own, and the bucket of all others.
const BUCKETS: [(&str, &[&str]); 6] = [
    ("image", &["jpg", "jpeg", "png", "gif", "bmp"]),
    ("video", &["mp4", "avi", "wmv", "mpeg"]),
    ("audio", &["mp3", "wav", "flac"]),
    ("doc", &["pdf", "doc", "docx", "ppt", "pptx", "xls", "xlsx"]),
    ("archive", &["zip", "rar", "tar", "gz", "7z"]),
    ("unknown", &[]),
];

/// Types of extensions; those that say nothing are told from the bytes.
const TYPES: [(&str, &str); 30] = [
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("png", "image/png"),
    ("gif", "image/gif"),
    ("bmp", "image/bmp"),
    ("mp4", "video/mp4"),
    ("avi", "video/x-msvideo"),
    ("wmv", "video/x-ms-wmv"),
    ("mpeg", "video/mpeg"),
    ("mp3", "audio/mpeg"),
    ("wav", "audio/wav"),
    ("flac", "audio/flac"),
    ("pdf", "application/pdf"),
    ("doc", "application/msword"),
    (
        "docx",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ),
    ("ppt", "application/vnd.ms-powerpoint"),
    (
        "pptx",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ),
    ("xls", "application/vnd.ms-excel"),
    (
        "xlsx",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ),
    ("zip", "application/zip"),
    ("rar", "application/vnd.rar"),
    ("tar", "application/x-tar"),
    ("gz", "application/gzip"),
    ("7z", "application/x-7z-compressed"),
    ("txt", "text/plain; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("json", "application/json"),
    ("html", "text/html; charset=utf-8"),
    ("svg", "image/svg+xml"),
    ("webp", "image/webp"),
];

/// The buckets of the native API behind a prefix, in the order of [`FileName::place`]; `None` when it cannot be that of a
/// bucket's name.
pub fn bucket_names(prefix: &str) -> Option<Vec<BucketName>> {
    BUCKETS
        .iter()
        .map(|(name, _)| BucketName::parse(&format!("{prefix}{name}")).ok())
        .collect()
}

/// A file's name, without the folders before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName {
    name: String,
    extension: Option<String>,
}

impl FileName {
    /// The last part of a path; `None` when there is none.
    pub fn of(path: &str) -> Option<Self> {
        let name = path.rsplit(['/', '\\']).next().unwrap_or_default();
        if name.is_empty() || name.contains('\0') {
            return None;
        }
        let extension = name
            .rsplit_once('.')
            .map(|(_, extension)| extension.to_ascii_lowercase())
            .filter(|extension| {
                (1..=EXTENSION_MAX).contains(&extension.len())
                    && extension.bytes().all(|byte| byte.is_ascii_alphanumeric())
            });
        Some(Self {
            name: name.to_owned(),
            extension,
        })
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Which of [`bucket_names`] it belongs to.
    pub fn place(&self) -> usize {
        let extension = self.extension.as_deref().unwrap_or_default();
        let found = BUCKETS
            .iter()
            .position(|(_, extensions)| extensions.contains(&extension));
        found.unwrap_or(BUCKETS.len() - 1)
    }

    /// The key of the file that `uid` names.
    pub fn key(&self, uid: Uid) -> String {
        match &self.extension {
            Some(extension) => format!("{uid}.{extension}"),
            None => uid.to_string(),
        }
    }

    /// As user metadata holds it; `None` when it is too long for that.
    pub fn encoded(&self) -> Option<String> {
        let encoded = utf8_percent_encode(&self.name, NON_ALPHANUMERIC).to_string();
        (encoded.len() <= NAME_MAX_BYTES).then_some(encoded)
    }

    /// What the extension says.
    pub fn content_type(&self) -> Option<&'static str> {
        let extension = self.extension.as_deref()?;
        TYPES
            .iter()
            .find(|(known, _)| *known == extension)
            .map(|(_, content_type)| *content_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> FileName {
        FileName::of(path).unwrap()
    }

    #[test]
    fn the_extension_chooses_bucket_key_and_type() {
        for (path, bucket, key, content_type) in [
            ("/a/b/c.PNG", "image", "7.png", Some("image/png")),
            ("c:\\x\\film.mp4", "video", "7.mp4", Some("video/mp4")),
            ("a.flac", "audio", "7.flac", Some("audio/flac")),
            ("a.tar.gz", "archive", "7.gz", Some("application/gzip")),
            ("a.pdf", "doc", "7.pdf", Some("application/pdf")),
            (
                "example file？?@$.txt",
                "unknown",
                "7.txt",
                Some("text/plain; charset=utf-8"),
            ),
            ("README", "unknown", "7", None),
            (".bashrc", "unknown", "7.bashrc", None),
            ("odd.b?c", "unknown", "7", None),
            ("long.abcdefghijklmnopq", "unknown", "7", None),
            ("ends.", "unknown", "7", None),
        ] {
            let name = of(path);
            assert_eq!(BUCKETS[name.place()].0, bucket, "{path}");
            assert_eq!(name.key(Uid(7)), key, "{path}");
            assert_eq!(name.content_type(), content_type, "{path}");
        }
        assert_eq!(of("/a/b/c.PNG").as_str(), "c.PNG");
        for none in ["", "a/", "a\\", "a\0b"] {
            assert_eq!(FileName::of(none), None, "{none:?}");
        }
    }
}
