//! Both implementations return the same, and that of the specification.

use proptest::prelude::*;

use super::{NONCE, aws_lc, portable};

const NONCE_OF_VECTORS: &[u8; NONCE] = b"ABCDEFGHIJKLMNOPQRSTUVWX";

/// Encrypts a value with both implementations, whose results must be equal: the value, and the tag after it.
fn encrypt(secret: [u8; 32], nonce: &[u8; NONCE], data: &[u8], value: &[u8]) -> Vec<u8> {
    let [mut one, mut other] = [value.to_vec(), value.to_vec()];
    let tag = portable::Cipher::new(&secret).encrypt(nonce, data, &mut one).expect("encrypt");
    one.extend(tag);
    let tag = aws_lc::Cipher::new(&secret).encrypt(nonce, data, &mut other).expect("encrypt");
    other.extend(tag);
    assert_eq!(one, other);
    one
}

/// The two vectors of <https://c2sp.org/XAES-256-GCM>: the subkey is derived with and without a carry.
#[test]
fn vectors_of_the_specification() {
    let encrypted = encrypt([1; 32], NONCE_OF_VECTORS, b"", b"XAES-256-GCM");
    let expected = b"\xce\x54\x6e\xf6\x3c\x9c\xc6\x07\x65\x92\x36\x09\
        \xb3\x3a\x9a\x19\x74\xe9\x6e\x52\xda\xf2\xfc\xf7\x07\x5e\x22\x71";
    assert_eq!(encrypted, expected);
    let data = b"c2sp.org/XAES-256-GCM";
    let encrypted = encrypt([3; 32], NONCE_OF_VECTORS, data, b"XAES-256-GCM");
    let expected = b"\x98\x6e\xc1\x83\x25\x93\xdf\x54\x43\xa1\x79\x43\
        \x7f\xd0\x83\xbf\x3f\xdb\x41\xab\xd7\x40\xa2\x1f\x71\xeb\x76\x9d";
    assert_eq!(encrypted, expected);
}

proptest! {
    #[test]
    fn each_decrypts_what_the_other_has_encrypted(
        secret: [u8; 32],
        nonce: [u8; NONCE],
        data in proptest::collection::vec(any::<u8>(), 0..200),
        value in proptest::collection::vec(any::<u8>(), 0..2000),
        flipped in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut encrypted = encrypt(secret, &nonce, &data, &value);
        if let Some(at) = flipped {
            let at = at.index(encrypted.len());
            encrypted[at] ^= 1;
        }
        let (encrypted, tag) = encrypted.split_last_chunk().expect("a tag");
        let [mut one, mut other] = [encrypted.to_vec(), encrypted.to_vec()];
        let one = portable::Cipher::new(&secret).decrypt(&nonce, &data, &mut one, tag).map(|()| one);
        let other = aws_lc::Cipher::new(&secret).decrypt(&nonce, &data, &mut other, tag).map(|()| other);
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(one, flipped.is_none().then_some(value));
    }
}

/// The key of a value is kept after it was decrypted. It decrypts that value again, and no other.
#[test]
fn value_is_decrypted_again() {
    let (nonce, value) = (NONCE_OF_VECTORS, b"XAES-256-GCM");
    let encrypted = encrypt([1; 32], nonce, b"data", value);
    let cipher = aws_lc::Cipher::new(&[1; 32]);
    let decrypt = |nonce: &[u8; NONCE], data: &[u8], encrypted: &[u8]| {
        let (encrypted, tag) = encrypted.split_last_chunk().expect("a tag");
        let mut decrypted = encrypted.to_vec();
        cipher.decrypt(nonce, data, &mut decrypted, tag).map(|()| decrypted)
    };
    for _ in 0..3 {
        assert_eq!(decrypt(nonce, b"data", &encrypted).as_deref(), Some(&value[..]));
        assert_eq!(decrypt(nonce, b"Data", &encrypted), None);
        for at in 0..NONCE {
            let mut other = *nonce;
            other[at] ^= 1;
            assert_eq!(decrypt(&other, b"data", &encrypted), None);
        }
        for at in 0..encrypted.len() {
            let mut changed = encrypted.clone();
            changed[at] ^= 1;
            assert_eq!(decrypt(nonce, b"data", &changed), None);
        }
    }
}
