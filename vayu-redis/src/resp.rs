//! Parser of the replies that entries and generations need (RESP2): simple ones, and arrays of strings.

use std::io;

use redis::{RedisResult, Value, parse_redis_value};

/// Longest line of a reply.
const LONGEST_LINE: usize = 64 * 1024;

const END: &[u8] = b"\r\n";

/// The message of the error of a string that is longer than the limit.
pub(crate) const TOO_LONG: &str = "the reply is too long";

/// Returns the first reply in these bytes and its length, or `None` if it is incomplete.
///
/// `items` returns the number of strings in the array that is expected, zero if none is.
///
/// # Errors
///
/// If the bytes are not the start of a reply, or of one with a string of more than `max_bytes`.
pub(crate) fn parse(
    bytes: &[u8],
    max_bytes: u64,
    items: impl FnOnce() -> usize,
) -> RedisResult<Option<(Value, usize)>> {
    let Some(&kind) = bytes.first() else { return Ok(None) };
    if !matches!(kind, b'$' | b'+' | b'-' | b':' | b'*') {
        return Err(invalid("not a reply to the command"));
    }
    let Some(line) = first_line(bytes)? else { return Ok(None) };
    match kind {
        b'$' => {
            let Some((value, length)) = bulk_string(bytes, line, max_bytes)? else {
                return Ok(None);
            };
            Ok(Some((to_value(value), length)))
        }
        b'*' => {
            let expected = items();
            if expected == 0 || line != format!("*{expected}\r\n").as_bytes() {
                return Err(invalid("not the array of the command"));
            }
            array(bytes, line.len(), expected, max_bytes)
        }
        _ => Ok(Some((parse_redis_value(line)?, line.len()))),
    }
}

/// Returns an array of strings that begins with a line of this length, once all of it was received.
/// Nothing is copied before.
fn array(
    bytes: &[u8],
    start: usize,
    items: usize,
    max_bytes: u64,
) -> RedisResult<Option<(Value, usize)>> {
    let (mut at, mut strings) = (start, Vec::with_capacity(items));
    for _ in 0..items {
        let rest = &bytes[at..];
        let Some(line) = first_line(rest)? else { return Ok(None) };
        let Some((string, length)) = bulk_string(rest, line, max_bytes)? else { return Ok(None) };
        strings.push(string);
        at += length;
    }
    Ok(Some((Value::Array(strings.into_iter().map(to_value).collect()), at)))
}

fn to_value(string: Option<&[u8]>) -> Value {
    string.map_or(Value::Nil, |string| Value::BulkString(string.to_vec()))
}

/// Returns the first line with its end, or `None` if it is incomplete.
fn first_line(bytes: &[u8]) -> RedisResult<Option<&[u8]>> {
    match bytes.iter().take(LONGEST_LINE).position(|&byte| byte == b'\n') {
        Some(end) => Ok(Some(&bytes[..=end])),
        None if bytes.len() < LONGEST_LINE => Ok(None),
        None => Err(invalid("line too long")),
    }
}

/// A bulk string, or `None` for a null, and its length with line and end.
type BulkString<'a> = (Option<&'a [u8]>, usize);

/// Returns the bulk string or null that begins with `line`, or `None` if it is incomplete.
fn bulk_string<'a>(
    bytes: &'a [u8],
    line: &[u8],
    max_bytes: u64,
) -> RedisResult<Option<BulkString<'a>>> {
    let Some(length) = parse_length(line, max_bytes)? else { return Ok(Some((None, line.len()))) };
    let Some((value, rest)) = bytes[line.len()..].split_at_checked(length) else { return Ok(None) };
    match rest.get(..END.len()) {
        None => Ok(None),
        Some(END) => Ok(Some((Some(value), line.len() + length + END.len()))),
        Some(_) => Err(invalid("missing end of a bulk string")),
    }
}

/// Returns the length of a bulk string, or `None` for a null.
fn parse_length(line: &[u8], max_bytes: u64) -> RedisResult<Option<usize>> {
    let number = line.strip_prefix(b"$").and_then(|rest| rest.strip_suffix(END));
    let number = number.and_then(|number| str::from_utf8(number).ok());
    match number.and_then(|number| number.parse::<i64>().ok()) {
        Some(-1) => Ok(None),
        Some(length @ 0..) if length.unsigned_abs() <= max_bytes => {
            usize::try_from(length).map(Some).map_err(|_| invalid(TOO_LONG))
        }
        Some(0..) => Err(invalid(TOO_LONG)),
        _ => Err(invalid("invalid bulk length")),
    }
}

fn invalid(message: &'static str) -> redis::RedisError {
    io::Error::new(io::ErrorKind::InvalidData, message).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8], max_bytes: u64) -> RedisResult<Option<(Value, usize)>> {
        super::parse(bytes, max_bytes, || 0)
    }

    #[test]
    fn array_of_strings_is_parsed_once_complete() {
        let bytes = b"*3\r\n$5\r\nhe\r\no\r\n$-1\r\n$0\r\n\r\n";
        let string = |bytes: &[u8]| Value::BulkString(bytes.to_vec());
        let reply = Value::Array(vec![string(b"he\r\no"), Value::Nil, string(b"")]);
        for length in 0..bytes.len() {
            assert!(super::parse(&bytes[..length], 5, || 3).unwrap().is_none(), "{length}");
        }
        let more = [bytes, &b"$1\r\n"[..]].concat();
        assert_eq!(super::parse(&more, 5, || 3).unwrap(), Some((reply, bytes.len())));
    }

    #[test]
    fn array_that_is_not_the_reply_is_rejected() {
        let invalid: [&[u8]; 8] = [
            b"*2\r\n",
            b"*-1\r\n",
            b"*\r\n",
            b"*03\r\n",
            b"*3\n",
            b"*3\r\n:1\r\n",
            b"*3\r\n*3\r\n$1\r\na\r\n",
            b"*3\r\n$1\r\na\r\n$6\r\n",
        ];
        for bytes in invalid {
            super::parse(bytes, 5, || 3).expect_err(&String::from_utf8_lossy(bytes));
        }
        super::parse(b"*0\r\n", 5, || 0).unwrap_err();
    }

    #[test]
    fn reply_is_parsed_once_complete() {
        let replies: [(&[u8], Value); 6] = [
            (b"$5\r\nhe\r\no\r\n", Value::BulkString(b"he\r\no".to_vec())),
            (b"$0\r\n\r\n", Value::BulkString(Vec::new())),
            (b"$-1\r\n", Value::Nil),
            (b"+OK\r\n", Value::Okay),
            (b":-7\r\n", Value::Int(-7)),
            (b"+\r\n", Value::SimpleString(String::new())),
        ];
        for (bytes, reply) in replies {
            for length in 0..bytes.len() {
                assert!(parse(&bytes[..length], 5).unwrap().is_none(), "{reply:?}: {length}");
            }
            let more = [bytes, b"$1\r\n"].concat();
            assert_eq!(parse(&more, 5).unwrap(), Some((reply, bytes.len())));
        }
    }

    #[test]
    fn error_reply_is_a_reply() {
        let bytes = b"-WRONGTYPE Operation against a key\r\n";
        let (reply, length) = parse(bytes, 0).unwrap().expect("complete");
        assert_eq!(length, bytes.len());
        assert_eq!(reply.extract_error().unwrap_err().code(), Some("WRONGTYPE"));
    }

    #[test]
    fn malformed_reply_is_rejected() {
        let invalid: [&[u8]; 12] = [
            b"HTTP/1.1",
            b"*1\r\n",
            b">3\r\n",
            b"$-7\r\n",
            b"$+\r\n",
            b"$\r\n",
            b"$1\n",
            b":x\r\n",
            b"+x\n",
            b"$1\r\nabc",
            b"$99999999999999999999\r\n",
            b"$9223372036854775807\r\n",
        ];
        for bytes in invalid {
            parse(bytes, 100).expect_err(&String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn oversized_reply_is_rejected_by_its_length() {
        assert!(parse(b"$100\r\n", 100).unwrap().is_none());
        parse(b"$101\r\n", 100).unwrap_err();
        let mut line = vec![b'+'; LONGEST_LINE - 1];
        assert!(parse(&line, 100).unwrap().is_none());
        line.push(b'+');
        parse(&line, 100).unwrap_err();
    }
}
