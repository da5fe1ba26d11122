//! A cached method: `self` is not part of the key, so say what the result depends on.

use vayu::cached;

struct Shop {
    region: &'static str,
}

impl Shop {
    /// Two shops of different regions have entries of their own.
    #[cached(ttl = "5m", include(self.region))]
    fn price(&self, sku: u32) -> String {
        println!("computing the price of {sku} in {}", self.region);
        format!("{} {sku}.00", self.region)
    }

    /// All shops share the entries.
    #[cached(ttl = "5m", skip(self))]
    fn name(&self, sku: u32) -> String {
        println!("reading the name of {sku} in {}", self.region);
        format!("product {sku}")
    }
}

fn main() {
    for region in ["eu", "asia", "eu"] {
        let shop = Shop { region };
        println!("{}: {}", shop.name(7), shop.price(7));
    }
}
