use vayu::{cached, single_flight};

#[single_flight(ttl = "5m")]
fn with_a_ttl(n: u32) -> u32 {
    n
}

#[single_flight(tags("number:{n}"), handle = entry)]
fn with_tags(n: u32) -> u32 {
    n
}

#[single_flight]
#[cached(ttl = "5m")]
fn cached_too(n: u32) -> u32 {
    n
}

#[cached(ttl = "5m")]
#[single_flight]
fn cached_first(n: u32) -> u32 {
    n
}

#[single_flight]
#[single_flight]
fn twice(n: u32) -> u32 {
    n
}

struct Shop(u32);

impl Shop {
    #[single_flight]
    fn stock(&self) -> u32 {
        self.0
    }
}

fn main() {}
