use vayu::cached;

#[cached(ttl = 60, key = 5)]
fn call(a: u8) -> u8 {
    a
}

#[cached(ttl = 60, key = |a| *a)]
fn closure(a: u8) -> u8 {
    a
}

fn main() {}
