use vayu::cached;

#[cached(ttl = 60, revalidate)]
fn without_stale(n: u8) -> u8 {
    n
}

#[cached(ttl = 60, stale = 60, revalidate = true)]
fn literal(n: u8) -> u8 {
    n
}

fn check(old: &u8, a: &(u8, u8)) -> bool {
    *old == a.0
}

#[cached(ttl = 60, stale = 60, revalidate = check)]
fn pattern((a, b): (u8, u8)) -> u8 {
    a + b
}

#[cached(ttl = 60, stale = 60, prefix = "each", each = ids, revalidate)]
fn batch(ids: &[u8]) -> std::collections::HashMap<u8, u8> {
    ids.iter().map(|id| (*id, *id)).collect()
}

fn main() {}
