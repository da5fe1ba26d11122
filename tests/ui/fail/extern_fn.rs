use vayu::cached;

#[cached(ttl = 60)]
extern "C" fn call(a: u8) -> u8 {
    a
}

fn main() {}
