//! The certificate that the server shows.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// A certificate and its key, ready to be shown. The files are read again when they change: certificates are renewed more
/// often than servers are started.
#[derive(Clone)]
pub struct Tls(Arc<Renewed>);

struct Renewed {
    certificate: PathBuf,
    key: PathBuf,
    current: Mutex<(Stamp, TlsAcceptor)>,
}

/// When the two files were changed, and their sizes.
type Stamp = [Option<(SystemTime, u64)>; 2];

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of the certificate.
    #[error("cannot read a certificate from `{}`", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The file of the key.
    #[error("cannot read a private key from `{}`", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// There is none in it.
    #[error("`{}` has no certificate in PEM form", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// They do not fit, or cannot be used.
    #[error("the certificate and the key cannot be used")]
    Unusable {
        /// Why.
        source: rustls::Error,
    },
}

impl Tls {
    /// Reads a certificate, with those that lead to the authority's after it, and its key, both PEM.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        let before = stamp(&certificate, &key);
        let current = Mutex::new((before, acceptor(&certificate, &key)?));
        Ok(Self(Arc::new(Renewed { certificate, key, current })))
    }

    /// What to show now. Files that cannot be used, because only one of them was replaced yet, are looked at again when
    /// they have changed once more; until then what was read before is shown.
    pub(crate) fn current(&self) -> TlsAcceptor {
        let Renewed { certificate, key, current } = &*self.0;
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamp(certificate, key);
        if now != current.0 {
            current.0 = now;
            match acceptor(certificate, key) {
                Ok(acceptor) => {
                    tracing::info!(certificate = %certificate.display(), "the certificate was read again");
                    current.1 = acceptor;
                }
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "the old certificate stays"),
            }
        }
        current.1.clone()
    }
}

fn stamp(certificate: &Path, key: &Path) -> Stamp {
    [certificate, key].map(|path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let failed = |source| TlsError::Certificate { path: certificate.to_owned(), source };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(certificate).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { path: certificate.to_owned() });
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Key { path: key.to_owned(), source })?;
    let unusable = |source| TlsError::Unusable { source };
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
