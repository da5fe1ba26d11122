use vayu::{cached, mem_cached};

#[cached(ttl = "1m", label = |n| n.to_string())]
fn closure(n: u8) -> u8 {
    n
}

#[mem_cached(ttl = "1m", label = "{n}")]
fn in_memory(n: u8) -> u8 {
    n
}

fn main() {}
