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

#[cached(ttl = "1m", each = ids, handle = entry)]
fn with_a_handle(ids: &[u8]) -> HashMap<u8, u8> {
    ids.iter().map(|id| (*id, 1)).collect()
}

#[cached(ttl = "1m", each = ids, spawn = tokio::spawn)]
async fn with_spawn(ids: Vec<u8>) -> HashMap<u8, u8> {
    ids.iter().map(|id| (*id, 1)).collect()
}

#[cached(ttl = "1m", each = ids, err_ttl = "1s")]
fn with_err_ttl(ids: &[u8]) -> Result<HashMap<u8, u8>, String> {
    Ok(ids.iter().map(|id| (*id, 1)).collect())
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

fn main() {}
