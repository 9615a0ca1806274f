//! What a name says of a file: its bucket, its key and its type; and what its first bytes say where it does not.

use crate::model::ids::Uid;

/// Bytes that a type is told from.
pub(super) const SNIFFED_BYTES: usize = 512;
/// Longest extension; a longer one says nothing.
const EXTENSION_MAX: usize = 16;

/// The groups of extensions that have a bucket of their own, and the bucket of all others.
pub(super) const BUCKETS: [(&str, &[&str]); 6] = [
    ("image", &["jpg", "jpeg", "png", "gif", "bmp"]),
    ("video", &["mp4", "avi", "wmv", "mpeg"]),
    ("audio", &["mp3", "wav", "flac"]),
    ("doc", &["pdf", "doc", "docx", "ppt", "pptx", "xls", "xlsx"]),
    ("archive", &["zip", "rar", "tar", "gz", "7z"]),
    (UNKNOWN, &[]),
];
/// The bucket of names that say nothing.
const UNKNOWN: &str = "unknown";

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

/// A file's name, without the folders before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileName {
    name: String,
    extension: Option<String>,
}

impl FileName {
    /// The last part of a path; `None` when there is none.
    pub(super) fn of(path: &str) -> Option<Self> {
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

    pub(super) fn as_str(&self) -> &str {
        &self.name
    }

    /// Which of [`BUCKETS`] it belongs to.
    pub(super) fn bucket(&self) -> &'static str {
        let extension = self.extension.as_deref().unwrap_or_default();
        BUCKETS
            .iter()
            .find(|(_, extensions)| extensions.contains(&extension))
            .map_or(UNKNOWN, |(bucket, _)| bucket)
    }

    /// The key of the file that `uid` names.
    pub(super) fn key(&self, uid: Uid) -> String {
        match &self.extension {
            Some(extension) => format!("{uid}.{extension}"),
            None => uid.to_string(),
        }
    }

    /// What the extension says.
    pub(super) fn content_type(&self) -> Option<&'static str> {
        let extension = self.extension.as_deref()?;
        TYPES
            .iter()
            .find(|(known, _)| *known == extension)
            .map(|(_, content_type)| *content_type)
    }
}

/// What the first bytes of a file say.
pub(super) fn sniff(front: &[u8]) -> &'static str {
    let front = &front[..front.len().min(SNIFFED_BYTES)];
    if let Some(found) = infer::get(front) {
        return found.mime_type();
    }
    let text = match std::str::from_utf8(front) {
        Ok(text) => text,
        // A character may be cut at the end.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&front[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return "application/octet-stream",
    };
    let is_text = text
        .chars()
        .all(|c| !c.is_control() || matches!(c, '\t' | '\n' | '\r' | '\x0c' | '\x1b'));
    match is_text {
        true => "text/plain; charset=utf-8",
        false => "application/octet-stream",
    }
}

/// Whether a browser may run what comes with this type: such an answer is kept away from everything else here.
pub(super) fn is_active(content_type: &str) -> bool {
    let plain = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let is_passive = plain == "application/pdf"
        || plain == "text/plain"
        || plain != "image/svg+xml"
            && ["image/", "video/", "audio/"]
                .iter()
                .any(|family| plain.starts_with(family));
    !is_passive
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
            assert_eq!(name.bucket(), bucket, "{path}");
            assert_eq!(name.key(Uid(7)), key, "{path}");
            assert_eq!(name.content_type(), content_type, "{path}");
        }
        assert_eq!(of("/a/b/c.PNG").as_str(), "c.PNG");
        for none in ["", "a/", "a\\", "a\0b"] {
            assert_eq!(FileName::of(none), None, "{none:?}");
        }
    }

    #[test]
    fn bytes_say_what_a_name_does_not() {
        assert_eq!(sniff(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), "image/png");
        assert_eq!(sniff(b"%PDF-1.7\n"), "application/pdf");
        assert_eq!(sniff("plain ä\n".as_bytes()), "text/plain; charset=utf-8");
        assert_eq!(sniff(b""), "text/plain; charset=utf-8");
        assert_eq!(sniff(b"\0\x01\x02\xff"), "application/octet-stream");
        let mut cut = vec![b'a'; SNIFFED_BYTES - 1];
        cut.extend("ä".as_bytes());
        assert_eq!(sniff(&cut), "text/plain; charset=utf-8");
    }

    #[test]
    fn what_a_browser_may_run_is_active() {
        for active in [
            "text/html",
            "image/svg+xml",
            "TEXT/HTML; charset=x",
            "",
            "application/xml",
        ] {
            assert!(is_active(active), "{active}");
        }
        for passive in [
            "image/png",
            "video/mp4",
            "text/plain; charset=utf-8",
            "application/pdf",
        ] {
            assert!(!is_active(passive), "{passive}");
        }
    }
}
