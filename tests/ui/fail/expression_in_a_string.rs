use vayu::cached;

#[derive(Clone, Copy, serde::Serialize)]
struct Tenant {
    id: u32,
}

#[cached(ttl = "1m", tags("tenant:{tenant.id}"))]
fn tag(tenant: Tenant) -> u32 {
    tenant.id
}

#[cached(ttl = "1m", label = "{tenant.id}")]
fn label(tenant: Tenant) -> u32 {
    tenant.id
}

fn main() {}
