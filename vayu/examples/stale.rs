//! Stale-if-error: past the ttl, callers get the old value while the source is down.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use vayu::{cached, mem_cache};

static IS_DOWN: AtomicBool = AtomicBool::new(false);

#[cached(ttl = "50ms", stale = "1h")]
fn rate(currency: &str) -> Result<f64, String> {
    println!("querying the source for {currency}");
    if IS_DOWN.load(Ordering::Relaxed) { Err("503".to_owned()) } else { Ok(1.1) }
}

fn main() -> Result<(), String> {
    println!("fresh: {}", rate("EUR")?);

    IS_DOWN.store(true, Ordering::Relaxed);
    thread::sleep(Duration::from_millis(60));
    println!("stale: {}", rate("EUR")?);
    // After a failed refresh the source is not queried again for five seconds.
    println!("stale: {}", rate("EUR")?);
    println!("failed refreshes: {}", mem_cache().stats().failed_refreshes);
    Ok(())
}
