use vayu::cached;

#[cached(ttl = 18446744073709551616)]
fn whole(n: u8) -> u8 {
    n
}

#[cached(ttl = 1e300)]
fn exponent(n: u8) -> u8 {
    n
}

#[cached(ttl = 0.0000000001, stale = "99999999999999999999w")]
fn too_fine(n: u8) -> u8 {
    n
}

#[cached(ttl = "1m", jitter = "1.25%")]
fn step(n: u8) -> u8 {
    n
}

fn main() {}
