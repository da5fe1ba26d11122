use vayu::cached;

#[cached(ttl = "1m", refresh_if = n)]
fn number(n: u8) -> u8 {
    n
}

#[cached(ttl = "1m", bypass_if = |n: &u8| *n > 3)]
fn closure(n: u8) -> u8 {
    n
}

#[cached(ttl = "1m", refresh_if = true)]
fn literal(n: u8) -> u8 {
    n
}

#[cached(ttl = "1m", refresh_if = is_forced)]
fn in_the_key(n: u8, is_forced: bool) -> u8 {
    u8::from(is_forced) + n
}

fn main() {}
