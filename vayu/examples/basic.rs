//! A cached function: the second call with the same argument does not run it.

use vayu::{cached, mem_cache};

#[cached(ttl = "5m")]
fn population(city: &str) -> u64 {
    println!("a slow query for {city}");
    1_900_000 + city.len() as u64
}

fn main() {
    println!("Vienna: {}", population("Vienna"));
    println!("Vienna: {}", population("Vienna"));
    println!("Graz: {}", population("Graz"));

    let stats = mem_cache().stats();
    println!("{} hit, {} misses", stats.hits, stats.misses);
}
