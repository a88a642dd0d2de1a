//! Who calls, and as which node it may speak.

use proto::NodeId;
use rustls::pki_types::{CertificateDer, ServerName};
use std::net::SocketAddr;
use webpki::EndEntityCert;

/// The name that makes a certificate a node's: `n3.node.meridian`.
pub fn node_name(node: NodeId) -> String {
    format!("{node}.node.meridian")
}

/// The other end of a connection that came in.
#[derive(Clone, Debug)]
pub struct Caller {
    address: SocketAddr,
    /// Signed by the authority, and in its time; `None`: plaintext.
    certificate: Option<CertificateDer<'static>>,
}

impl Caller {
    /// One that nobody has checked: the connection is plaintext, or in the same process.
    pub fn unchecked(address: SocketAddr) -> Caller {
        Caller { address, certificate: None }
    }

    /// One whose certificate the handshake has checked.
    pub(crate) fn checked(address: SocketAddr, certificate: CertificateDer<'static>) -> Caller {
        Caller { address, certificate: Some(certificate) }
    }

    /// Where it calls from.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it may speak as a node. Without TLS everybody may.
    ///
    /// # Errors
    /// Why not, for people: its certificate lacks the node's name.
    pub fn may_speak_as(&self, node: NodeId) -> Result<(), String> {
        let Some(certificate) = &self.certificate else { return Ok(()) };
        let name = node_name(node);
        let refused = |reason: &dyn std::fmt::Display| {
            format!("the certificate of {} does not make it {node}: {reason}", self.address)
        };
        let expected = ServerName::try_from(name.clone()).map_err(|error| refused(&error))?;
        let certificate = EndEntityCert::try_from(certificate).map_err(|error| refused(&error))?;
        certificate.verify_is_valid_for_subject_name(&expected).map_err(|error| match error {
            webpki::Error::CertNotValidForName(_) => refused(&format!("it lacks the name {name}")),
            error => refused(&error),
        })
    }
}
