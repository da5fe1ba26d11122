//! Tests of the round trip of entries, and of the rejection of corrupt ones.
#![expect(clippy::cast_possible_truncation, reason = "bytes of all values are wanted")]

use std::time::Duration;

use super::*;
use crate::{SerializerId, Timestamp};

fn record(value: impl Into<Bytes>) -> Record<Bytes> {
    let created = Timestamp::from_micros(1_700_000_000_000_000);
    let expires = created.saturating_add(Duration::from_secs(60));
    Record::new(value.into(), created, expires)
        .with_stale_until(expires.saturating_add(Duration::from_secs(5)))
        .with_schema(0x0123_4567_89ab_cdef)
        .with_serializer(SerializerId::MESSAGE_PACK)
}

/// Returns keys and values of all kinds and lengths, the same in every run.
fn samples(count: usize) -> impl Iterator<Item = (Key, WireKey, Record<Bytes>)> {
    (0..count).map(|n| {
        let value: Vec<u8> = (0..n * 3 % 97).map(|at| (at * 31 + n) as u8).collect();
        let key = match n % 3 {
            0 => Key::from_text("text", "k".repeat(n % 41)),
            1 => Key::new("arguments", &(n, "text", [0.5, -0.0])).expect("a key"),
            _ => Key::from_text(format!("prefix {n}"), "\0/../é"),
        };
        let record = record(value);
        let record = if n % 7 == 0 {
            Record::new(record.into_value(), Timestamp::from_micros(-1), Timestamp::NEVER)
        } else {
            record
        };
        (key.clone(), WireKey::new(&key), record)
    })
}

/// Returns the number of entries that are damaged in every way, from `VAYU_ENTRIES` if it is set.
fn entries() -> usize {
    match std::env::var("VAYU_ENTRIES") {
        Ok(entries) => entries.parse().expect("VAYU_ENTRIES is a number"),
        Err(_) if cfg!(miri) => 2,
        Err(_) => 100,
    }
}

/// Changes the bytes of an entry and corrects both checksums.
fn resealed(mut bytes: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut bytes);
    let mut header = crc32fast::Hasher::new();
    header.update(&bytes[..44]);
    header.update(&bytes[48..64]);
    bytes[44..48].copy_from_slice(&header.finalize().to_le_bytes());
    let checksum = checksum(&bytes);
    bytes[CHECKSUM].copy_from_slice(&checksum);
    bytes
}

fn text_key(text: &str) -> WireKey {
    WireKey::new(&Key::from_text("p", text))
}

fn defect(bytes: &[u8]) -> Option<ParseError> {
    EncodedEntry::parse(bytes).err()
}

#[test]
fn record_is_decoded_as_it_was_encoded() {
    for (key, wire_key, written) in samples(200) {
        let bytes = encode(&wire_key, &written);
        let entry = EncodedEntry::parse(&bytes).expect("an entry");
        assert!(entry.is_of(&wire_key));
        assert_eq!(&bytes[entry.value_range()], &written.value()[..]);
        assert_eq!(entry.record(written.value().clone()), written);
        assert_eq!(entry.function(), Some(key.prefix().as_str()));
        assert_eq!(entry.key_text(), Some(key.to_string()));
    }
}

#[test]
fn every_flipped_bit_is_detected() {
    for (_, key, record) in samples(entries()) {
        let bytes = encode(&key, &record);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(defect(&flipped).is_some(), "bit {bit}");
            assert_eq!(decode(&key, &flipped), None, "bit {bit}");
        }
    }
}

/// The seal is verified with the key of the seal: what it covers is decoded as it is stored.
#[test]
fn every_flipped_bit_before_a_sealed_value_is_detected() {
    let sealed = SerializerId::from_u16(0x0201);
    assert!(sealed.is_sealed());
    for (_, key, record) in samples(entries()) {
        let record = record.with_serializer(sealed);
        let bytes = encode_labelled(&key, &record, Some("label"));
        let entry = EncodedEntry::parse(&bytes).expect("an entry");
        let (value, key_start) = (entry.value_range(), entry.header.length());
        for bit in 0..bytes.len() * 8 {
            let (at, mut flipped) = (bit / 8, bytes.clone());
            flipped[at] ^= 1 << (bit % 8);
            assert!(defect(&flipped).is_some(), "bit {bit}");
            // No lookup uses the label.
            let is_label = (HEADER_LENGTH..key_start).contains(&at);
            let is_decoded = CHECKSUM.contains(&at) || is_label || value.contains(&at);
            let expected = is_decoded.then(|| record.clone().map(|_| value.clone()));
            assert_eq!(decode(&key, &flipped), expected, "bit {bit}");
        }
    }
}

#[test]
fn every_other_length_is_detected() {
    for (_, key, record) in samples(entries()) {
        let bytes = encode(&key, &record);
        for length in 0..bytes.len() {
            assert!(defect(&bytes[..length]).is_some(), "length {length}");
            assert_eq!(decode(&key, &bytes[..length]), None, "length {length}");
        }
        for surplus in [&b"\0"[..], b"garbage", &bytes] {
            assert_eq!(defect(&[&bytes, surplus].concat()), Some(ParseError::LengthMismatch));
        }
    }
}

#[test]
fn header_that_claims_more_bytes_than_there_are_is_rejected() {
    let bytes = encode(&text_key("k"), &record("value"));
    for length in [0, 4, 6, 1 << 40, i64::MAX as u64, u64::MAX - 80, u64::MAX] {
        let claim = resealed(bytes.clone(), |bytes| {
            bytes[32..40].copy_from_slice(&length.to_le_bytes());
        });
        assert_eq!(defect(&claim), Some(ParseError::LengthMismatch), "{length}");
    }
    for length in [0, u32::MAX] {
        let claim = resealed(bytes.clone(), |bytes| {
            bytes[40..44].copy_from_slice(&length.to_le_bytes());
        });
        assert_eq!(defect(&claim), Some(ParseError::LengthMismatch), "{length}");
    }
}

#[test]
fn later_minor_version_is_read_and_a_major_one_is_not() {
    let key = text_key("k");
    let bytes = encode(&key, &record("value"));
    let longer = resealed(bytes.clone(), |bytes| {
        bytes[9] = 11;
        bytes.splice(80..80, *b"new bits");
    });
    let entry = EncodedEntry::parse(&longer).expect("a longer header is skipped");
    assert!(entry.is_of(&key));
    assert_eq!(entry.value(), b"value");
    for bit in 80 * 8..88 * 8 {
        let mut flipped = longer.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            defect(&flipped),
            Some(ParseError::ChecksumMismatch),
            "the surplus is covered as well"
        );
    }

    let ignorable = resealed(bytes.clone(), |bytes| bytes[10] = 0xff);
    assert_eq!(defect(&ignorable), None);
    let unknown = resealed(bytes.clone(), |bytes| bytes[11] = 0x01);
    assert_eq!(defect(&unknown), Some(ParseError::UnknownFlags));
    let major = resealed(bytes.clone(), |bytes| bytes[8] = 2);
    assert_eq!(defect(&major), Some(ParseError::UnsupportedVersion));
    let shorter = resealed(bytes, |bytes| bytes[9] = 9);
    assert_eq!(defect(&shorter), Some(ParseError::CorruptHeader));
}

#[test]
fn key_that_is_too_long_is_kept_as_its_function_and_digest() {
    let long = "k".repeat(LONGEST_KEY);
    let (key, other) = (text_key(&(long.clone() + "a")), text_key(&(long + "b")));
    let bytes = encode(&key, &record("value"));
    assert!(bytes.len() < 200);
    let entry = EncodedEntry::parse(&bytes).expect("an entry");
    assert!(entry.is_of(&key) && !entry.is_of(&other));
    let digest = key.digest().map(|byte| format!("{byte:02x}")).concat();
    assert_eq!((entry.function(), entry.key_text()), (Some("p"), Some(format!("p:{digest}"))));
    assert_eq!(
        (entry.key_digest(), entry.call(256)),
        (Some(*key.digest()), Some("p(…)".to_owned()))
    );

    // In entries of earlier versions the digest is all that is stored.
    let earlier = resealed(bytes, |bytes| {
        let prefix = key.prefix_length + 1;
        bytes[11] = 0x04;
        bytes[40..44].copy_from_slice(&32_u32.to_le_bytes());
        bytes.drain(80..80 + prefix);
    });
    let entry = EncodedEntry::parse(&earlier).expect("an entry");
    assert!(entry.is_of(&key) && !entry.is_of(&other));
    assert_eq!((entry.function(), entry.key_text(), entry.call(256)), (None, None, None));
    assert_eq!(entry.key_digest(), Some(*key.digest()));
}

#[test]
fn key_with_a_long_prefix_is_kept_as_its_digest_alone() {
    let key = |text: &str| WireKey::new(&Key::from_text("p".repeat(LONGEST_KEY + 1), text));
    for encode in [encode, encode_hashed] {
        let bytes = encode(&key("a"), &record("value"));
        assert!(bytes.len() < 200);
        let entry = EncodedEntry::parse(&bytes).expect("an entry");
        assert!(entry.is_of(&key("a")) && !entry.is_of(&key("b")));
        assert_eq!((entry.function(), entry.key_digest()), (None, Some(*key("a").digest())));
    }
}

#[test]
fn entry_without_arguments_is_that_of_its_key_and_of_no_other() {
    let secret = |word: &str| Key::new("login", &("alice", word)).expect("a key");
    let [key, other] = ["hunter2", "hunter3"].map(|word| WireKey::new(&secret(word)));
    let bytes = encode_hashed(&key, &record("value"));
    assert!(!bytes.windows(5).any(|bytes| bytes == b"alice"), "no argument is written");
    let entry = EncodedEntry::parse(&bytes).expect("an entry");
    assert!(entry.is_of(&key) && !entry.is_of(&other));
    assert!(!entry.is_of(&WireKey::new(&Key::from_text("other", "hunter2"))));
    assert_eq!((entry.function(), entry.value()), (Some("login"), &b"value"[..]));
    assert_eq!(entry.key_text(), Some(secret("hunter2").to_string()));
    assert_eq!(entry.call(256).as_deref(), Some("login(…)"));
    // The same digest after another prefix is another key.
    let moved = resealed(bytes, |bytes| bytes[80 + 9] ^= 1);
    assert!(!EncodedEntry::parse(&moved).expect("an entry").is_of(&key));
}

#[test]
fn label_is_read_and_earlier_readers_skip_it() {
    let key = WireKey::new(&Key::new("rates", &("EUR", 7)).expect("a key"));
    for length in [0, 1, 6, 7, 8, 200, 201] {
        let label = "l".repeat(length);
        let bytes = encode_labelled(&key, &record("value"), Some(&label));
        let label = &label[..length.min(200)];
        let entry = EncodedEntry::parse(&bytes).expect("an entry");
        assert!(entry.is_of(&key));
        assert_eq!((entry.label(), entry.value()), (Some(label), &b"value"[..]));
        assert_eq!(entry.call(256), Some(format!("rates [{label}]")));
        // Without the flag the label is the extension of a later minor version, as it is for an earlier
        // reader.
        let unknown = resealed(bytes, |bytes| bytes[10] = 0);
        let entry = EncodedEntry::parse(&unknown).expect("an entry");
        assert!(entry.is_of(&key));
        assert_eq!((entry.label(), entry.value()), (None, &b"value"[..]));
        assert_eq!(entry.call(256).as_deref(), Some(r#"rates("EUR", 7)"#));
    }
}

#[test]
fn label_that_is_longer_than_the_header_is_none() {
    let key = text_key("k");
    let bytes = encode_labelled(&key, &record("value"), Some("label"));
    for (length, label) in [(5, Some("label")), (7, Some("label\0\0")), (8, None), (255, None)] {
        let claim = resealed(bytes.clone(), |bytes| bytes[80] = length);
        assert_eq!(EncodedEntry::parse(&claim).expect("an entry").label(), label);
    }
    let text = resealed(bytes.clone(), |bytes| bytes[81] = 0xff);
    assert_eq!(EncodedEntry::parse(&text).expect("an entry").label(), None);
    // The flag without room for a label.
    let flag = resealed(encode(&key, &record("value")), |bytes| bytes[10] = 1);
    assert_eq!(EncodedEntry::parse(&flag).expect("an entry").label(), None);
    for bit in 80 * 8..88 * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(defect(&flipped), Some(ParseError::ChecksumMismatch), "bit {bit}");
    }
}

#[test]
fn bytes_of_another_kind_are_not_an_entry() {
    assert_eq!(defect(b""), Some(ParseError::TooShort));
    assert_eq!(defect(&[0; 80]), Some(ParseError::BadMagic));
    assert_eq!(defect("#!/bin/sh\n".repeat(10).as_bytes()), Some(ParseError::BadMagic));
}

#[test]
fn record_is_decoded_for_its_key_alone_and_only_if_it_is_intact() {
    let [key, other] = ["EUR", "USD"].map(|text| Key::from_text("rates", text));
    let at = Timestamp::from_micros;
    let record = Record::new(Bytes::from_static(b"1.1"), at(1), at(2)).with_stale_until(at(3));
    let bytes = Bytes::from(record.encode(&key));
    assert_eq!(Record::decode(&key, &bytes), Some(record));
    assert_eq!(Record::decode(&other, &bytes), None);
    for damaged in [&b""[..], &bytes[..bytes.len() - 1], &[&bytes[..], b"x"].concat()] {
        assert_eq!(Record::decode(&key, &Bytes::copy_from_slice(damaged)), None);
    }
}

#[test]
fn string_key_is_found_by_how_it_is_displayed() {
    let function = Key::from_text(crate::key::Prefix::of_body::<u8>(), "a:b");
    for key in [
        function.clone(),
        function.with_version(7),
        Key::from_text("p", "k"),
        Key::from_text("a::p", "k:l::m"),
        Key::from_text("p", "").with_version("\u{e9}"),
        Key::from_text("p@q", "k").with_version(-2),
    ] {
        let candidates = WireKey::of_displayed_text(&key.to_string());
        let wanted = key.digest();
        assert!(candidates.iter().any(|candidate| *candidate.digest() == wanted), "{key}");
    }
    assert!(WireKey::of_displayed_text("no colon").is_empty());
    assert!(WireKey::of_displayed_text(&":".repeat(100_000)).len() <= 256);
}

/// Compares with the bytes of a little-endian machine of 64 bits. `.ci/miri big-endian` runs this on a big-endian one.
#[cfg(feature = "message-pack")]
#[test]
fn bytes_of_an_entry_are_the_same_on_every_machine() {
    use std::collections::{BTreeMap, BTreeSet};

    use crate::{MessagePack, Serializer};

    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |digits, byte| format!("{digits}{byte:02x}"))
    };
    let map = BTreeMap::from([("b", 1_u16), ("a", 0x0203)]);
    let set = BTreeSet::from([0x0405_0607_u32, 8]);
    let integers =
        (0x09_u8, -7_i16, 0x0a0b_0c0d_u32, i64::MIN, 0x0e0f_1011_1213_1415_u128, 3_usize);
    let arguments = (integers, 0.5_f32, -0.0_f64, 'é', "text", [0x1617_u16; 4], Some(()), map, set);
    let key = WireKey::new(&Key::new("golden", &arguments).expect("a key").with_version("2"));
    let value = vec![("é".to_owned(), 1.5_f64, i64::MIN), (String::new(), -0.0, 0x1819_1a1b)];
    let value = MessagePack.serialize(&value).expect("a value");
    assert_eq!(
        hex(key.digest()),
        "704ebfe98c6da3bae642693ec1ceadba4873b430cc7d45580595fdf964ab255a"
    );
    let bytes = encode_labelled(&key, &record(value), Some("label"));
    assert_eq!(
        hex(&bytes),
        "895659550d0a1a0a010b01000100000000401e18240a060000c7b11b240a060027000000000000008d0000003879c27b\
         efcdab8967452301404b4c00000000009c0f8eacc2302c6ada1fe5cdf92b5326056c6162656c00000206000000000000\
         00676f6c64656e56027332410202090905f9ff0b0d0c0b0a0700000000000000800d1514131211100f0e000000000000\
         00000c0300000000000000000e0000003f0f000000000000008010e9000000110474657874020a17160a17160a17160a\
         17160014011c201101610a0302201101620a010000198b02000000080000000706050400009293a2c3a9cb3ff8000000\
         000000d3800000000000000093a0cb8000000000000000ce18191a1b"
    );
}

#[test]
fn checksum_at_once_is_that_of_parts() {
    for length in HEADER_LENGTH..600 {
        let bytes: Vec<u8> = (0..length).map(|at| (at * 31) as u8).collect();
        let mut hasher = RawHasher::new(SecretBuffer::default());
        hasher.write(&bytes[..CHECKSUM.start]);
        hasher.write(&bytes[CHECKSUM.end..]);
        assert_eq!(checksum(&bytes), hasher.finish_128().to_le_bytes(), "{length}");
    }
}

#[test]
fn keys_in_one_allocation_are_those_in_their_own() {
    let keys: Vec<Key> = samples(50).map(|(key, ..)| key).collect();
    let all = WireKey::of_all(&keys.iter().collect::<Vec<_>>());
    assert_eq!(all.len(), keys.len());
    for (one, key) in all.iter().zip(&keys) {
        let own = WireKey::new(key);
        assert_eq!((&*one.bytes, one.digest), (&*own.bytes, own.digest));
        assert_eq!(one.prefix(), own.prefix());
    }
    assert!(WireKey::of_all(&[]).is_empty());
}
