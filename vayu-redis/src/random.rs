//! Chance, from the operating system: a process that was forked has another one than its parent.

use std::io;
use std::time::Duration;

/// Bytes that nobody else has.
pub(crate) fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// Between half of this time and all of it.
pub(crate) fn jittered(time: Duration) -> Duration {
    let [byte] = bytes().unwrap_or([255]);
    time.mul_f64(0.5 + 0.5 * f64::from(byte) / 255.0)
}
