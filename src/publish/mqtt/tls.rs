//! The TLS client configuration from PEM files, with ring as the only cryptography provider.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, pem::PemObject},
};

use crate::{
    publish::settings::TlsFiles,
    tls::{self, TlsFileError},
};

/// A certificate or key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file, or the system's authorities.
    #[error(transparent)]
    File(#[from] TlsFileError),
    /// A certificate and a key that do not belong together, or that are of an unknown kind.
    #[error("mqtt.client_cert_file {} and mqtt.client_key_file {} do not go together: {why}", certificate.display(), key.display())]
    Client {
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

/// The configuration that `files` ask for.
///
/// # Errors
/// When a file cannot be used, or when the system has no certificate authorities.
pub(super) fn client_config(files: &TlsFiles) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .with_root_certificates(tls::roots(files.ca.as_deref(), "mqtt.ca_file")?);
    match &files.client {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let chain = tls::certificates(certificate, "mqtt.client_cert_file")?;
            let secret = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| tls::unreadable("mqtt.client_key_file", key, &error))?;
            builder.with_client_auth_cert(chain, secret).map_err(|why| TlsError::Client {
                certificate: certificate.clone(),
                key: key.clone(),
                why,
            })
        }
    }
}
