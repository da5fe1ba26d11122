use vayu::cached;

#[cached(tll = "5m")]
fn call() -> u64 {
    0
}

#[cached(ttl = "5m", stale = "1d", handle = call_entry)]
fn later() -> u64 {
    0
}

fn main() {}
