//! Single flight: 100 concurrent callers of an async function, and one run of its body.

use std::time::Duration;

use vayu::{cached, mem_cache};

#[cached(ttl = "5m")]
async fn page(url: &str) -> Result<String, std::io::Error> {
    println!("loading {url}");
    tokio::time::sleep(Duration::from_millis(20)).await;
    Ok(format!("<h1>{url}</h1>"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let callers: Vec<_> = (0..100).map(|_| tokio::spawn(page("/index.html"))).collect();
    for caller in callers {
        assert_eq!(caller.await??, "<h1>/index.html</h1>");
    }

    let stats = mem_cache().stats();
    println!("{} calls, {} of them computed", stats.calls(), stats.misses);
    Ok(())
}
