use vayu::cached;

#[cached(ttl = "soon")]
fn call() -> u64 {
    0
}

fn main() {}
