use vayu::cached;

struct Page(String);

#[cached(ttl = 60)]
fn call(n: u64) -> Page {
    Page(n.to_string())
}

#[cached(ttl = 60)]
async fn call_async(n: u64) -> Result<Page, String> {
    Ok(Page(n.to_string()))
}

fn main() {}
