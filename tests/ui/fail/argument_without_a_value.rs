use vayu::cached;

#[cached(ttl)]
fn ttl(n: u32) -> u32 {
    n
}

#[cached(ttl = 60, stale)]
fn stale(n: u32) -> u32 {
    n
}

#[cached(ttl = 60, stale = "1h", spawn)]
async fn spawn(n: u32) -> u32 {
    n
}

#[cached(ttl = 60, key)]
fn key(n: u32) -> u32 {
    n
}

#[cached(ttl = 60, tags)]
fn tags(n: u32) -> u32 {
    n
}

#[cached(ttl = 60, skip)]
fn skip(n: u32) -> u32 {
    n
}

#[cached(ttl = 60, handle =)]
fn handle(n: u32) -> u32 {
    n
}

#[cached(ttl: 60)]
fn colon(n: u32) -> u32 {
    n
}

#[cached(ttl("5m"))]
fn parentheses(n: u32) -> u32 {
    n
}

#[cached(ttl = "5m" stale = "1h")]
fn comma(n: u32) -> u32 {
    n
}

#[cached(ttl = 60, version = )]
fn version(n: u32) -> u32 {
    n
}

fn main() {}
