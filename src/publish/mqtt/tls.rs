//! The TLS client configuration from PEM files, with ring as the only cryptography provider.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};

use crate::publish::settings::TlsFiles;

/// A certificate or key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read, or that has no PEM of the right kind.
    #[error("{what}: {} cannot be used: {why}", file.display())]
    File {
        /// The configuration key that names the file.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// The reason, for people.
        why: String,
    },
    /// The system has no certificate authorities.
    #[error("the system has no certificate authorities ({0}): install ca-certificates, or set mqtt.ca_file")]
    NoSystemRoots(String),
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
    let roots = match &files.ca {
        Some(file) => private_roots(file)?,
        None => system_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .with_root_certificates(roots);
    match &files.client {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let chain = certificates(certificate, "mqtt.client_cert_file")?;
            let secret = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| unreadable("mqtt.client_key_file", key, &error))?;
            builder.with_client_auth_cert(chain, secret).map_err(|why| TlsError::Client {
                certificate: certificate.clone(),
                key: key.clone(),
                why,
            })
        }
    }
}

fn private_roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file, "mqtt.ca_file")? {
        roots.add(certificate).map_err(|error| TlsError::File {
            what: "mqtt.ca_file",
            file: file.into(),
            why: error.to_string(),
        })?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Distributions ship old certificates that no verifier accepts. The others are enough.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(|| "none found".into(), ToString::to_string);
        return Err(TlsError::NoSystemRoots(why));
    }
    Ok(roots)
}

fn certificates(file: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = || CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, pem::Error>>();
    let certificates = read().map_err(|error| unreadable(what, file, &error))?;
    if certificates.is_empty() {
        return Err(unreadable(what, file, &pem::Error::NoItemsFound));
    }
    Ok(certificates)
}

fn unreadable(what: &'static str, file: &Path, error: &pem::Error) -> TlsError {
    let why = match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "it holds none in PEM form".into(),
        other => format!("{other:?}"),
    };
    TlsError::File { what, file: file.into(), why }
}
