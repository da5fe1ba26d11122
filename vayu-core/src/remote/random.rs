//! Randomness from the operating system, which differs in a process and its forked child.

use std::io;
use std::time::Duration;

/// Returns random bytes.
///
/// # Errors
///
/// Those of the operating system.
pub fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// Returns a random time between half of this one and all of it.
pub fn jittered(time: Duration) -> Duration {
    let [byte] = random_bytes().unwrap_or([255]);
    time.mul_f64(0.5 + 0.5 * f64::from(byte) / 255.0)
}
