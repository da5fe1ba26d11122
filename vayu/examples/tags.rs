//! Tags: one call invalidates all entries that depend on a user.

use vayu::{cached, mem_cache};

#[cached(ttl = "1h", tags("user:{id}"))]
fn profile(id: u64) -> String {
    println!("loading the profile of user {id}");
    format!("user {id}")
}

#[cached(ttl = "1h", tags("user:{id}", "orders"))]
fn orders(id: u64, page: u32) -> Vec<String> {
    println!("loading page {page} of the orders of user {id}");
    vec![format!("order {page} of {id}")]
}

fn load_all() {
    for id in [7, 8] {
        profile(id);
        orders(id, 1);
    }
}

fn main() -> vayu::Result<()> {
    load_all();
    println!("again:");
    load_all();
    println!("after user 7 has changed:");
    mem_cache().invalidate_tag("user:7")?;
    load_all();
    Ok(())
}
