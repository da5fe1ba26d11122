use vayu::cached;

#[cached(ttl = "1m", key = "u32")]
fn one(n: u32) -> u32 {
    n
}

#[cached(ttl = "1m", key = "(u32, String)")]
fn two(n: u32, name: &str) -> u32 {
    n + name.len() as u32
}

#[cached(ttl = "1m", key = "Vec<u8>")]
fn of_a_reference(bytes: &Vec<u8>) -> usize {
    bytes.len()
}

fn main() {}
