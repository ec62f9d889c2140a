//! TLS of the server: certificate and key from PEM files, with ring as the only cryptography provider.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, pem::PemObject},
};

use crate::tls::{self, TlsFileError};

/// A certificate or key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ServerTlsError {
    /// A file.
    #[error(transparent)]
    File(#[from] TlsFileError),
    /// A certificate and a key that do not belong together, or that are of an unknown kind.
    #[error("http.tls_cert_file {} and http.tls_key_file {} do not go together: {why}", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The reason, for people.
        why: rustls::Error,
    },
    /// The cryptography offers no protocol version. Cannot happen with the one that is built in.
    #[error("cannot set up TLS: {0}")]
    Setup(rustls::Error),
}

/// The configuration of a server that shows this certificate chain and has this key.
///
/// # Errors
/// When a file cannot be used.
pub fn server_config(certificate: &Path, key: &Path) -> Result<ServerConfig, ServerTlsError> {
    let chain = tls::certificates(certificate, "http.tls_cert_file")?;
    let secret = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| tls::unreadable("http.tls_key_file", key, &error))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(ServerTlsError::Setup)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|why| ServerTlsError::Pair { certificate: certificate.into(), key: key.into(), why })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
