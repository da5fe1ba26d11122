use vayu::cached;

#[cached(ttl = "1m", key = "user:{id}")]
fn user(id: u32) -> u32 {
    id
}

fn main() {}
