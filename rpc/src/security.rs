//! Who is on the other end of a connection: TLS both ways, or nothing at all.
//!
//! With TLS every connection is mutual and both certificates come from one authority. Being known to
//! the authority makes a client. What makes a *node* is a name in the certificate, `n3.node.meridian`
//! for node 3 ([`node_name`]): whoever says `Hello`, `Join` or `Heartbeat` as node 3 must have it,
//! and whoever means to reach node 3 goes on only if the other end has it. A client's certificate is
//! therefore no node, and a node's is not another's.
//!
//! TLS 1.3 only: both ends are ours. Sessions are not resumed, so that an expired certificate is
//! noticed by the next connection.
//!
//! Without TLS nobody is who they say; that is for loopback, or for whoever asks for it in so many
//! words ([`Security::check_listen`]).

mod caller;
mod reason;

pub use caller::{Caller, node_name};
pub(crate) use reason::explain;

use parking_lot::Mutex;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use thiserror::Error;

/// How often the files are looked at for newer certificates.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// What the connection is for, as TLS peers tell one another.
const ALPN: &[u8] = b"h2";

/// How connections are protected.
#[derive(Clone, Debug)]
pub enum Security {
    /// Not at all: whoever reaches the port can do everything.
    Plaintext,
    /// TLS, with a certificate on either side.
    Tls(Arc<Tls>),
}

/// Why there is no security to be had.
#[derive(Debug, Error)]
pub enum SecurityError {
    /// A file cannot be read.
    #[error("reading {path}: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is no PEM.
    #[error("{path} is damaged: {reason}", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file has no certificate.
    #[error("{path} has no certificate: there should be a line -----BEGIN CERTIFICATE-----", path = .path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file has no private key.
    #[error("{path} has no private key: there should be a line -----BEGIN PRIVATE KEY-----", path = .path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// What a file has cannot be used.
    #[error("{path} cannot be used: {reason}", path = .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A certificate was made for another key.
    #[error("{key} is not the key of the certificate in {cert}", key = .key.display(), cert = .cert.display())]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// Some of the three files are named, not all.
    #[error(
        "{missing} is missing: TLS takes a certificate, its key, and the authority that signed both sides' certificates"
    )]
    Incomplete {
        /// What is missing, as the command line spells it.
        missing: &'static str,
    },
    /// A port that others can reach, without TLS.
    #[error(
        "{address} can be reached from other hosts, and without TLS whoever reaches it can read and change everything; \
         give --tls-cert, --tls-key and --tls-ca, listen on 127.0.0.1, or say --insecure"
    )]
    Exposed {
        /// Where the server was to listen.
        address: SocketAddr,
    },
}

impl Security {
    /// TLS from three files, or plaintext from none.
    ///
    /// # Errors
    /// [`SecurityError::Incomplete`] for one or two files, else as [`Tls::read`].
    pub fn from_files(
        cert: Option<PathBuf>,
        key: Option<PathBuf>,
        ca: Option<PathBuf>,
    ) -> Result<Security, SecurityError> {
        match (cert, key, ca) {
            (None, None, None) => Ok(Security::Plaintext),
            (Some(cert), Some(key), Some(ca)) => {
                Ok(Security::Tls(Arc::new(Tls::read(TlsFiles { cert, key, ca })?)))
            }
            (None, ..) => Err(SecurityError::Incomplete { missing: "--tls-cert" }),
            (_, None, _) => Err(SecurityError::Incomplete { missing: "--tls-key" }),
            (.., None) => Err(SecurityError::Incomplete { missing: "--tls-ca" }),
        }
    }

    /// Whether a server may listen there: plaintext only on loopback, or when it was asked for
    /// loudly (`insecure`).
    ///
    /// # Errors
    /// [`SecurityError::Exposed`].
    pub fn check_listen(&self, address: SocketAddr, insecure: bool) -> Result<(), SecurityError> {
        match self {
            Security::Plaintext if !insecure && !address.ip().is_loopback() => {
                Err(SecurityError::Exposed { address })
            }
            _ => Ok(()),
        }
    }

    /// Whether the other end's identity is checked.
    pub fn is_tls(&self) -> bool {
        matches!(self, Security::Tls(_))
    }
}

/// Where one end's certificates are, all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Its certificate, then those between it and the authority, if any.
    pub cert: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// The authorities whose certificates count, for both ends.
    pub ca: PathBuf,
}

/// One end's certificates, read from files and read again when those change.
pub struct Tls {
    files: TlsFiles,
    loaded: Mutex<Loaded>,
}

/// What the files made.
struct Loaded {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    stamps: Stamps,
    looked: Instant,
}

/// Tells whether files have changed: time and length of each.
type Stamps = [Option<(SystemTime, u64)>; 3];

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Which file is wrong, and how.
    pub fn read(files: TlsFiles) -> Result<Tls, SecurityError> {
        let loaded = load(&files)?;
        Ok(Tls { files, loaded: Mutex::new(loaded) })
    }

    /// Looks at the files now, instead of within a minute; `true`: they are newer, and used from the
    /// next connection on.
    ///
    /// # Errors
    /// Which of the newer files is wrong; what was read before stays in use.
    pub fn refresh(&self) -> Result<bool, SecurityError> {
        let mut loaded = self.loaded.lock();
        loaded.looked = Instant::now();
        let found = stamps(&self.files);
        if found == loaded.stamps {
            return Ok(false);
        }
        // Broken files are complained of once, not every minute.
        loaded.stamps = found;
        *loaded = load(&self.files)?;
        Ok(true)
    }

    /// For connections that come in.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        self.look();
        self.loaded.lock().server.clone()
    }

    /// For connections that go out.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        self.look();
        self.loaded.lock().client.clone()
    }

    fn look(&self) {
        if self.loaded.lock().looked.elapsed() < LOOK_EVERY {
            return;
        }
        match self.refresh() {
            Ok(true) => tracing::info!("newer TLS certificates are in use"),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, "newer TLS certificates are not used; the older ones still are");
            }
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.files).finish()
    }
}

fn stamps(files: &TlsFiles) -> Stamps {
    [&files.cert, &files.key, &files.ca].map(|path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

fn load(files: &TlsFiles) -> Result<Loaded, SecurityError> {
    // Before the contents: files that change in between are read again.
    let stamps = stamps(files);
    let chain = certificates(&files.cert)?;
    let key = key(&files.key)?;
    let roots = Arc::new(roots(&files.ca)?);
    let provider = Arc::new(ring::default_provider());
    Ok(Loaded {
        server: Arc::new(server_config(files, &provider, &roots, chain.clone(), key.clone_key())?),
        client: Arc::new(client_config(files, &provider, roots, chain, key)?),
        stamps,
        looked: Instant::now(),
    })
}

fn server_config(
    files: &TlsFiles,
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, SecurityError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|error| unusable(&files.ca, &error))?;
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| unusable(&files.cert, &error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| key_error(files, error))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client_config(
    files: &TlsFiles,
    provider: &Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, SecurityError> {
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| unusable(&files.cert, &error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|error| key_error(files, error))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn key_error(files: &TlsFiles, error: rustls::Error) -> SecurityError {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            SecurityError::Mismatch { cert: files.cert.clone(), key: files.key.clone() }
        }
        rustls::Error::InvalidCertificate(_) => unusable(&files.cert, &error),
        error => unusable(&files.key, &error),
    }
}

fn unusable(path: &Path, reason: &dyn fmt::Display) -> SecurityError {
    SecurityError::Unusable { path: path.to_owned(), reason: reason.to_string() }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SecurityError> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| damaged(path, &error))?;
    if found.is_empty() {
        return Err(SecurityError::NoCertificate { path: path.to_owned() });
    }
    Ok(found)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, SecurityError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| match error {
        pem::Error::NoItemsFound => SecurityError::NoKey { path: path.to_owned() },
        error => damaged(path, &error),
    })
}

fn roots(path: &Path) -> Result<RootCertStore, SecurityError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| unusable(path, &error))?;
    }
    Ok(roots)
}

fn read(path: &Path) -> Result<Vec<u8>, SecurityError> {
    std::fs::read(path).map_err(|source| SecurityError::Read { path: path.to_owned(), source })
}

fn damaged(path: &Path, error: &pem::Error) -> SecurityError {
    SecurityError::Damaged { path: path.to_owned(), reason: error.to_string() }
}
