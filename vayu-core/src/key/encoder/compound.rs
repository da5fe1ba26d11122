//! Values with parts: sequences, maps, tuples and structs.

use serde::ser::{self, Serialize};

use super::{END, ENTRY, EncodeError, Encoder, FIELD};
use crate::key::Material;

/// Parts that are written in the order of their encoding, not of their arrival.
pub(crate) struct Parts<'e, 'a> {
    encoder: &'e mut Encoder<'a>,
    tag: u8,
    encoded: Vec<Material>,
}

impl<'e, 'a> Parts<'e, 'a> {
    pub(super) fn new(tag: u8, encoder: &'e mut Encoder<'a>) -> Self {
        Self { encoder, tag, encoded: Vec::new() }
    }

    pub(super) fn push(
        &mut self,
        encode: impl FnOnce(&mut Encoder<'_>) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let mut part = Material::new();
        let sequences = self.encoder.sequences;
        let depth = self.encoder.depth;
        encode(&mut Encoder { out: &mut part, sequences, depth })?;
        self.encoded.push(part);
        Ok(())
    }

    /// Appends to the part that was pushed last.
    fn extend_last(
        &mut self,
        encode: impl FnOnce(&mut Encoder<'_>) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let Some(part) = self.encoded.last_mut() else {
            return Err(ser::Error::custom("a map value came before its key"));
        };
        let Encoder { sequences, depth, .. } = *self.encoder;
        encode(&mut Encoder { out: part, sequences, depth })
    }

    pub(super) fn finish(mut self) {
        self.encoded.sort_unstable();
        self.encoder.tag(self.tag);
        for part in &self.encoded {
            self.encoder.tag(ENTRY);
            self.encoder.out.extend_from_slice(part);
        }
        self.encoder.tag(END);
    }
}

/// Elements of a sequence.
pub(crate) enum Sequence<'e, 'a> {
    Ordered(&'e mut Encoder<'a>),
    Unordered(Parts<'e, 'a>),
}

impl ser::SerializeSeq for Sequence<'_, '_> {
    type Ok = ();
    type Error = EncodeError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        match self {
            Self::Ordered(encoder) => encoder.nested(value),
            Self::Unordered(parts) => parts.push(|encoder| encoder.nested(value)),
        }
    }

    fn end(self) -> Result<(), EncodeError> {
        match self {
            Self::Ordered(encoder) => encoder.tag(END),
            Self::Unordered(parts) => parts.finish(),
        }
        Ok(())
    }
}

/// Entries of a map: equal maps have equal encodings, whatever their order.
pub(crate) struct Map<'e, 'a>(pub(super) Parts<'e, 'a>);

impl ser::SerializeMap for Map<'_, '_> {
    type Ok = ();
    type Error = EncodeError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        self.0.push(|encoder| encoder.nested(key))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.0.extend_last(|encoder| encoder.nested(value))
    }

    fn end(self) -> Result<(), EncodeError> {
        self.0.finish();
        Ok(())
    }
}

impl ser::SerializeTuple for &mut Encoder<'_> {
    type Ok = ();
    type Error = EncodeError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.nested(value)
    }

    fn end(self) -> Result<(), EncodeError> {
        self.tag(END);
        Ok(())
    }
}

impl ser::SerializeTupleStruct for &mut Encoder<'_> {
    type Ok = ();
    type Error = EncodeError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.nested(value)
    }

    fn end(self) -> Result<(), EncodeError> {
        self.tag(END);
        Ok(())
    }
}

impl ser::SerializeTupleVariant for &mut Encoder<'_> {
    type Ok = ();
    type Error = EncodeError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.nested(value)
    }

    fn end(self) -> Result<(), EncodeError> {
        self.tag(END);
        Ok(())
    }
}

impl ser::SerializeStruct for &mut Encoder<'_> {
    type Ok = ();
    type Error = EncodeError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        self.named(FIELD, name);
        self.nested(value)
    }

    fn end(self) -> Result<(), EncodeError> {
        self.tag(END);
        Ok(())
    }
}

impl ser::SerializeStructVariant for &mut Encoder<'_> {
    type Ok = ();
    type Error = EncodeError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        self.named(FIELD, name);
        self.nested(value)
    }

    fn end(self) -> Result<(), EncodeError> {
        self.tag(END);
        Ok(())
    }
}
