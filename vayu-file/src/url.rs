//! Paths in `file:` URLs.

use vayu_core::{Error, ErrorKind, Result};

/// Returns the path in a `file:` URL without a query, decoded. It may be empty.
///
/// # Errors
///
/// [`ErrorKind::Configuration`] for a URL with a host or with an invalid percent-encoding.
pub fn path_of_url(url: &str) -> Result<String> {
    let path = url.strip_prefix("file:").unwrap_or_default();
    match path.strip_prefix("//") {
        Some(path) if path.starts_with('/') => Ok(without_root(decode(path)?)),
        Some(_) => Err(wrong("a directory has no host: write `file:///path`, or `file:path`")),
        None => decode(path),
    }
}

/// Removes the slash before the drive of a path of Windows: `/C:/cache`.
fn without_root(path: String) -> String {
    match path.as_bytes() {
        [b'/', drive, b':', ..] if cfg!(windows) && drive.is_ascii_alphabetic() => {
            path[1..].to_owned()
        }
        _ => path,
    }
}

/// Decodes the percent-encoding of a path.
fn decode(path: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = rest.split_first_chunk::<2>().and_then(|(digits, behind)| {
            rest = behind;
            let digits = str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
            u8::from_str_radix(digits, 16).ok()
        });
        bytes.push(digits.ok_or_else(|| wrong("invalid percent-encoding in a path"))?);
    }
    String::from_utf8(bytes).map_err(|_| wrong("the path is not UTF-8"))
}

fn wrong(message: &'static str) -> Error {
    Error::new(ErrorKind::Configuration, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_of_a_drive_is_a_path_with_a_drive_on_windows() {
        let path = if cfg!(windows) { "C:/a b" } else { "/C:/a b" };
        assert_eq!(path_of_url("file:///C:/a%20b").unwrap(), path);
        assert_eq!(path_of_url("file:///a").unwrap(), "/a");
    }

    #[test]
    fn path_is_decoded_whole_or_not_at_all() {
        assert_eq!(decode("/a%20b/%C3%A9").unwrap(), "/a b/é");
        for wrong in ["%", "%2", "%zz", "%ff", "a%+1"] {
            assert!(decode(wrong).is_err(), "{wrong}");
        }
    }
}
