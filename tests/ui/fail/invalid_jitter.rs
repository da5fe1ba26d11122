use vayu::cached;

#[cached(ttl = "1m", jitter = 10)]
fn number(n: u8) -> u8 {
    n
}

#[cached(ttl = "1m", jitter = "90%")]
fn too_much(n: u8) -> u8 {
    n
}

fn main() {}
