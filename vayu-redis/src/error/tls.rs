//! Failures of TLS.

use std::error::Error as _;
use std::sync::Arc;

use redis::RedisError;
use rustls::{AlertDescription, Error};

use crate::error_reply::Misconfiguration;

/// Returns the misconfiguration that caused an error, if TLS has failed because of one.
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

/// Returns the TLS error among the sources of an error.
fn failure(error: &RedisError) -> Option<&Error> {
    // The `redis` crate wraps its sources in an `Arc`, which is the type to downcast to.
    type Inner = Arc<dyn std::error::Error + Send + Sync>;
    let mut source = error.source();
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
