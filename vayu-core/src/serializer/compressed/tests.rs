use std::collections::BTreeMap;
use std::fmt::Debug;

use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;
use crate::error::ErrorKind;
use crate::key::Key;
use crate::record::Record;
use crate::serializer::{Json, MessagePack};

/// A value that every algorithm makes shorter.
fn page() -> String {
    "<p>A paragraph of a page.</p>\n".repeat(40)
}

/// A value that no algorithm makes shorter.
fn noise(length: usize) -> Bytes {
    let mut state = 1_u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_le_bytes()[7]
    };
    (0..length).map(next).collect()
}

fn limited<T>(run: impl FnOnce(&EntryContext<'_>) -> T, max_entry_bytes: u64) -> T {
    let key = Key::from_text("pages", "index");
    let record = Record::new((), Timestamp::from_micros(1), Timestamp::from_micros(2));
    run(&EntryContext::new(&key, &record).with_max_entry_bytes(Some(max_entry_bytes)))
}

fn assert_refused<T: Debug>(result: Result<T>, reason: &str) {
    let error = result.expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert!(error.to_string().contains(reason), "{error}");
}

#[test]
fn values_come_back_and_take_less_space() {
    let plain = MessagePack.serialize(&page()).expect("encode");
    for compressed in [
        Compressed::zstd(MessagePack),
        Compressed::zstd_with_level(-5, MessagePack),
        Compressed::zstd_with_level(i32::MAX, MessagePack),
        Compressed::lz4(MessagePack),
    ] {
        let stored = compressed.serialize(&page()).expect("encode");
        assert!(stored.len() < plain.len() / 4, "{} of {} bytes", stored.len(), plain.len());
        let back: Result<String> = compressed.deserialize(&stored);
        assert_eq!(back.ok(), Some(page()));
    }
}

#[test]
fn each_algorithm_reads_the_values_of_the_other() {
    let [zstd, lz4] = [Compressed::zstd(MessagePack), Compressed::lz4(MessagePack)];
    for (writer, reader) in [(zstd, lz4), (lz4, zstd)] {
        let stored = writer.serialize(&page()).expect("encode");
        let back: Result<String> = reader.deserialize(&stored);
        assert_eq!(back.ok(), Some(page()));
    }
}

#[test]
fn short_and_incompressible_values_stay_as_they_are() {
    for value in [Bytes::from_static(b"short"), vec![7; 252].into(), noise(1 << 10)] {
        let plain = MessagePack.serialize(&value).expect("encode");
        for compressed in [Compressed::zstd(MessagePack), Compressed::lz4(MessagePack)] {
            let stored = compressed.serialize(&value).expect("encode");
            assert_eq!(stored, [&[0, 1, 0], &plain[..]].concat());
            let back: Bytes = compressed.deserialize(&stored).expect("decode");
            assert_eq!(back, value);
            assert!(stored.as_ptr_range().contains(&back.as_ptr()), "it was copied");
        }
    }
    // One byte more is long enough to be compressed.
    let stored =
        Compressed::lz4(MessagePack).serialize(&Bytes::from(vec![7; 254])).expect("encode");
    assert_eq!(stored[0], 2);
}

#[test]
fn value_of_another_serializer_is_never_returned() {
    let stored = Compressed::lz4(Json).serialize(&page()).expect("encode");
    let result: Result<String> = Compressed::lz4(MessagePack).deserialize(&stored);
    assert_refused(result, "another serializer");
    let twice = Compressed::lz4(Compressed::lz4(MessagePack)).serialize(&page()).expect("encode");
    let result: Result<String> = Compressed::lz4(MessagePack).deserialize(&twice);
    assert_refused(result, "another serializer");

    let id = |serializer: &dyn Serializer<u8, Stored = Bytes>| serializer.id().as_u16();
    assert_eq!(id(&Compressed::lz4(MessagePack)), 0x0101);
    assert_eq!(id(&Compressed::zstd(MessagePack)), 0x0101);
    assert_eq!(id(&Compressed::zstd(Json)), 0x0102);
    assert_eq!(SerializerId::user(1).wrapped(SerializerId::COMPRESSED).as_u16(), 0x01ff);
}

#[test]
fn value_beyond_the_limit_on_entries_is_stored_plain_and_refused_compressed() {
    let compressed = Compressed::zstd(MessagePack);
    let length = MessagePack.serialize(&page()).expect("encode").len() as u64;
    let stored = limited(|entry| compressed.serialize_for(&page(), entry), length);
    let stored = stored.expect("encode");
    let read = |limit| -> Result<String> {
        limited(|entry| compressed.deserialize_for(&stored, entry), limit)
    };
    assert_eq!(read(length).ok(), Some(page()));
    assert_refused(read(length - 1), "exceeds the limit on entries");
    let plain = limited(|entry| compressed.serialize_for(&page(), entry), length - 1);
    assert_eq!(plain.expect("encode")[0], 0);
}

/// Nulls of 64 MiB are gigabytes as a `Vec<Option<[u64; 16]>>`.
#[test]
fn value_is_not_much_longer_than_its_compressed_form() {
    let nulls = vec![0xc0; 8 << 20];
    let length = u32::try_from(nulls.len()).expect("a length").to_le_bytes();
    let compressed = zstd::bulk::compress(&nulls, 3).expect("compress");
    let bomb = [&[1, 1, 0][..], &length, &compressed].concat();
    assert!(bomb.len() < 2_000);
    let refused = frame::unpack(&bomb.into(), None);
    assert_refused(refused, "too long for its compressed form");
    for method in [Method::Zstd(3), Method::Lz4] {
        for length in [1 << 10, 1 << 20, 2 << 20] {
            let stored = frame::pack(&nulls[..length], SerializerId::MESSAGE_PACK, method, None);
            assert_eq!(stored[0] != 0, length <= 1 << 20, "{method:?} {length}");
            let (_, plain) = frame::unpack(&stored, None).expect("unpack");
            assert_eq!(plain, nulls[..length]);
        }
    }
}

/// Zstandard would decompress both frames, of which the first one does not have the stated length.
#[test]
fn frame_of_another_length_than_stated_is_refused() {
    let part = zstd::bulk::compress(&[7; 500], 3).expect("compress");
    let stored = |length: u32, frames: &[&[u8]]| -> Bytes {
        [&[1, 1, 0][..], &length.to_le_bytes(), &frames.concat()].concat().into()
    };
    let (_, plain) = frame::unpack(&stored(500, &[&part]), None).expect("unpack");
    assert_eq!(plain, [7; 500][..]);
    for (length, frames) in [(1000, &[&part[..], &part][..]), (501, &[&part]), (499, &[&part])] {
        assert_refused(frame::unpack(&stored(length, frames), None), "corrupt");
    }
}

#[test]
fn golden_values_are_read() {
    let golden: [(&[u8], String); 3] = [
        (b"\x00\x01\x00\xa5short", "short".to_owned()),
        (
            b"\x01\x01\x00\xb3\x04\x00\x00\x28\xb5\x2f\xfd\x60\xb3\x03\x55\x01\x00\x14\x02\xda\x04\xb0\
              <p>A paragraph of a page.</p>\n\x01\x00y$\xfc\xea\t",
            page(),
        ),
        (
            b"\x02\x01\x00\xb3\x04\x00\x00\xff\x12\xda\x04\xb0<p>A paragraph of a page.</p>\n\
              \x1e\x00\xff\xff\xff\xff}`.</p>\n",
            page(),
        ),
    ];
    for (stored, value) in golden {
        let stored = Bytes::from_static(stored);
        assert_eq!(Compressed::lz4(MessagePack).deserialize(&stored).ok(), Some(value));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_value_comes_back(
        value in proptest::collection::btree_map(".{0,8}", proptest::collection::vec(0_u8..4, 0..600), 0..4)
    ) {
        for compressed in [Compressed::zstd(MessagePack), Compressed::lz4(MessagePack)] {
            let stored = compressed.serialize(&value).expect("encode");
            let back: BTreeMap<String, Vec<u8>> = compressed.deserialize(&stored).expect("decode");
            prop_assert_eq!(&back, &value);
        }
    }

    #[test]
    fn corrupt_bytes_are_an_error_or_a_value_of_the_stated_length(
        method in 0_u8..4,
        length in 0_u32..400,
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let header = |method| [&[method, 1, 0][..], &length.to_le_bytes()].concat();
        if let Ok((_, plain)) = frame::unpack(&[&header(method)[..], &bytes].concat().into(), None)
            && method != 0
        {
            prop_assert_eq!(plain.len(), length as usize);
        }
        // What can be decompressed has one length.
        let plain = [&bytes[..], &bytes].concat();
        let compressed =
            [(1, zstd::bulk::compress(&plain, 3).expect("compress")), (2, lz4_flex::block::compress(&plain))];
        for (method, compressed) in compressed {
            let unpacked = frame::unpack(&[&header(method)[..], &compressed].concat().into(), None);
            prop_assert_eq!(unpacked.is_ok(), length as usize == plain.len());
        }
    }

    #[test]
    fn changed_byte_is_an_error_or_another_value(at in 0_usize..10_000, byte: u8) {
        for compressed in [Compressed::zstd(MessagePack), Compressed::lz4(MessagePack)] {
            let mut stored = compressed.serialize(&page()).expect("encode").to_vec();
            let at = at % stored.len();
            stored[at] = byte;
            for end in [at, stored.len()] {
                let stored = Bytes::copy_from_slice(&stored[..end]);
                if let Ok((_, plain)) = frame::unpack(&stored, None)
                    && stored[0] != 0
                {
                    let length = stored[3..7].try_into().expect("a length");
                    prop_assert_eq!(plain.len(), u32::from_le_bytes(length) as usize);
                }
                let _: Result<String> = compressed.deserialize(&stored);
            }
        }
    }
}
