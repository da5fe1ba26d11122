//! Compression and sealing of bytes that another serializer has encoded: for caches that choose them at run
//! time, and for programs that do not know the type of a value.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Result;
use crate::key::Key;
use crate::record::Record;
use crate::serializer::{EntryContext, SerializerId};

/// A wrapper of stored values.
pub trait Layer: fmt::Debug + Send + Sync {
    /// Returns the id of the wrapped values of a serializer.
    fn id_of(&self, inner: SerializerId) -> SerializerId;

    /// Returns whether values with this id have this wrapper as the outermost one.
    fn is_outermost(&self, id: SerializerId) -> bool;

    /// Wraps a value of a serializer.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`](crate::ErrorKind::Encode) if that fails.
    fn wrap(&self, value: &Bytes, inner: SerializerId, entry: &EntryContext<'_>) -> Result<Bytes>;

    /// Returns a value and the id of its serializer.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode) for what was not wrapped for this entry.
    fn unwrap(&self, stored: &Bytes, entry: &EntryContext<'_>) -> Result<(SerializerId, Bytes)>;

    /// Returns the number of values that were unwrapped with an old key, if there are keys.
    fn opened_with_old_keys(&self) -> Option<u64> {
        None
    }
}

/// The wrappers of all values of a backend, from the innermost to the outermost.
#[derive(Debug, Clone, Default)]
pub struct Layers(Vec<Arc<dyn Layer>>);

impl Layers {
    /// Adds a wrapper around the others.
    pub fn push(&mut self, layer: impl Layer + 'static) {
        self.0.push(Arc::new(layer));
    }

    /// Returns whether there are no wrappers.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the record to store for one whose value a serializer has encoded.
    ///
    /// # Errors
    ///
    /// Those of the wrappers.
    pub fn wrap(
        &self,
        key: &Key,
        record: Record<Bytes>,
        max_entry_bytes: Option<u64>,
    ) -> Result<Record<Bytes>> {
        let mut inner = record.serializer();
        let record = record.with_serializer(self.id_of(inner));
        let entry = EntryContext::new(key, &record).with_max_entry_bytes(max_entry_bytes);
        let mut value = record.value().clone();
        for layer in &self.0 {
            value = layer.wrap(&value, inner, &entry)?;
            inner = layer.id_of(inner);
        }
        Ok(record.map(|_| value))
    }

    /// Returns the record that [`wrap`](Self::wrap) was given. `None` if the stored one has other wrappers.
    ///
    /// # Errors
    ///
    /// Those of the wrappers.
    pub fn unwrap(
        &self,
        key: &Key,
        record: Record<Bytes>,
        max_entry_bytes: Option<u64>,
    ) -> Result<Option<Record<Bytes>>> {
        let entry = EntryContext::new(key, &record).with_max_entry_bytes(max_entry_bytes);
        let (mut inner, mut value) = (record.serializer(), record.value().clone());
        for layer in self.0.iter().rev() {
            if !layer.is_outermost(inner) {
                return Ok(None);
            }
            (inner, value) = layer.unwrap(&value, &entry)?;
        }
        let is_of_these = self.id_of(inner) == record.serializer();
        Ok(is_of_these.then(|| record.with_serializer(inner).map(|_| value)))
    }

    /// Returns the number of values that were opened with an old key, if there are keys.
    pub fn opened_with_old_keys(&self) -> Option<u64> {
        self.0.iter().filter_map(|layer| layer.opened_with_old_keys()).reduce(|a, b| a + b)
    }

    fn id_of(&self, inner: SerializerId) -> SerializerId {
        self.0.iter().fold(inner, |id, layer| layer.id_of(id))
    }
}

/// Removes those of these wrappers that a value has, in this order. Returns the rest, and the id of its
/// serializer.
///
/// # Errors
///
/// Those of the wrappers.
pub fn unwrap_value<'a>(
    stored: &Bytes,
    entry: &EntryContext<'_>,
    layers: impl Iterator<Item = &'a dyn Layer>,
) -> Result<(SerializerId, Bytes)> {
    let (mut id, mut value) = (entry.serializer(), stored.clone());
    for layer in layers {
        if layer.is_outermost(id) {
            (id, value) = layer.unwrap(&value, entry)?;
        }
    }
    Ok((id, value))
}
