use vayu::cached;

struct Shop;

impl Shop {
    #[cached(ttl = 60, skip(self))]
    fn call(&self, n: u64) -> u64 {
        n
    }
}

fn main() {}
