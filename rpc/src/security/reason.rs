//! What went wrong with a connection, in words for those who have to mend it.

use rustls::{AlertDescription, CertificateError, Error};
use std::io::{self, ErrorKind};

/// What an error of a connection means. "It" is the other end.
pub(crate) fn explain(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => explain_tls(error),
        None => match error.kind() {
            ErrorKind::UnexpectedEof => "it closed the connection".into(),
            ErrorKind::ConnectionRefused => "nobody listens there".into(),
            ErrorKind::ConnectionReset => "it reset the connection".into(),
            _ => error.to_string(),
        },
    }
}

fn explain_tls(error: &Error) -> String {
    match error {
        Error::NoCertificatesPresented => "it shows no certificate, and TLS is mutual here".into(),
        Error::InvalidCertificate(error) => explain_certificate(error),
        Error::InvalidMessage(_) => "it does not speak TLS".into(),
        Error::AlertReceived(alert) => explain_alert(*alert),
        Error::PeerIncompatible(_) => format!("it does not speak TLS 1.3 ({error})"),
        error => error.to_string(),
    }
}

/// What is wrong with the other end's certificate.
fn explain_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is not signed by our certificate authority (--tls-ca)".into()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("its certificate has expired ({error})")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("its certificate is not valid yet; are both clocks right? ({error})")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("its certificate is for somebody else ({error})")
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            format!("its certificate is for another purpose ({error})")
        }
        error => format!("its certificate does not count: {error}"),
    }
}

/// What the other end says is wrong with us.
fn explain_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => "it refused us: we show no certificate".into(),
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "it refused our certificate: not signed by its certificate authority".into()
        }
        AlertDescription::CertificateExpired => {
            "it refused our certificate: expired, or not valid yet, by its clock".into()
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown => {
            format!("it refused our certificate ({alert:?})")
        }
        AlertDescription::ProtocolVersion => "it refused us: it does not speak TLS 1.3".into(),
        alert => format!("it refused us ({alert:?})"),
    }
}
