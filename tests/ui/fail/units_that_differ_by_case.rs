use vayu::cached;

#[cached(ttl = "5M", stale = "1y")]
fn months(n: u8) -> u8 {
    n
}

#[cached(ttl = "1h 5Min")]
fn words(n: u8) -> u8 {
    n
}

#[cached(ttl = "5 fortnights")]
fn unknown(n: u8) -> u8 {
    n
}

fn main() {}
