use vayu::cached;

struct Shop;

impl Shop {
    #[cached(ttl = 60, handle = open_entry)]
    fn open(n: u8) -> u8 {
        n
    }
}

fn main() {}
