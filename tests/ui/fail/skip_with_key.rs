use vayu::cached;

#[cached(ttl = 60, key = "k", skip(a))]
fn call(a: u8) -> u8 {
    a
}

fn main() {}
