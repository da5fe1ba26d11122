//! Allocations: a hit makes none, and corrupt bytes cause no large ones.

use std::collections::HashMap;
use std::panic;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use allocation_counter::measure;
use bytes::Bytes;
use vayu::backend::Serializer;
use vayu::{Bincode, Compressed, Json, MessagePack, Postcard, mem_cached};

#[mem_cached(ttl = "1h")]
fn number(n: u64) -> u64 {
    n * n
}

#[mem_cached(ttl = "1h")]
fn text_and_number(text: &str, n: u64) -> u64 {
    n + text.len() as u64
}

#[mem_cached(ttl = "1h")]
async fn number_async(n: u64) -> u64 {
    n * n
}

#[mem_cached(ttl = "1h")]
fn generic<T: serde::Serialize + Copy + Into<u64>>(n: T) -> u64 {
    n.into()
}

/// Polls once: a hit is ready immediately.
fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a hit does not wait"),
    }
}

#[test]
fn hit_allocates_nothing() {
    number(7);
    text_and_number("sixteen bytes !!", 7);
    ready(number_async(7));
    generic(7_u32);
    let counted = measure(|| {
        for _ in 0..100 {
            assert_eq!(number(7), 49);
            assert_eq!(text_and_number("sixteen bytes !!", 7), 23);
            assert_eq!(ready(number_async(7)), 49);
            assert_eq!(generic(7_u32), 7);
        }
    });
    assert_eq!(counted.count_total, 0);
}

#[mem_cached(ttl = "1h", prefix = format!("lengths of {kind}"))]
fn length(kind: &str, text: &str) -> usize {
    kind.len() + text.len()
}

#[mem_cached(ttl = "1h", prefix = format!("async lengths of {kind}"))]
async fn length_async(kind: &str, text: &str) -> usize {
    kind.len() + text.len()
}

fn failing() -> Duration {
    panic!("the ttl fails")
}

#[mem_cached(ttl = failing())]
fn without_ttl(text: &str) -> usize {
    text.len()
}

#[mem_cached(ttl = failing())]
async fn without_ttl_async(text: &str) -> usize {
    text.len()
}

#[mem_cached(ttl = "1h", each = texts)]
fn lengths(texts: &[String]) -> Vec<usize> {
    texts.iter().map(String::len).collect()
}

#[mem_cached(ttl = "1h", bypass_if = text.len() > 5)]
fn bypassed(text: &str) -> usize {
    text.len()
}

/// A key that does not fit into its variable, and a prefix that is made for the call.
#[test]
fn call_frees_the_memory_of_its_key() {
    let long = "x".repeat(1000);
    let texts = [long.clone(), long.clone(), "short".to_owned(), "y".repeat(500)];
    let call_all = || {
        assert_eq!(text_and_number(&long, 7), 1007);
        assert_eq!(length("texts", "short"), 10);
        assert_eq!(length("texts", &long), 1005);
        assert_eq!(lengths(&texts), [1000, 1000, 5, 500]);
        assert_eq!(ready(length_async("texts", "short")), 10);
        assert_eq!(ready(length_async("texts", &long)), 1005);
        assert_eq!(bypassed(&long), 1000);
    };
    call_all();
    let counted = measure(|| (0..100).for_each(|_| call_all()));
    assert!(counted.count_total > 0, "the keys are on the heap");
    assert_eq!((counted.count_current, counted.bytes_current), (0, 0));
}

#[test]
fn call_whose_ttl_panics_frees_the_memory_of_its_key() {
    let long = "x".repeat(1000);
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let call_all = || {
        assert!(panic::catch_unwind(|| without_ttl(&long)).is_err());
        assert!(panic::catch_unwind(|| ready(without_ttl_async(&long))).is_err());
    };
    call_all();
    let counted = measure(|| (0..100).for_each(|_| call_all()));
    panic::set_hook(hook);
    assert_eq!((counted.count_current, counted.bytes_current), (0, 0));
}

/// Returns the peak memory of the decoders for bytes that claim to be long.
fn memory_of<T: serde::Serialize + serde::de::DeserializeOwned + 'static>(bytes: &Bytes) -> u64 {
    let decoders: [fn(&Bytes) -> bool; 4] = [
        |bytes| Serializer::<T>::deserialize(&MessagePack, bytes).is_ok(),
        |bytes| Serializer::<T>::deserialize(&Json, bytes).is_ok(),
        |bytes| Serializer::<T>::deserialize(&Postcard, bytes).is_ok(),
        |bytes| Serializer::<T>::deserialize(&Bincode, bytes).is_ok(),
    ];
    let memory = |decode: &fn(&Bytes) -> bool| {
        measure(|| {
            std::hint::black_box(decode(bytes));
        })
        .bytes_max
    };
    decoders.iter().map(memory).max().expect("four decoders")
}

#[test]
fn hostile_bytes_cost_no_more_than_sixteen_mebibytes() {
    let mut hostile: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte; 100_000]).collect();
    for tag in [0xdc, 0xdd, 0xde, 0xdf, 0xda, 0xdb, 0xc5, 0xc6, 0xfb, 0xfc, 0xfd] {
        for fill in [0x7f, 0xff] {
            hostile.push([&[tag][..], &[fill; 16]].concat());
        }
    }
    for bytes in hostile {
        let bytes = Bytes::from(bytes);
        let most = [
            memory_of::<Vec<u8>>(&bytes),
            memory_of::<Vec<u64>>(&bytes),
            memory_of::<Vec<[u64; 32]>>(&bytes),
            memory_of::<String>(&bytes),
            memory_of::<HashMap<u64, String>>(&bytes),
            memory_of::<Vec<Vec<Vec<()>>>>(&bytes),
        ];
        assert!(most.iter().all(|&bytes| bytes <= 16 << 20), "{most:?} for {:02x?}", &bytes[..17]);
    }
}

#[test]
fn decompression_bomb_is_refused_before_memory_is_allocated() {
    // 20 MiB with a number in every 32 bytes.
    let mut value = vec![0_u8; 20 << 20];
    for (n, part) in value.chunks_mut(32).enumerate() {
        part[0] = (n * n).to_le_bytes()[1] & 0x7f;
        part[1] = n.wrapping_mul(0x9e37_79b9).to_le_bytes()[2] & 0x7f;
    }
    let zstd = Compressed::zstd(MessagePack);
    let stored = zstd.serialize(&value).expect("encode");
    assert!((1 << 19..10 << 20).contains(&stored.len()), "{}", stored.len());
    let longest = measure(|| {
        assert!(Serializer::<Vec<u8>>::deserialize(&zstd, &stored).is_ok());
    });
    assert!(longest.bytes_max < 41 << 20, "what is unpacked, and the value: {longest:?}");

    let lie = |stored: &Bytes, length: u32| {
        let mut stored = stored.to_vec();
        stored[3..7].copy_from_slice(&length.to_le_bytes());
        Bytes::from(stored)
    };
    // The bytes are longer than the entry says.
    let shorter = lie(&stored, 1 << 20);
    // The entry says that the bytes are longer than the limit.
    let longer = lie(&stored, u32::MAX);
    // The entry says that a few hundred bytes are 20 MiB.
    let zeros = zstd.serialize(&vec![0_u8; (1 << 20) - 16]).expect("encode");
    assert!(zeros.len() < 1 << 12, "{}", zeros.len());
    let dense = lie(&zeros, 20 << 20);
    // As short a block of LZ4 cannot be as long.
    let lz4 = Bytes::from([&[2, 1, 0][..], &(60_u32 << 20).to_le_bytes(), &[0xff; 1000]].concat());
    for (bomb, most) in [(shorter, 2 << 20), (longer, 1 << 16), (dense, 1 << 16), (lz4, 1 << 16)] {
        let counted = measure(|| {
            assert!(Serializer::<Vec<u8>>::deserialize(&zstd, &bomb).is_err());
        });
        assert!(counted.bytes_max <= most, "{counted:?}");
    }
}

#[test]
fn allocations_are_counted() {
    assert_eq!(measure(|| drop(std::hint::black_box(Box::new(7)))).count_total, 1);
}
