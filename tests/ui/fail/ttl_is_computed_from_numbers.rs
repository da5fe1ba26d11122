use vayu::cached;

#[cached(ttl = 5 * 60)]
fn call(n: u32) -> u32 {
    n
}

fn main() {}
