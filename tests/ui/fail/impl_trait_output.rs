use vayu::cached;

#[cached(ttl = 60)]
fn call() -> impl Iterator<Item = u8> {
    [1].into_iter()
}

#[cached(ttl = 60)]
fn error() -> Result<u8, impl std::error::Error> {
    "1".parse::<u8>()
}

fn main() {}
