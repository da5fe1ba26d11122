//! Certificates and cryptography of TLS.

use redis::{ClientTlsConfig, ConnectionInfo, TlsCertificates};
use vayu_core::Result;

use crate::error::misconfigured;
use crate::options::RedisOptions;

/// Installs a cryptography provider unless the program has done so. With two providers in its
/// dependencies rustls selects none.
pub(crate) fn provide() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Returns the certificates of the options, or `None` for the root certificates of the system and
/// no client certificate.
pub(crate) fn certificates(options: &RedisOptions) -> Result<Option<TlsCertificates>> {
    let client_tls = match (&options.client_certificate, &options.client_key) {
        (Some(certificate), Some(key)) => {
            check("client certificate", certificate)?;
            Some(ClientTlsConfig { client_cert: certificate.clone(), client_key: key.clone() })
        }
        (None, None) => None,
        _ => {
            return Err(misconfigured(
                "a client certificate and its private key must be set together",
            ));
        }
    };
    if let Some(roots) = &options.roots {
        check("root certificate", roots)?;
    }
    let root_cert = options.roots.clone();
    let is_default = client_tls.is_none() && root_cert.is_none();
    Ok((!is_default).then_some(TlsCertificates { client_tls, root_cert }))
}

/// Rejects PEM without a certificate, which the `redis` crate accepts.
fn check(what: &str, pem: &[u8]) -> Result<()> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    if pem.windows(BEGIN.len()).any(|part| part == BEGIN) {
        return Ok(());
    }
    Err(misconfigured(format!("no certificate in the PEM of the {what}")))
}

/// Returns the server with the root and client certificates of the options.
pub(crate) fn with_certificates(
    server: ConnectionInfo,
    options: &RedisOptions,
) -> Result<ConnectionInfo> {
    let redis::ConnectionAddr::TcpTls { .. } = server.addr() else { return Ok(server) };
    let Some(certificates) = certificates(options)? else { return Ok(server) };
    // The error may contain a line of the key, so it is not a source.
    let client = redis::Client::build_with_tls(server, certificates)
        .map_err(|_| misconfigured("the certificates or the private key are not valid PEM"))?;
    Ok(client.get_connection_info().clone())
}
