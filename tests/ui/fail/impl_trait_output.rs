use vayu::cached;

#[cached(ttl = 60)]
fn call() -> impl Iterator<Item = u8> {
    [1].into_iter()
}

fn main() {}
