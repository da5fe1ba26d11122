//! The implementation in Rust alone, which uses the AES instructions of the processor where there are any.

use xaes_256_gcm::aead::AeadInOut;
use xaes_256_gcm::aead::inout::InOutBuf;
use xaes_256_gcm::{Xaes256Gcm, aead::KeyInit};

use super::{NONCE, SECRET, TAG};

/// A cipher with its secret, which is overwritten when it is dropped.
pub(in super::super) struct Cipher(Xaes256Gcm);

impl Cipher {
    pub(in super::super) fn new(secret: &[u8; SECRET]) -> Self {
        Self(Xaes256Gcm::new(secret.into()))
    }

    /// Encrypts a value in place, and returns the tag that authenticates it together with `data`.
    pub(in super::super) fn encrypt(
        &self,
        nonce: &[u8; NONCE],
        data: &[u8],
        value: &mut [u8],
    ) -> Option<[u8; TAG]> {
        let tag = self.0.encrypt_inout_detached(nonce.into(), data, InOutBuf::from(value)).ok()?;
        Some(tag.into())
    }

    /// Decrypts a value in place. `None` if the tag is not that of this nonce, data and value.
    pub(in super::super) fn decrypt(
        &self,
        nonce: &[u8; NONCE],
        data: &[u8],
        value: &mut [u8],
        tag: &[u8; TAG],
    ) -> Option<()> {
        let value = InOutBuf::from(value);
        self.0.decrypt_inout_detached(nonce.into(), data, value, tag.into()).ok()
    }
}
