use std::collections::HashMap;
use vayu::cached;

#[cached(ttl = "1m", each = keys)]
fn of_no_argument(ids: &[u8]) -> HashMap<u8, u8> {
    ids.iter().map(|id| (*id, 1)).collect()
}

#[cached(ttl = "1m", each = "ids")]
fn of_a_string(ids: &[u8]) -> HashMap<u8, u8> {
    ids.iter().map(|id| (*id, 1)).collect()
}

#[cached(ttl = "1m", each = ids, skip(ids))]
fn of_a_skipped_argument(ids: &[u8]) -> HashMap<u8, u8> {
    ids.iter().map(|id| (*id, 1)).collect()
}

#[cached(ttl = "1m", each = ids)]
fn of_an_array(ids: &[u8; 3]) -> HashMap<u8, u8> {
    ids.iter().map(|id| (*id, 1)).collect()
}

#[cached(ttl = |_| MINUTE * ids.len() as u32, each = ids, handle = entry)]
fn with_a_handle(ids: &[u8]) -> HashMap<u8, u8> {
    ids.iter().map(|id| (*id, 1)).collect()
}

#[cached(ttl = "1m", each = ids, spawn = tokio::spawn)]
async fn spawned_with_a_borrowed_argument(ids: &[u8], tenant: &str) -> HashMap<u8, usize> {
    ids.iter().map(|id| (*id, tenant.len())).collect()
}

#[cached(ttl = "1m", each = ids, spawn = tokio::spawn)]
async fn spawned_with_borrowed_elements(ids: &[&str]) -> HashMap<String, u8> {
    ids.iter().map(|id| ((*id).to_owned(), 1)).collect()
}

#[cached(ttl = "1m", each = ids, spawn = tokio::spawn, own(ids))]
async fn spawned_with_copies_of_elements(ids: &[u8]) -> HashMap<u8, u8> {
    ids.iter().map(|id| (*id, 1)).collect()
}

#[cached(ttl = |_| MINUTE * ids.len() as u32, each = ids, spawn = tokio::spawn)]
async fn spawned_with_a_closure_on_the_collection(ids: &[u8]) -> HashMap<u8, u8> {
    ids.iter().map(|id| (*id, 1)).collect()
}

#[cached(ttl = "1m", each = ids, spawn = std::thread::spawn)]
fn spawned_of_a_sync_function(ids: Vec<u8>) -> HashMap<u8, u8> {
    ids.iter().map(|id| (*id, 1)).collect()
}

struct Store;

impl Store {
    #[cached(ttl = "1m", each = ids, spawn = tokio::spawn, skip(self))]
    async fn spawned_with_self(self: Arc<Self>, ids: Vec<u8>) -> HashMap<u8, u8> {
        ids.iter().map(|id| (*id, 1)).collect()
    }
}

#[cached(ttl = "1m", stale = "1h", each = ids, spawn = tokio::spawn, patience = "50ms")]
async fn with_patience(ids: Vec<u8>) -> HashMap<u8, u8> {
    ids.iter().map(|id| (*id, 1)).collect()
}

#[cached(ttl = "1m", each = ids)]
fn with_a_pattern(ids: &[u8], (a, b): (u8, u8)) -> HashMap<u8, u8> {
    ids.iter().map(|id| (*id, a + b)).collect()
}

#[cached(ttl = "1m", each = ids, key = tenant)]
fn with_one_key(ids: &[u8], tenant: String) -> HashMap<u8, u8> {
    ids.iter().map(|id| (*id, tenant.len() as u8)).collect()
}

#[cached(ttl = "1m", each = ids, at_most = 0)]
fn at_most_zero(ids: &[u8]) -> HashMap<u8, u8> {
    ids.iter().map(|id| (*id, 1)).collect()
}

#[cached(ttl = "1m", at_most = 100)]
fn at_most_alone(ids: &[u8]) -> HashMap<u8, u8> {
    ids.iter().map(|id| (*id, 1)).collect()
}

#[cached(ttl = "1m", each = id)]
fn of_a_number(id: u64) -> HashMap<u64, u64> {
    HashMap::from([(id, id)])
}

#[cached(ttl = MINUTE * ids.len() as u32, each = ids, handle = entry_of_a_ttl)]
fn with_a_handle_and_a_ttl(ids: &[u8]) -> HashMap<u8, u8> {
    ids.iter().map(|id| (*id, 1)).collect()
}

#[cached(ttl = "1m", stale = longer(&ids), each = ids, handle = entry_of_a_stale_time)]
fn with_a_handle_and_a_stale_time(ids: Vec<u8>) -> HashMap<u8, u8> {
    ids.iter().map(|id| (*id, 1)).collect()
}

#[cached(ttl = "1m", idle = longer(ids), each = ids, handle = entry_of_an_idle_time)]
fn with_a_handle_and_an_idle_time(ids: &[u8]) -> HashMap<u8, u8> {
    ids.iter().map(|id| (*id, 1)).collect()
}

#[cached(ttl = "1m", err_ttl = longer(ids), each = ids, handle = entry_of_an_err_ttl)]
fn with_a_handle_and_an_err_ttl(ids: &[u8]) -> Result<HashMap<u8, u8>, String> {
    Ok(ids.iter().map(|id| (*id, 1)).collect())
}

#[cached(ttl = "1m", cache = cache_for(ids.len()), each = ids, handle = entry_of_a_cache)]
fn with_a_handle_and_a_cache(ids: &[u8]) -> HashMap<u8, u8> {
    ids.iter().map(|id| (*id, 1)).collect()
}

#[cached(ttl = "1m", serializer = Compact { level: ids.len() }, each = ids, handle = entry_of_a_serializer)]
fn with_a_handle_and_a_serializer(ids: &[u8]) -> HashMap<u8, u8> {
    ids.iter().map(|id| (*id, 1)).collect()
}

fn main() {}
