//! The stored form of compressed values: a header, and the compressed or plain bytes.
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 1 | method: 0 plain, 1 Zstandard, 2 LZ4 block |
//! | 1 | 2 | id of the inner serializer |
//! | 3 | 4 | length before compression, unless the method is 0 |

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::serializer::SerializerId;

/// An algorithm, to compress with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Method {
    #[cfg(feature = "zstd")]
    Zstd(i32),
    #[cfg(feature = "lz4")]
    Lz4,
}

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
const LZ4: u8 = 2;

/// The lengths of the header of a plain value and of a compressed one.
const PLAIN_HEADER: usize = 3;
const HEADER: usize = 7;

/// The length below which values are not compressed.
const MIN_LENGTH: usize = 256;

/// The limit of the length of a value before compression where the backend has none.
const DEFAULT_LIMIT: u64 = 64 << 20;

/// A value is up to this many times as long as its compressed form, or up to this length: so the stored bytes bound what
/// a decoder reads. Few values that are not made for it compress better.
const MAX_RATIO: u64 = 64;
const ALWAYS_ALLOWED: u64 = 1 << 20;

/// The most bytes that one byte of an LZ4 block can stand for.
#[cfg(feature = "lz4")]
const LZ4_MAX_RATIO: usize = 255;

/// Returns the stored form of a value.
pub(super) fn pack(
    plain: &[u8],
    serializer: SerializerId,
    method: Method,
    limit: Option<u64>,
) -> Bytes {
    if plain.len() >= MIN_LENGTH && plain.len() as u64 <= bound(limit) {
        let (method, compressed) = compress(plain, method);
        let max_length = plain.len() - plain.len() / 8;
        let is_short = |it: &Vec<u8>| it.len() + HEADER <= max_length;
        let is_bounded = |it: &Vec<u8>| plain.len() as u64 <= max_unpacked(it.len());
        if let Some(compressed) = compressed.filter(|it| is_short(it) && is_bounded(it))
            && let Ok(length) = u32::try_from(plain.len())
        {
            let length = length.to_le_bytes();
            return framed(method, serializer, &[&length, &compressed]);
        }
    }
    framed(PLAIN, serializer, &[plain])
}

fn framed(method: u8, serializer: SerializerId, parts: &[&[u8]]) -> Bytes {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(PLAIN_HEADER + length);
    bytes.push(method);
    bytes.extend_from_slice(&serializer.as_u16().to_le_bytes());
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes.into()
}

fn compress(plain: &[u8], method: Method) -> (u8, Option<Vec<u8>>) {
    match method {
        #[cfg(feature = "zstd")]
        Method::Zstd(level) => {
            let levels = zstd::compression_level_range();
            let level = level.clamp(*levels.start(), *levels.end());
            (ZSTD, zstd::bulk::compress(plain, level).ok())
        }
        #[cfg(feature = "lz4")]
        Method::Lz4 => (LZ4, Some(lz4_flex::block::compress(plain))),
    }
}

/// Returns the value of a stored form whose inner serializer is this one.
///
/// # Errors
///
/// Those of [`unpack`]; [`ErrorKind::Decode`] for a value of another serializer.
pub(super) fn unpack_as(
    stored: &Bytes,
    serializer: SerializerId,
    limit: Option<u64>,
) -> Result<Bytes> {
    match unpack(stored, limit)? {
        (inner, plain) if inner == serializer => Ok(plain),
        _ => Err(error("the compressed value was encoded by another serializer")),
    }
}

/// Returns the id of the inner serializer and the value of a stored form.
///
/// # Errors
///
/// [`ErrorKind::Decode`] for what is not a compressed value, is longer than the limit, or was compressed
/// by an algorithm whose feature is not enabled.
pub(super) fn unpack(stored: &Bytes, limit: Option<u64>) -> Result<(SerializerId, Bytes)> {
    let Some((&[method, low, high], rest)) = stored.split_first_chunk::<PLAIN_HEADER>() else {
        return Err(error("a compressed value ends early"));
    };
    let serializer = SerializerId::from_u16(u16::from_le_bytes([low, high]));
    if method == PLAIN {
        return Ok((serializer, stored.slice(PLAIN_HEADER..)));
    }
    let Some((&length, compressed)) = rest.split_first_chunk() else {
        return Err(error("a compressed value ends early"));
    };
    let length = u32::from_le_bytes(length);
    if u64::from(length) > bound(limit) {
        return Err(error("a compressed value exceeds the limit on entries"));
    }
    if u64::from(length) > max_unpacked(compressed.len()) {
        return Err(error("a compressed value is too long for its compressed form"));
    }
    let length = usize::try_from(length).map_err(|_| error("a compressed value is too long"))?;
    Ok((serializer, decompress(method, compressed, length)?.into()))
}

/// Decompresses bytes to exactly `length` bytes, and allocates no more.
fn decompress(method: u8, compressed: &[u8], length: usize) -> Result<Vec<u8>> {
    let corrupt = || error("a compressed value is corrupt");
    let plain = match method {
        #[cfg(feature = "zstd")]
        ZSTD => zstd_decompressed(compressed, length),
        #[cfg(not(feature = "zstd"))]
        ZSTD => return Err(error("values compressed with Zstandard need the feature `zstd`")),
        #[cfg(feature = "lz4")]
        LZ4 if length / LZ4_MAX_RATIO > compressed.len() => None,
        #[cfg(feature = "lz4")]
        LZ4 => {
            let mut plain = reserved(length).ok_or_else(corrupt)?;
            plain.resize(length, 0);
            (lz4_decompressed(compressed, &mut plain) == Some(length)).then_some(plain)
        }
        #[cfg(not(feature = "lz4"))]
        LZ4 => return Err(error("values compressed with LZ4 need the feature `lz4`")),
        _ => return Err(error("a value is compressed by an unknown algorithm")),
    };
    plain.ok_or_else(corrupt)
}

/// Decompresses an LZ4 block. Returns the number of bytes that were written.
///
/// As a part of its caller the decoder calls a function for each copy of a few bytes, and takes twice as long.
#[cfg(feature = "lz4")]
#[inline(never)]
fn lz4_decompressed(compressed: &[u8], plain: &mut [u8]) -> Option<usize> {
    lz4_flex::block::decompress_into(compressed, plain).ok()
}

#[cfg(feature = "zstd")]
fn zstd_decompressed(compressed: &[u8], length: usize) -> Option<Vec<u8>> {
    use std::cell::RefCell;

    use zstd::bulk::Decompressor;

    thread_local! {
        /// A context is 160 KiB, and creating one takes longer than a short value.
        static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    }
    let claimed = zstd::zstd_safe::get_frame_content_size(compressed).ok().flatten();
    if claimed != Some(length as u64) {
        return None;
    }
    let mut plain = reserved(length)?;
    let decompress = |decompressor: &mut Decompressor<'_>, plain: &mut Vec<u8>| {
        decompressor.decompress_to_buffer(compressed, plain).ok()
    };
    let written = DECOMPRESSOR.try_with(|kept| {
        let kept = &mut *kept.borrow_mut();
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(Decompressor::new().ok()?),
        };
        decompress(decompressor, &mut plain)
    });
    let written = match written {
        Ok(written) => written?,
        // The thread ends.
        Err(_) => decompress(&mut Decompressor::new().ok()?, &mut plain)?,
    };
    (written == length).then_some(plain)
}

/// Returns a buffer of this capacity, or `None` if there is not enough memory.
#[cfg(any(feature = "lz4", feature = "zstd"))]
fn reserved(length: usize) -> Option<Vec<u8>> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(length).ok()?;
    Some(buffer)
}

/// Returns the limit of the length of a value whose compressed form has this length.
fn max_unpacked(compressed: usize) -> u64 {
    (compressed as u64).saturating_mul(MAX_RATIO).max(ALWAYS_ALLOWED)
}

fn bound(limit: Option<u64>) -> u64 {
    limit.unwrap_or(DEFAULT_LIMIT)
}

fn error(message: &'static str) -> Error {
    Error::new(ErrorKind::Decode, message)
}
