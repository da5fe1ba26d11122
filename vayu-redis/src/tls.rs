//! What TLS needs beside the library.

use redis::ConnectionInfo;
use vayu_core::Result;

use crate::failure::misconfigured;

/// Chooses the cryptography, unless the program has done so: with two to choose from the library takes
/// none.
pub(crate) fn provide() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The server, believed if one of these certificates vouches for it.
pub(crate) fn with_roots(server: ConnectionInfo, roots: Option<&[u8]>) -> Result<ConnectionInfo> {
    let redis::ConnectionAddr::TcpTls { .. } = server.addr() else { return Ok(server) };
    let Some(roots) = roots else { return Ok(server) };
    let certificates = redis::TlsCertificates { client_tls: None, root_cert: Some(roots.to_vec()) };
    let client = redis::Client::build_with_tls(server, certificates)
        .map_err(|error| misconfigured("the root certificates").with_source(error))?;
    Ok(client.get_connection_info().clone())
}
