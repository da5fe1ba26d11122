use vayu::cached;

#[cached(ttl = "soon", colour = "red", log = 5, skip(missing))]
const fn call(n: &mut u64) -> &u64 {
    n
}

fn main() {}
