use std::collections::HashMap;
use vayu::cached;

#[cached(ttl = "1m", each = ids)]
fn returns_a_number(ids: &[u64]) -> u64 {
    ids.iter().sum()
}

#[cached(ttl = "1m", each = ids)]
async fn returns_another_map(ids: &[u64]) -> Result<HashMap<String, u64>, String> {
    Ok(ids.iter().map(|id| (id.to_string(), *id)).collect())
}

struct Untold;

#[cached(ttl = "1m", each = ids)]
fn values_without_clone(ids: &[u64]) -> HashMap<u64, Untold> {
    ids.iter().map(|id| (*id, Untold)).collect()
}

#[cached(ttl = "1m", each = ids, err_ttl = "2s")]
fn errors_of_no_result(ids: &[u64]) -> HashMap<u64, u64> {
    ids.iter().map(|id| (*id, *id)).collect()
}

#[cached(ttl = "1m", each = ids, err_ttl = "2s")]
async fn errors_without_clone(ids: &[u64]) -> std::io::Result<HashMap<u64, u64>> {
    Ok(ids.iter().map(|id| (*id, *id)).collect())
}

fn main() {}
