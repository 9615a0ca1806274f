//! Texts as the content of XML elements.

use std::fmt::Write as _;

/// Whether XML cannot carry a character as it is.
pub(super) fn is_unwritable(character: char) -> bool {
    character < '\u{20}' || matches!(character, '\u{FFFE}' | '\u{FFFF}')
}

/// A character that is no markup, by a reference where XML cannot carry it.
pub(super) fn push_writable(into: &mut String, character: char) {
    if is_unwritable(character) {
        let _ = write!(into, "&#x{:X};", character as u32);
    } else {
        into.push(character);
    }
}

/// A text as the content of an element.
pub(super) fn push_escaped(into: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '<' => into.push_str("&lt;"),
            '>' => into.push_str("&gt;"),
            '&' => into.push_str("&amp;"),
            other => push_writable(into, other),
        }
    }
}
