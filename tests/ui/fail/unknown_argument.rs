use vayu::cached;

#[cached(tll = "5m")]
fn call() -> u64 {
    0
}

#[cached(ttl = "5m", cach = PAGES)]
fn longer() -> u64 {
    0
}

#[cached(ttl = "5m", colour = "red")]
fn nothing_similar() -> u64 {
    0
}

fn main() {}
