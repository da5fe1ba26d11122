//! XAES-256-GCM, as the C2SP specifies it: AES-256-GCM under a key that is derived, for each value, from the secret and
//! the first half of a nonce of 24 bytes. The second half is the nonce of AES-256-GCM.
//!
//! A nonce of 24 bytes can be random for any number of values; one of 12 bytes, that of AES-256-GCM alone, for 2³² of a key.

#[cfg(feature = "seal-aws-lc")]
mod aws_lc;
#[cfg(any(test, not(feature = "seal-aws-lc")))]
mod portable;
#[cfg(all(test, feature = "seal-aws-lc", not(any(vayu_loom, vayu_shuttle))))]
mod tests;

#[cfg(feature = "seal-aws-lc")]
pub(super) use self::aws_lc::Cipher;
#[cfg(not(feature = "seal-aws-lc"))]
pub(super) use self::portable::Cipher;

pub(super) const SECRET: usize = 32;
pub(super) const NONCE: usize = 24;
pub(super) const TAG: usize = 16;
