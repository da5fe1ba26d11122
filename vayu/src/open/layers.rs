//! The options of a URL for compression and encryption.

#[cfg(any(feature = "lz4", feature = "seal", feature = "zstd"))]
pub(super) use vayu_core::__internal::Layers;
use vayu_core::Result;
#[cfg(feature = "seal")]
use vayu_core::SealKeys;

use super::query::Query;
use super::wrong;

/// The wrappers of values, of which there are none without the features.
#[cfg(not(any(feature = "lz4", feature = "seal", feature = "zstd")))]
pub(super) enum Layers {}

/// Removes the options `compress`, `seal` and `seal_context`, and returns the wrappers that they describe.
pub(super) fn layers(query: &mut Query<'_>) -> Result<Option<Layers>> {
    let compress = query.word("compress", &["lz4", "zstd"])?;
    let (seal, context) = (query.take("seal")?, query.take("seal_context")?);
    if context.is_some() && seal.is_none() {
        return Err(wrong("option `seal_context` needs the option `seal`"));
    }
    #[cfg(any(feature = "lz4", feature = "seal", feature = "zstd"))]
    let mut layers = Layers::default();
    match compress {
        #[cfg(feature = "lz4")]
        Some("lz4") => layers.push(vayu_core::Compressed::lz4(())),
        #[cfg(feature = "zstd")]
        Some("zstd") => layers.push(vayu_core::Compressed::zstd(())),
        Some(word) => return Err(wrong(format!("`compress={word}` needs the feature `{word}`"))),
        None => {}
    }
    match seal {
        #[cfg(feature = "seal")]
        Some(seal) => {
            // The message does not repeat it: it may be a key.
            let variable = seal.strip_prefix("env:").filter(|variable| !variable.is_empty());
            let variable = variable.ok_or_else(|| {
                wrong("option `seal` must name an environment variable, as in `env:CACHE_KEY`")
            })?;
            let keys = SealKeys::from_env(variable)?;
            layers.push(match context {
                Some(context) => keys.with_context(context),
                None => keys,
            });
        }
        #[cfg(not(feature = "seal"))]
        Some(_) => return Err(wrong("option `seal` needs the feature `seal`")),
        None => {}
    }
    #[cfg(any(feature = "lz4", feature = "seal", feature = "zstd"))]
    return Ok(Some(layers).filter(|layers| !layers.is_empty()));
    #[cfg(not(any(feature = "lz4", feature = "seal", feature = "zstd")))]
    Ok(None)
}
