//! The implementation whose AES-256-GCM is that of AWS-LC, in C and assembler. The derivation of keys is here.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use xaes_256_gcm::aes::Aes256;
use xaes_256_gcm::aes::cipher::{BlockCipherEncrypt, KeyInit};
use zeroize::Zeroizing;

use super::{NONCE, SECRET, TAG};

type Block = [u8; 16];

/// A cipher with its secret, which is overwritten when it is dropped.
pub(in super::super) struct Cipher {
    aes: Aes256,
    /// The subkey K1 of CMAC.
    subkey: Zeroizing<Block>,
}

impl Cipher {
    pub(in super::super) fn new(secret: &[u8; SECRET]) -> Self {
        let aes = Aes256::new(secret.into());
        let mut zero = Zeroizing::new([0; 16]);
        aes.encrypt_block((&mut *zero).into());
        let number = u128::from_be_bytes(*zero);
        let carry = if number >> 127 == 1 { 0b1000_0111 } else { 0 };
        Self { aes, subkey: Zeroizing::new((number << 1 ^ carry).to_be_bytes()) }
    }

    /// Returns the key and the nonce of AES-256-GCM for a value: CMAC, in counter mode, of the first half of the nonce,
    /// and the second half.
    fn derive(&self, nonce: &[u8; NONCE]) -> Option<(LessSafeKey, Nonce)> {
        let (input, nonce) = nonce.split_first_chunk::<12>()?;
        let mut key = Zeroizing::new([0; SECRET]);
        for (counter, half) in (1..).zip(key.as_chunks_mut::<16>().0) {
            half[..4].copy_from_slice(&[0, counter, b'X', 0]);
            half[4..].copy_from_slice(input);
            half.iter_mut().zip(*self.subkey).for_each(|(byte, subkey)| *byte ^= subkey);
            self.aes.encrypt_block(half.into());
        }
        let key = UnboundKey::new(&AES_256_GCM, &key[..]).ok()?;
        Some((LessSafeKey::new(key), Nonce::try_assume_unique_for_key(nonce).ok()?))
    }

    /// Encrypts a value in place, and returns the tag that authenticates it together with `data`.
    pub(in super::super) fn encrypt(
        &self,
        nonce: &[u8; NONCE],
        data: &[u8],
        value: &mut [u8],
    ) -> Option<[u8; TAG]> {
        let (key, nonce) = self.derive(nonce)?;
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(data), value).ok()?;
        tag.as_ref().try_into().ok()
    }

    /// Decrypts a value in place. `None` if the tag is not that of this nonce, data and value.
    pub(in super::super) fn decrypt(
        &self,
        nonce: &[u8; NONCE],
        data: &[u8],
        value: &mut [u8],
        tag: &[u8; TAG],
    ) -> Option<()> {
        let (key, nonce) = self.derive(nonce)?;
        key.open_in_place_separate_tag(nonce, Aad::from(data), tag, value).ok().map(|_| ())
    }
}
