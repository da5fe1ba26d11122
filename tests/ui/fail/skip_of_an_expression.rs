use vayu::cached;

#[cached(ttl = "1m", skip("client"))]
fn string(client: u32, n: u32) -> u32 {
    client + n
}

#[cached(ttl = "1m", skip(client.0))]
fn part(client: (u32, u8), n: u32) -> u32 {
    client.0 + n
}

#[cached(ttl = "1m", skip(&client))]
fn reference(client: u32, n: u32) -> u32 {
    client + n
}

fn main() {}
