//! What the first bytes of a file say of its type, where its name does not.

/// Bytes that a type is told from.
pub(super) const SNIFFED_BYTES: usize = 512;
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
