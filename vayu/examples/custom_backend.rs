//! A backend of your own: a map, with the values by reference. Six methods are required.

use std::{collections::HashMap, sync::Mutex};

use vayu::backend::{AnyValue, Backend, ByReference, Record, async_trait};
use vayu::{Cache, Key, Result, cached};

#[derive(Default)]
struct Map(Mutex<HashMap<Key, Record<AnyValue>>>);

#[async_trait]
impl Backend for Map {
    type Stored = AnyValue;

    fn read(&self, key: &Key) -> Result<Option<Record<AnyValue>>> {
        Ok(self.0.lock().expect("no panic").get(key).cloned())
    }

    fn write(&self, key: &Key, record: Record<AnyValue>) -> Result<()> {
        self.0.lock().expect("no panic").insert(key.clone(), record);
        Ok(())
    }

    fn delete(&self, key: &Key) -> Result<bool> {
        Ok(self.0.lock().expect("no panic").remove(key).is_some())
    }

    async fn read_async(&self, key: &Key) -> Result<Option<Record<AnyValue>>> {
        self.read(key)
    }

    async fn write_async(&self, key: &Key, record: Record<AnyValue>) -> Result<()> {
        self.write(key, record)
    }

    async fn delete_async(&self, key: &Key) -> Result<bool> {
        self.delete(key)
    }
}

#[cached(cache = cache, ttl = "1h", skip(cache))]
fn square(cache: &Cache<Map, ByReference>, n: u64) -> u64 {
    println!("computing the square of {n}");
    n * n
}

fn main() {
    let cache = Cache::with_backend(Map::default());
    println!("{} {}", square(&cache, 12), square(&cache, 12));
    println!("{} hit", cache.stats().hits);
}
