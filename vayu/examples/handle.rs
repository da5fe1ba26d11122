//! A handle: peek at the entry of one call, refresh it, invalidate it.

use std::sync::atomic::{AtomicU32, Ordering};

use vayu::cached;

static RUNS: AtomicU32 = AtomicU32::new(0);

#[cached(ttl = "1h", handle = report_entry)]
fn report(year: u32) -> String {
    let run = RUNS.fetch_add(1, Ordering::Relaxed) + 1;
    format!("report of {year}, run {run}")
}

fn main() -> vayu::Result<()> {
    println!("peek: {:?}", report_entry(2026).peek()?); // does not run the function
    println!("call: {}", report(2026));
    println!("peek: {:?}", report_entry(2026).peek()?);
    println!("has an age: {}", report_entry(2026).age()?.is_some());

    println!("refresh: {}", report_entry(2026).refresh()); // runs it although there is a value
    println!("call: {}", report(2026));

    println!("invalidate: {}", report_entry(2026).invalidate()?);
    println!("call: {}", report(2026));
    Ok(())
}
