use vayu::cached;

#[track_caller]
#[cached(ttl = "1m")]
fn above(n: u32) -> u32 {
    n
}

#[cached(ttl = "1m")]
#[track_caller]
fn below(n: u32) -> u32 {
    n
}

fn main() {}
