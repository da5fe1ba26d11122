use vayu::cached;

#[cached(ttl = "1m", max_weight = 1_000, weigh = |value: &String| value.len())]
fn length_as_usize(n: u8) -> String {
    n.to_string()
}

#[cached(ttl = "1m", max_weight = 1_000, weigh = |_: &u8| u32::from(n))]
fn by_argument(n: u8) -> u8 {
    n
}

fn main() {}
