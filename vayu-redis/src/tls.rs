//! What TLS needs beside the library.

use redis::RedisError;
use std::sync::Arc;

use redis::{ClientTlsConfig, ConnectionInfo, TlsCertificates};
use rustls::{AlertDescription, Error};
use vayu_core::Result;

use crate::error::misconfigured;
use crate::error_reply::Misconfiguration;
use crate::options::RedisOptions;

/// Chooses the cryptography, unless the program has done so: with two to choose from the library takes
/// none.
pub(crate) fn provide() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Returns the certificates that were chosen, or nothing if those of the system are to be used and none
/// is to be shown.
pub(crate) fn certificates(options: &RedisOptions) -> Result<Option<TlsCertificates>> {
    let client_tls = match (&options.client_certificate, &options.client_key) {
        (Some(certificate), Some(key)) => {
            check("client certificate", certificate)?;
            Some(ClientTlsConfig { client_cert: certificate.clone(), client_key: key.clone() })
        }
        (None, None) => None,
        _ => {
            return Err(misconfigured(
                "a client certificate needs its private key, and that the other",
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

/// Refuses a text that has no certificate at all, which the library takes.
fn check(what: &str, pem: &[u8]) -> Result<()> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    if pem.windows(BEGIN.len()).any(|part| part == BEGIN) {
        return Ok(());
    }
    Err(misconfigured(format!("there is no certificate in the PEM text of the {what}")))
}

/// Returns the server, believed if a root certificate of the options vouches for it, and shown their
/// client certificate.
pub(crate) fn with_certificates(
    server: ConnectionInfo,
    options: &RedisOptions,
) -> Result<ConnectionInfo> {
    let redis::ConnectionAddr::TcpTls { .. } = server.addr() else { return Ok(server) };
    let Some(certificates) = certificates(options)? else { return Ok(server) };
    // The error may repeat a line of the key, so it is no source.
    let client = redis::Client::build_with_tls(server, certificates).map_err(|_| {
        misconfigured("the certificates or the private key are not valid PEM texts")
    })?;
    Ok(client.get_connection_info().clone())
}

/// Returns what is wrong with the configuration, if a failure of TLS says so.
pub(crate) fn misconfiguration(error: &RedisError) -> Option<Misconfiguration> {
    use AlertDescription as Alert;
    let cause = match failure(error)? {
        Error::InvalidCertificate(_) | Error::UnsupportedNameType => {
            Misconfiguration::ServerCertificate
        }
        Error::AlertReceived(
            Alert::CertificateRequired
            | Alert::NoCertificate
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError,
        )
        | Error::InconsistentKeys(_) => Misconfiguration::ClientCertificate,
        Error::InvalidMessage(_) => Misconfiguration::NoTls,
        _ => return None,
    };
    Some(cause)
}

/// Returns the error of TLS among the sources of another one.
fn failure(error: &RedisError) -> Option<&Error> {
    // The library has its sources behind a pointer, which is what can be seen of them.
    type Inner = Arc<dyn std::error::Error + Send + Sync>;
    let mut source = std::error::Error::source(error);
    while let Some(mut error) = source {
        if let Some(inner) = error.downcast_ref::<Inner>() {
            error = &**inner;
        }
        if let Some(error) = error.downcast_ref::<Error>() {
            return Some(error);
        }
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(error) = inner.and_then(|error| error.downcast_ref::<Error>()) {
            return Some(error);
        }
        source = error.source();
    }
    None
}
