use vayu::cached;

#[cached("5m")]
fn string(n: u32) -> u32 {
    n
}

#[cached(5)]
fn number(n: u32) -> u32 {
    n
}

#[cached(std::time::Duration::from_secs(5))]
fn path(n: u32) -> u32 {
    n
}

#[cached(PAGES, ttl = "5m")]
fn cache(n: u32) -> u32 {
    n
}

fn main() {}
