//! Values, decoded for people and for programs.

use serde_json::{Map, Number, Value, json};
use vayu_core::SerializerId;

use crate::output::escaped_json;

/// Formats a value for people.
pub(crate) fn as_text(serializer: SerializerId, bytes: &[u8]) -> String {
    match serializer {
        SerializerId::MESSAGE_PACK => match message_pack(bytes) {
            Some(value) => value.to_string(),
            None => hex(bytes),
        },
        SerializerId::JSON => match serde_json::from_slice::<Value>(bytes) {
            Ok(value) => escaped_json(&format!("{value:#}")),
            Err(_) => hex(bytes),
        },
        _ => hex(bytes),
    }
}

/// Adds a value to an object: as `value` if it can be decoded, otherwise as `value_base64`.
pub(crate) fn add_to(object: &mut Value, serializer: SerializerId, bytes: &[u8]) {
    let decoded = match serializer {
        SerializerId::MESSAGE_PACK => message_pack(bytes).map(to_json),
        SerializerId::JSON => serde_json::from_slice(bytes).ok(),
        _ => None,
    };
    match decoded {
        Some(value) => object["value"] = value,
        None => object["value_base64"] = json!(base64(bytes)),
    }
}

/// Decodes MessagePack, if nothing follows the value.
fn message_pack(mut bytes: &[u8]) -> Option<rmpv::Value> {
    let value = rmpv::decode::read_value(&mut bytes).ok()?;
    bytes.is_empty().then_some(value)
}

fn to_json(value: rmpv::Value) -> Value {
    match value {
        rmpv::Value::Nil => Value::Null,
        rmpv::Value::Boolean(value) => Value::Bool(value),
        rmpv::Value::Integer(value) => match (value.as_u64(), value.as_i64()) {
            (Some(value), _) => json!(value),
            (_, value) => json!(value),
        },
        rmpv::Value::F32(value) => {
            Number::from_f64(value.into()).map_or(Value::Null, Value::Number)
        }
        rmpv::Value::F64(value) => Number::from_f64(value).map_or(Value::Null, Value::Number),
        rmpv::Value::String(value) => match value.into_str() {
            Some(value) => Value::String(value),
            None => Value::Null,
        },
        rmpv::Value::Binary(bytes) => json!({ "base64": base64(&bytes) }),
        rmpv::Value::Array(values) => values.into_iter().map(to_json).collect(),
        rmpv::Value::Map(entries) => map(entries),
        rmpv::Value::Ext(kind, bytes) => json!({ "extension": kind, "base64": base64(&bytes) }),
    }
}

/// Converts a map to an object if its keys are strings, numbers or `bool`s, as `serde_json` does; otherwise
/// to an array of pairs.
fn map(entries: Vec<(rmpv::Value, rmpv::Value)>) -> Value {
    let name = |key: &rmpv::Value| match key {
        rmpv::Value::String(key) => key.as_str().map(str::to_owned),
        rmpv::Value::Integer(_) | rmpv::Value::Boolean(_) => Some(key.to_string()),
        _ => None,
    };
    match entries.iter().map(|(key, _)| name(key)).collect::<Option<Vec<_>>>() {
        Some(names) => {
            let values = entries.into_iter().map(|(_, value)| to_json(value));
            Value::Object(names.into_iter().zip(values).collect::<Map<_, _>>())
        }
        None => {
            entries.into_iter().map(|(key, value)| json!([to_json(key), to_json(value)])).collect()
        }
    }
}

/// Formats up to 256 bytes in hex.
fn hex(bytes: &[u8]) -> String {
    const SHOWN: usize = 256;
    let digits = const_hex::encode(&bytes[..bytes.len().min(SHOWN)]);
    if bytes.len() > SHOWN { format!("{digits}… ({} bytes)", bytes.len()) } else { digits }
}

/// Encodes bytes in base64, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for (place, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let digit = DIGITS[(bits >> shift & 63) as usize];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_specification() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }

    #[test]
    fn message_pack_becomes_json() {
        // {"a": [1, -1, u64::MAX], 7: 0.5, true: nil}
        let bytes = b"\x83\xa1a\x93\x01\xff\xcf\xff\xff\xff\xff\xff\xff\xff\xff\x07\xcb\x3f\xe0\0\0\0\0\0\0\xc3\xc0";
        let mut object = json!({});
        add_to(&mut object, SerializerId::MESSAGE_PACK, bytes);
        assert_eq!(object, json!({ "value": { "a": [1, -1, u64::MAX], "7": 0.5, "true": null } }));
        // {[1]: b"x"}, which no object can hold.
        let mut object = json!({});
        add_to(&mut object, SerializerId::MESSAGE_PACK, b"\x81\x91\x01\xc4\x01x");
        assert_eq!(object, json!({ "value": [[[1], { "base64": "eA==" }]] }));
    }

    #[test]
    fn printed_values_have_no_control_characters() {
        let json = as_text(SerializerId::JSON, "\"\u{9b}2J\u{7f}\"".as_bytes());
        assert_eq!(json, r#""\u009b2J\u007f""#);
        let message_pack = as_text(SerializerId::MESSAGE_PACK, b"\xa3\x1b\xc2\x9b");
        assert_eq!(message_pack, r#""\u{1b}\u{9b}""#);
    }

    #[test]
    fn value_that_cannot_be_decoded_is_base64() {
        for (serializer, bytes) in [
            (SerializerId::MESSAGE_PACK, &b"\x91"[..]),
            (SerializerId::MESSAGE_PACK, b"\x01\x01"),
            (SerializerId::JSON, b"{"),
            (SerializerId::POSTCARD, b"\x01"),
        ] {
            let mut object = json!({});
            add_to(&mut object, serializer, bytes);
            assert_eq!(object, json!({ "value_base64": base64(bytes) }));
            assert_eq!(as_text(serializer, bytes), const_hex::encode(bytes));
        }
    }
}
