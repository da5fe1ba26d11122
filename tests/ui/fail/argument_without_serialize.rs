use vayu::cached;

struct Client;

#[cached(ttl = 60)]
fn call(client: &Client, n: u64) -> u64 {
    n
}

fn main() {}
