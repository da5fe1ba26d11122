//! The bytes of a generation on a server.
//!
//! A missing generation is not read as zero: the server may have evicted it or lost its data, and entries
//! that were invalidated before must not become valid again. A caller that finds none creates a
//! random one. Its bytes are the number of its group and a random number, so that the reply to another request is not
//! taken for a generation.

use std::io;

use super::random::random_bytes;
use crate::generation::Group;

/// The number of generations. Groups with the same number modulo this share one, and are invalidated together.
const GENERATIONS: u64 = 1 << 16;

/// Returns the bytes of a new generation of a group.
///
/// # Errors
///
/// When there are no random bytes.
pub fn new_generation(group: Group) -> io::Result<Vec<u8>> {
    Ok([(group.number() % GENERATIONS).to_le_bytes(), random_bytes()?].concat())
}

/// Returns the generation in these bytes, unless they are not a generation of this group.
pub fn parse_generation(group: Group, bytes: &[u8]) -> Option<u64> {
    let (of, generation) = bytes.split_first_chunk()?;
    let is_of_group = u64::from_le_bytes(*of) == group.number() % GENERATIONS;
    generation.try_into().ok().filter(|_| is_of_group).map(u64::from_le_bytes)
}

/// Returns the last part of the name of a generation.
pub fn generation_name(group: Group) -> String {
    format!("{:04x}", group.number() % GENERATIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_of_another_group_is_rejected() {
        let (one, other) = (Group::tag("one"), Group::tag("other"));
        let bytes = new_generation(one).unwrap();
        assert_ne!(parse_generation(one, &bytes).unwrap(), 0);
        assert!(parse_generation(other, &bytes).is_none());
        for length in 0..bytes.len() {
            assert!(parse_generation(one, &bytes[..length]).is_none());
        }
        assert!(parse_generation(one, &[&bytes[..], &[0]].concat()).is_none());
    }

    #[test]
    fn new_generations_differ() {
        let group = Group::tag("one");
        assert_ne!(new_generation(group).unwrap(), new_generation(group).unwrap());
    }
}
