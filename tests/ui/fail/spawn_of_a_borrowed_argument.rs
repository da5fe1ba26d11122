use vayu::cached;

#[cached(ttl = 60, stale = 60, spawn = tokio::spawn)]
async fn borrowed(url: &str) -> String {
    url.to_owned()
}

struct Shop;

impl Shop {
    #[cached(ttl = 60, stale = 60, skip(self), spawn = tokio::spawn)]
    async fn method(&self) -> u8 {
        1
    }
}

#[cached(ttl = 60, stale = 60, spawn = tokio::spawn)]
fn sync(n: u8) -> u8 {
    n
}

#[cached(ttl = 60, spawn = tokio::spawn)]
async fn without_stale(url: &str) -> String {
    url.to_owned()
}

fn main() {}
