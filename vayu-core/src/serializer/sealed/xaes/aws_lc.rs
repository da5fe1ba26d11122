//! The implementation whose AES-256-GCM is that of AWS-LC, in C and assembler. The derivation of keys is here.

use std::sync::{Arc, RwLock};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use foldhash::quality::RandomState;
use xaes_256_gcm::aes::Aes256;
use xaes_256_gcm::aes::cipher::{BlockCipherEncrypt, KeyInit};
use zeroize::Zeroizing;

use super::{NONCE, SECRET, TAG};
use crate::bounded_map::BoundedMap;

type Block = [u8; 16];

/// The half of a nonce from which a key is derived.
type Input = [u8; 12];

/// The number of derived keys that are kept: those of the values that were decrypted last. Each has some 700 bytes.
const MAX_DERIVED: usize = 256;

/// A cipher with its secret, which is overwritten when it is dropped, as the keys derived from it are.
pub(in super::super) struct Cipher {
    aes: Aes256,
    /// The subkey K1 of CMAC.
    subkey: Zeroizing<Block>,
    /// A value that is read again has the same key. To derive it takes a tenth of the time to decrypt 10 KiB, and
    /// longer than to decrypt a short value. The lock is tried, never waited for.
    derived: RwLock<BoundedMap<Input, Arc<LessSafeKey>, RandomState>>,
}

impl Cipher {
    pub(in super::super) fn new(secret: &[u8; SECRET]) -> Self {
        let aes = Aes256::new(secret.into());
        let mut zero = Zeroizing::new([0; 16]);
        aes.encrypt_block((&mut *zero).into());
        let number = u128::from_be_bytes(*zero);
        let carry = if number >> 127 == 1 { 0b1000_0111 } else { 0 };
        let subkey = Zeroizing::new((number << 1 ^ carry).to_be_bytes());
        Self { aes, subkey, derived: RwLock::new(BoundedMap::new(MAX_DERIVED)) }
    }

    /// Derives the key of AES-256-GCM for a value: CMAC, in counter mode, of the first half of its nonce.
    fn derive(&self, input: &Input) -> Option<LessSafeKey> {
        let mut key = Zeroizing::new([0; SECRET]);
        for (counter, half) in (1..).zip(key.as_chunks_mut::<16>().0) {
            half[..4].copy_from_slice(&[0, counter, b'X', 0]);
            half[4..].copy_from_slice(input);
            half.iter_mut().zip(*self.subkey).for_each(|(byte, subkey)| *byte ^= subkey);
            self.aes.encrypt_block(half.into());
        }
        UnboundKey::new(&AES_256_GCM, &key[..]).ok().map(LessSafeKey::new)
    }

    fn derived(&self, input: &Input) -> Option<Arc<LessSafeKey>> {
        self.derived.try_read().ok()?.get(input).cloned()
    }

    /// Keeps a derived key. That of another value may have to go, and is dropped without the lock.
    fn keep(&self, input: Input, key: Arc<LessSafeKey>) {
        let replaced = self.derived.try_write().ok().and_then(|mut keys| keys.insert(input, key));
        drop(replaced);
    }

    /// Encrypts a value in place, and returns the tag that authenticates it together with `data`.
    pub(in super::super) fn encrypt(
        &self,
        nonce: &[u8; NONCE],
        data: &[u8],
        value: &mut [u8],
    ) -> Option<[u8; TAG]> {
        let (input, nonce) = halves(nonce)?;
        let key = self.derive(input)?;
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
        let (input, nonce) = halves(nonce)?;
        let known = self.derived(input);
        let is_known = known.is_some();
        let key = known.or_else(|| self.derive(input).map(Arc::new))?;
        key.open_in_place_separate_tag(nonce, Aad::from(data), tag, value).ok()?;
        // Only genuine values take the place of others.
        if !is_known {
            self.keep(*input, key);
        }
        Some(())
    }
}

/// Returns the input of the derivation, and the nonce of AES-256-GCM.
fn halves(nonce: &[u8; NONCE]) -> Option<(&Input, Nonce)> {
    let (input, nonce) = nonce.split_first_chunk()?;
    Some((input, Nonce::try_assume_unique_for_key(nonce).ok()?))
}
