use vayu::cached;

struct Shop;

#[cached(ttl = 60, skip(self))]
fn free(n: u64) -> u64 {
    n
}

impl Shop {
    #[cached(ttl = 60, skip(self))]
    fn associated(n: u64) -> u64 {
        n
    }

    #[cached(ttl = 60, skip(self, self))]
    fn twice(&self, n: u64) -> u64 {
        n
    }

    #[cached(ttl = 60, skip(self, n))]
    fn everything(&self, n: u64) -> u64 {
        n
    }
}

fn main() {}
