use vayu::cached;

#[cached(ttl = 60, skip(), include())]
fn call(a: u8) -> u8 {
    a
}

fn main() {}
