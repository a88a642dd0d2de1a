//! Certificates of a test, in files.

use proto::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rpc::Security;
use rpc::security::node_name;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

/// An authority, and the files of those it has signed.
pub struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// When a certificate counts.
#[derive(Clone, Copy)]
pub enum Valid {
    Now,
    /// It did.
    Before,
    /// It will.
    Later,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("self-signed");
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("ca.crt"), issuer.pem()).expect("written");
        Authority { folder, issuer }
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Writes `NAME.crt` and `NAME.key`.
    pub fn sign(&self, name: &str, names: &[String], valid: Valid) {
        let mut params = CertificateParams::new(names.to_vec()).expect("names");
        params.distinguished_name.push(DnType::CommonName, name);
        (params.not_before, params.not_after) = match valid {
            Valid::Now => (date_time_ymd(2020, 1, 1), date_time_ymd(2120, 1, 1)),
            Valid::Before => (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1)),
            Valid::Later => (date_time_ymd(2119, 1, 1), date_time_ymd(2120, 1, 1)),
        };
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        fs::write(self.path(&format!("{name}.crt")), certificate.pem()).expect("written");
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("written");
    }

    /// What the files of a name make, with the certificates that this authority has signed counting.
    pub fn security(&self, name: &str) -> Security {
        self.security_trusting(name, self)
    }

    /// The same, with those that another one has signed counting.
    pub fn security_trusting(&self, name: &str, other: &Authority) -> Security {
        Security::from_files(
            Some(self.path(&format!("{name}.crt"))),
            Some(self.path(&format!("{name}.key"))),
            Some(other.path("ca.crt")),
        )
        .expect("good files")
    }

    /// A node's.
    pub fn node(&self, node: u32) -> Security {
        let name = format!("n{node}");
        self.sign(&name, &[node_name(NodeId(node)), "127.0.0.1".into()], Valid::Now);
        self.security(&name)
    }

    /// A client's.
    pub fn client(&self) -> Security {
        self.sign("client", &["alice.example".into()], Valid::Now);
        self.security("client")
    }
}
