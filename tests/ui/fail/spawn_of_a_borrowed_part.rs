use vayu::cached;

#[cached(ttl = 60, stale = 60, spawn = tokio::spawn)]
async fn call(ref whole @ (ref part, _): (String, u8)) -> usize {
    whole.0.len() + part.len()
}

fn main() {}
