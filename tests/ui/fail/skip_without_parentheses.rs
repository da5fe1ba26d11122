use vayu::cached;

#[cached(ttl = 60, skip = a)]
fn call(a: u8, b: u8) -> u8 {
    a + b
}

fn main() {}
