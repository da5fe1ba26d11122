use vayu::cached;

#[cached]
fn call(n: u64) -> u64 {
    n
}

#[vayu::mem_cached()]
fn other(n: u64) -> u64 {
    n
}

fn main() {}
