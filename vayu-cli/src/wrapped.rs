//! Values that are compressed or sealed.

use bytes::Bytes;
#[cfg(any(feature = "lz4", feature = "seal", feature = "zstd"))]
use vayu_core::__internal::{Layer, unwrap_value, with_causes};
#[cfg(any(feature = "lz4", feature = "seal", feature = "zstd"))]
use vayu_core::EntryContext;
#[cfg(feature = "seal")]
pub(crate) use vayu_core::SealKeys as Keys;
use vayu_core::wire::EntryDetails;
use vayu_core::{Error, ErrorKind, Result, SerializerId};

use crate::args::Show;

/// The keys of sealed values, of which there are none without the feature.
#[cfg(not(feature = "seal"))]
pub(crate) enum Keys {}

/// Returns the keys of the arguments `--seal` and `--seal-context`, or of the options of a URL.
pub(crate) fn keys(arguments: &Show, cache: &str) -> Result<Option<Keys>> {
    let of_url = |name: &str| {
        let (_, query) = cache.split_once('?').filter(|_| cache.contains(':'))?;
        let mut options = query.split('&').filter_map(|option| option.split_once('='));
        options.find(|option| option.0 == name).map(|option| option.1)
    };
    let seal = arguments.seal.as_deref().or_else(|| of_url("seal"));
    let context = arguments.seal_context.as_deref().or_else(|| of_url("seal_context"));
    let Some(seal) = seal else { return Ok(None) };
    let wrong = |message| Error::new(ErrorKind::Configuration, message);
    let variable = seal.strip_prefix("env:").filter(|variable| !variable.is_empty());
    let variable = variable
        .ok_or_else(|| wrong("`seal` must name an environment variable, as in `env:CACHE_KEY`"))?;
    #[cfg(feature = "seal")]
    return Keys::from_env(variable).map(|keys| {
        Some(match context {
            Some(context) => keys.with_context(context),
            None => keys,
        })
    });
    #[cfg(not(feature = "seal"))]
    {
        let _ = (variable, context);
        Err(wrong(
            "this program was built without `seal`; install it with `cargo install vayu-cli --features seal`",
        ))
    }
}

/// Returns the value of an entry and the id of its serializer, or the reason why it cannot be shown.
pub(crate) fn unwrap(
    stored: &Bytes,
    details: &EntryDetails,
    keys: Option<&Keys>,
    max_bytes: u64,
) -> Result<(SerializerId, Bytes), String> {
    let id = details.serializer();
    if id.is_sealed() && keys.is_none() {
        return Err(format!("sealed ({} bytes); `--seal env:NAME` opens it", stored.len()));
    }
    #[cfg(any(feature = "lz4", feature = "seal", feature = "zstd"))]
    if id.is_compressed() || id.is_sealed() {
        return unwrapped(stored, details, keys, max_bytes).map_err(|error| with_causes(&error));
    }
    let _ = max_bytes;
    if id.is_compressed() {
        return Err(format!("compressed ({} bytes)", stored.len()));
    }
    Ok((id, stored.clone()))
}

#[cfg(any(feature = "lz4", feature = "seal", feature = "zstd"))]
fn unwrapped(
    stored: &Bytes,
    details: &EntryDetails,
    keys: Option<&Keys>,
    max_bytes: u64,
) -> Result<(SerializerId, Bytes)> {
    let digest = details.digest().unwrap_or_default();
    let entry = EntryContext::of_digest(&digest, &details.record());
    let entry = entry.with_max_entry_bytes(Some(max_bytes));
    #[cfg(feature = "seal")]
    let keys = keys.map(|keys| keys as &dyn Layer);
    #[cfg(not(feature = "seal"))]
    let keys = keys.map(|keys| -> &dyn Layer { match *keys {} });
    #[cfg(feature = "lz4")]
    let compressed = [&vayu_core::Compressed::lz4(()) as &dyn Layer];
    #[cfg(all(feature = "zstd", not(feature = "lz4")))]
    let compressed = [&vayu_core::Compressed::zstd(()) as &dyn Layer];
    #[cfg(not(any(feature = "lz4", feature = "zstd")))]
    let compressed: [&dyn Layer; 0] = [];
    unwrap_value(stored, &entry, compressed.into_iter().chain(keys).chain(compressed))
}
