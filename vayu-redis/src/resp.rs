//! Parser of the replies that entries and generations need (RESP2).

use std::io;

use redis::{RedisResult, Value, parse_redis_value};

/// Longest line of a reply.
const LONGEST_LINE: usize = 64 * 1024;

const END: &[u8] = b"\r\n";

/// Returns the first reply in these bytes and its length, or `None` if it is incomplete.
///
/// Arrays are not supported: the commands of a pipeline have simple replies.
///
/// # Errors
///
/// If the bytes are not the start of a reply, or of one of more than `max_bytes`.
pub(crate) fn parse(bytes: &[u8], max_bytes: u64) -> RedisResult<Option<(Value, usize)>> {
    let Some(&kind) = bytes.first() else { return Ok(None) };
    if !matches!(kind, b'$' | b'+' | b'-' | b':') {
        return Err(invalid("not a reply to the command"));
    }
    let Some(end) = bytes.iter().take(LONGEST_LINE).position(|&byte| byte == b'\n') else {
        return if bytes.len() < LONGEST_LINE { Ok(None) } else { Err(invalid("line too long")) };
    };
    let line = &bytes[..=end];
    if kind != b'$' {
        return Ok(Some((parse_redis_value(line)?, line.len())));
    }
    let Some(length) = parse_length(line, max_bytes)? else {
        return Ok(Some((Value::Nil, line.len())));
    };
    let Some((value, rest)) = bytes[line.len()..].split_at_checked(length) else { return Ok(None) };
    match rest.get(..END.len()) {
        None => Ok(None),
        Some(END) => Ok(Some((Value::BulkString(value.to_vec()), line.len() + length + END.len()))),
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
            usize::try_from(length).map(Some).map_err(|_| invalid("the reply is too long"))
        }
        Some(0..) => Err(invalid("the reply is too long")),
        _ => Err(invalid("invalid bulk length")),
    }
}

fn invalid(message: &'static str) -> redis::RedisError {
    io::Error::new(io::ErrorKind::InvalidData, message).into()
}

#[cfg(test)]
mod tests {
    use super::*;

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
