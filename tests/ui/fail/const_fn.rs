use vayu::cached;

#[cached(ttl = 60)]
const fn call(a: u8) -> u8 {
    a
}

fn main() {}
