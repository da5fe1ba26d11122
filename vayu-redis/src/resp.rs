//! Answers in the bytes that a server sends.

use std::io;

use redis::{RedisResult, Value, parse_redis_value};

/// Longer lines are no answers to what is asked here.
const LONGEST_LINE: usize = 64 * 1024;

const END: &[u8] = b"\r\n";

/// The first answer in these bytes and how long it is, or nothing if it is not whole yet.
///
/// Commands of entries and generations are answered with a line or with bytes, never with a list.
///
/// # Errors
///
/// When this is the beginning of no answer, or of one of more than `max_bytes`.
pub(crate) fn first(bytes: &[u8], max_bytes: u64) -> RedisResult<Option<(Value, usize)>> {
    let Some(&kind) = bytes.first() else { return Ok(None) };
    if !matches!(kind, b'$' | b'+' | b'-' | b':') {
        return Err(wrong("this is no answer to the command"));
    }
    let Some(end) = bytes.iter().take(LONGEST_LINE).position(|&byte| byte == b'\n') else {
        return if bytes.len() < LONGEST_LINE {
            Ok(None)
        } else {
            Err(wrong("the line is too long"))
        };
    };
    let line = &bytes[..=end];
    if kind != b'$' {
        return Ok(Some((parse_redis_value(line)?, line.len())));
    }
    let Some(length) = length_in(line, max_bytes)? else {
        return Ok(Some((Value::Nil, line.len())));
    };
    let Some((value, rest)) = bytes[line.len()..].split_at_checked(length) else { return Ok(None) };
    match rest.get(..END.len()) {
        None => Ok(None),
        Some(END) => Ok(Some((Value::BulkString(value.to_vec()), line.len() + length + END.len()))),
        Some(_) => Err(wrong("the answer does not end where it should")),
    }
}

/// The number in the line before bytes; none if there are no bytes.
fn length_in(line: &[u8], max_bytes: u64) -> RedisResult<Option<usize>> {
    let number = line.strip_prefix(b"$").and_then(|rest| rest.strip_suffix(END));
    let number = number.and_then(|number| str::from_utf8(number).ok());
    match number.and_then(|number| number.parse::<i64>().ok()) {
        Some(-1) => Ok(None),
        Some(length @ 0..) if length.unsigned_abs() <= max_bytes => {
            usize::try_from(length).map(Some).map_err(|_| wrong("the answer is too long"))
        }
        Some(0..) => Err(wrong("the answer is too long")),
        _ => Err(wrong("the length of the answer is none")),
    }
}

fn wrong(message: &'static str) -> redis::RedisError {
    io::Error::new(io::ErrorKind::InvalidData, message).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_found_as_soon_as_it_is_whole() {
        let answers: [(&[u8], Value); 6] = [
            (b"$5\r\nhe\r\no\r\n", Value::BulkString(b"he\r\no".to_vec())),
            (b"$0\r\n\r\n", Value::BulkString(Vec::new())),
            (b"$-1\r\n", Value::Nil),
            (b"+OK\r\n", Value::Okay),
            (b":-7\r\n", Value::Int(-7)),
            (b"+\r\n", Value::SimpleString(String::new())),
        ];
        for (bytes, answer) in answers {
            for length in 0..bytes.len() {
                assert!(first(&bytes[..length], 5).unwrap().is_none(), "{answer:?}: {length}");
            }
            let more = [bytes, b"$1\r\n"].concat();
            assert_eq!(first(&more, 5).unwrap(), Some((answer, bytes.len())));
        }
    }

    #[test]
    fn error_of_the_server_is_an_answer() {
        let bytes = b"-WRONGTYPE Operation against a key\r\n";
        let (answer, length) = first(bytes, 0).unwrap().expect("it is whole");
        assert_eq!(length, bytes.len());
        assert_eq!(answer.extract_error().unwrap_err().code(), Some("WRONGTYPE"));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let wrong: [&[u8]; 12] = [
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
        for bytes in wrong {
            first(bytes, 100).expect_err(&String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn answer_that_is_too_long_is_refused_at_its_beginning() {
        assert!(first(b"$100\r\n", 100).unwrap().is_none());
        first(b"$101\r\n", 100).unwrap_err();
        let mut line = vec![b'+'; LONGEST_LINE - 1];
        assert!(first(&line, 100).unwrap().is_none());
        line.push(b'+');
        first(&line, 100).unwrap_err();
    }
}
