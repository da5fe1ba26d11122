use vayu::cached;

#[cached(ttl = 60)]
struct Shop;

fn main() {}
