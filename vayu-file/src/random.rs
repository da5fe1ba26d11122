//! Random bytes of the operating system, for unique names and generations.

use std::io;

/// Returns random bytes.
pub(crate) fn random_bytes() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}
