use vayu::cached;

#[cached(ttl = "1m", handle = self)]
fn handle(n: u32) -> u32 {
    n
}

#[cached(ttl = "1m", handle = crate)]
fn path(n: u32) -> u32 {
    n
}

#[cached(ttl = "1m", handle = type)]
fn keyword(n: u32) -> u32 {
    n
}

#[cached(ttl = "1m", handle = Self::self)]
fn associated(n: u32) -> u32 {
    n
}

#[cached(ttl = "1m", skip(fn))]
fn skip(n: u32) -> u32 {
    n
}

fn main() {}
