use vayu::cached;

trait Shop {
    #[cached(ttl = 60)]
    fn call(&self) -> u64;
}

fn main() {}
