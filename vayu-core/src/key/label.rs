//! Labels: readable descriptions of calls.

use std::fmt::{self, Display, Write};

/// The maximum length of a label in bytes.
const MAX_LENGTH: usize = 200;

/// Returns the first bytes of a label, up to [`MAX_LENGTH`]. The rest is not formatted.
pub(super) fn bounded(label: &dyn Display) -> Box<str> {
    let mut bounded = Bounded(String::new());
    // An error means that the label was cut off, or that its `Display` failed.
    let _ = write!(bounded, "{label}");
    bounded.0.into_boxed_str()
}

struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MAX_LENGTH - self.0.len();
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        self.0.push_str(cut(text, room));
        Err(fmt::Error)
    }
}

/// Returns the first bytes of a label, up to [`MAX_LENGTH`].
#[cfg(feature = "wire")]
pub(crate) fn cut_label(label: &str) -> &str {
    cut(label, MAX_LENGTH)
}

/// Returns the longest beginning of a string with up to this many bytes.
pub(super) fn cut(text: &str, length: usize) -> &str {
    let mut end = text.len().min(length);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_is_cut_off_between_characters() {
        assert_eq!(&*bounded(&"EUR"), "EUR");
        let long = format!("{}é and more", "k".repeat(MAX_LENGTH - 1));
        assert_eq!(&*bounded(&long), "k".repeat(MAX_LENGTH - 1));
        let parts = bounded(&format_args!("{}{}", "k".repeat(MAX_LENGTH), 'x'));
        assert_eq!(parts.len(), MAX_LENGTH);
    }
}
